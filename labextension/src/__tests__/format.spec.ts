import { formatBytes, formatExact, formatProgress, formatSpeed } from '../format';

describe('formatBytes', () => {
  it.each([
    [0, '0 B'],
    [1, '1 B'],
    [999, '999 B'],
    [1000, '1 kB'],
    [1234, '1.2 kB'],
    [9949, '9.9 kB'],
    [9951, '10 kB'],
    [440_000_000, '440 MB'],
    [999_499_999, '999 MB'],
    [999_500_000, '1 GB'],
    [1_234_567_890, '1.2 GB'],
    [128_000_000_000, '128 GB'],
    [3.2e12, '3.2 TB'],
    [5e18, '5000 PB'],
    [-5, '0 B'],
    [NaN, '0 B']
  ])('shows %d as %s', (bytes, text) => {
    expect(formatBytes(bytes)).toBe(text);
  });
});

describe('formatSpeed', () => {
  it('is a size a second', () => {
    expect(formatSpeed(38_400_000)).toBe('38 MB/s');
  });
});

describe('formatProgress', () => {
  it.each([
    [1.6e9, 2.5e9, '1.6 of 2.5 GB'],
    [8e8, 2.5e9, '800 MB of 2.5 GB'],
    [8e8, null, '800 MB'],
    [0, 0, '0 of 0 B']
  ])('shows %d of %d as %s', (done, total, text) => {
    expect(formatProgress(done, total, 'of')).toBe(text);
  });
});

describe('formatExact', () => {
  it('separates thousands', () => {
    expect(formatExact(1234567)).toBe('1,234,567');
  });
});

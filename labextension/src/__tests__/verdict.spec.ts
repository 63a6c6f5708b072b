import { bare, decide, Verdict } from '../verdict';

const HERE = 'http://127.0.0.1:8888/user/a%40b/pulp/content/~k1.abc/hf';
const RENEWED = 'http://127.0.0.1:8888/user/a%40b/pulp/content/~k2.def/hf';
const OTHER = 'http://127.0.0.1:9999/pulp/content/~k1.abc/hf';
const HUB = 'https://hub.example';

describe('decide', () => {
  it.each<
    [string, string | null, string | null, string | null, boolean, Verdict]
  >([
    ['everything right', HERE, HERE, null, true, 'on'],
    ['imported with ours', HERE, HERE, HERE, true, 'on'],
    ['an older access key', RENEWED, RENEWED, null, true, 'on'],
    ['a slash at the end', HERE + '/', HERE, HERE + '/', true, 'on'],
    ['set by hand to ours', HERE, null, null, true, 'on'],
    ['imported too early', HERE, HERE, HUB, true, 'imported-before'],
    ['imported with ours, then unset', null, HERE, HERE, true, 'on'],
    ['nothing there', null, null, null, true, 'started-before'],
    ['nothing there, switched off', null, null, null, false, 'switched-off'],
    ['own endpoint', HUB, null, null, true, 'own-endpoint'],
    ['own endpoint over ours', HUB, HERE, null, true, 'own-endpoint'],
    ['ours taken away', null, HERE, null, true, 'removed'],
    ['ours, empty', '', HERE, '', true, 'removed'],
    ["another server's cache", OTHER, OTHER, null, true, 'other-cache']
  ])('%s', (_, endpoint, injected, imported, injecting, verdict) => {
    const facts = { endpoint, injected, imported };
    expect(decide(facts, HERE, injecting)).toBe(verdict);
  });

  it('trusts the kernel where this page does not know the endpoint', () => {
    const facts = { endpoint: OTHER, injected: OTHER, imported: null };
    expect(decide(facts, null, true)).toBe('on');
  });

  it('does not guess without facts', () => {
    expect(decide(null, HERE, true)).toBe('unknown');
  });
});

describe('bare', () => {
  it.each([
    [null, null],
    ['', null],
    ['http://localhost:8888/pulp/content/hf/', 'http://127.0.0.1:8888/pulp/content/hf'],
    ['http://h/pulp/content/~abc.def/hf', 'http://h/pulp/content/hf'],
    ['http://localhosted/x', 'http://localhosted/x'],
    ['https://[::1]:1/x', 'https://127.0.0.1:1/x']
  ])('reduces %s to %s', (url, expected) => {
    expect(bare(url)).toBe(expected);
  });
});

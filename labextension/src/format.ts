/**
 * Numbers as people read them: decimal units as the Hub shows them.
 * Pure functions, no words that need a translation.
 */

const UNITS = ['B', 'kB', 'MB', 'GB', 'TB', 'PB'];

/**
 * Show a size in decimal units with at most three digits that count: `1.2 GB`, `440 MB`, `0 B`.
 *
 * @param bytes - The size in bytes.
 */
export function formatBytes(bytes: number): string {
  let value = Math.max(0, Number.isFinite(bytes) ? bytes : 0);
  let unit = 0;
  while (unit < UNITS.length - 1 && rounded(value, unit) >= 1000) {
    value /= 1000;
    unit += 1;
  }
  return `${rounded(value, unit)} ${UNITS[unit]}`;
}

/** Round to one decimal below ten, to none above; bytes are whole. */
function rounded(value: number, unit: number): number {
  if (unit === 0 || value >= 9.95) {
    return Math.round(value);
  }
  return Math.round(value * 10) / 10;
}

/**
 * Show a speed: `38 MB/s`.
 *
 * @param bytesPerSecond - The speed in bytes a second.
 */
export function formatSpeed(bytesPerSecond: number): string {
  return `${formatBytes(bytesPerSecond)}/s`;
}

/**
 * Show how much of a known or unknown total is there: `1.6 of 2.5 GB`, `800 MB of 2.5 GB`.
 *
 * @param done - Bytes that are there.
 * @param total - Bytes in all, or null where nobody knows yet.
 * @param of - The (translated) word between the two.
 */
export function formatProgress(
  done: number,
  total: number | null,
  of: string
): string {
  const have = formatBytes(done);
  if (total === null) {
    return have;
  }
  const all = formatBytes(total);
  const [haveNumber, haveUnit] = have.split(' ');
  const sameUnit = haveUnit === all.split(' ')[1];
  return `${sameUnit ? haveNumber : have} ${of} ${all}`;
}

/**
 * Show an exact count of bytes, for a tooltip: `1,234,567`.
 *
 * @param bytes - The size in bytes.
 */
export function formatExact(bytes: number): string {
  return Math.round(bytes).toLocaleString('en-US');
}

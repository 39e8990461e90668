// Figures for people.

const units = ["bytes", "KiB", "MiB", "GiB", "TiB"];
const whole = new Intl.NumberFormat("en");

export const count = (value) => whole.format(Math.round(value));

/// "1 token", "1,234 tokens".
export const counted = (value, noun) => `${count(value)} ${noun}${Math.round(value) === 1 ? "" : "s"}`;

/// Three digits: 1.23, 12.3, 123.
export function digits(value) {
  if (value === 0) return "0";
  if (value >= 100) return count(value);
  return value >= 10 ? value.toFixed(1) : value.toFixed(2);
}

export function bytes(value) {
  let unit = 0;
  while (value >= 1024 && unit < units.length - 1) {
    value /= 1024;
    unit += 1;
  }
  return unit === 0 ? `${count(value)} ${units[0]}` : `${digits(value)} ${units[unit]}`;
}

/// Bytes a second, in the powers of ten that drives are sold by.
export function rate(value) {
  return value >= 1e9 ? `${digits(value / 1e9)} GB/s` : `${digits(value / 1e6)} MB/s`;
}

export const percent = (share) => `${Math.round(100 * share)} %`;

export function seconds(value) {
  if (value < 1) return `${Math.round(1000 * value)} ms`;
  if (value < 90) return `${digits(value)} s`;
  return `${Math.floor(value / 60)} min ${Math.round(value % 60)} s`;
}

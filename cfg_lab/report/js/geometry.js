// Converts values to positions in a figure.

/** @typedef {((value: number) => number) & { low: number, high: number }} Scale */
/** @typedef {{ left: number, right: number, top: number, bottom: number }} Box */

/**
 * Rounds to hundredths of a pixel, which makes the SVG text shorter.
 * @param {number} value
 */
export const round = (value) => Math.round(value * 100) / 100;

/**
 * Returns `value` limited to the range from `low` to `high`.
 * @param {number} value
 * @param {number} low
 * @param {number} high
 */
export const clamp = (value, low, high) => Math.min(high, Math.max(low, value));

/**
 * Returns a function that maps the values from `low` to `high` to the positions from `from` to `to`.
 * @param {[number, number]} range
 * @param {number} from
 * @param {number} to
 * @returns {Scale}
 */
export function linearScale([low, high], from, to) {
  /** @param {number} value */
  const scale = (value) => round(from + ((value - low) / (high - low || 1)) * (to - from));
  return Object.assign(scale, { low, high });
}

/**
 * Returns about `count` round numbers between the ends of a scale.
 * @param {Scale} scale
 * @param {number} count
 */
export function ticks({ low, high }, count) {
  const least = (high - low) / Math.max(1, count);
  const power = 10 ** Math.floor(Math.log10(least || 1));
  const step = [1, 2, 2.5, 5, 10].map((factor) => factor * power).find((size) => size >= least) ?? power;
  const values = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    values.push(Number((k * step).toPrecision(12)));
  return values;
}

/**
 * Returns the range of values with some padding, as a share of the range, on both sides.
 * @param {number[]} values
 * @param {number} padding
 * @returns {[number, number]}
 */
export function extent(values, padding) {
  if (!values.length) return [0, 1];
  let low = Math.min(...values);
  let high = Math.max(...values);
  if (low === high) {
    low -= Math.abs(low) * 0.05 || 0.5;
    high += Math.abs(high) * 0.05 || 0.5;
  }
  return [low - (high - low) * padding, high + (high - low) * padding];
}

// Writes numbers for readers, in the same way as cfg_lab/study/formats.py; a test compares the two.

/** @typedef {number | null | undefined} Unknown */

export const MINUS = "\u2212";
const DASH = "\u2014";

/**
 * Writes three significant digits: 0.932, 4.61, 1,240. A dash stands for an unknown number.
 * @param {Unknown} value
 */
export function numberText(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return DASH;
  const size = Math.abs(value);
  if (size >= 999.5) return (value < 0 ? MINUS : "") + Math.round(size).toLocaleString("en");
  const text = size && size < 1e-4 ? exponential(value) : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", MINUS);
}

/**
 * Writes 1.2e-05, with two digits in the exponent.
 * @param {number} value
 */
function exponential(value) {
  const [digits, exponent] = value.toExponential(2).split("e");
  return `${Number(digits)}e-${exponent.slice(1).padStart(2, "0")}`;
}

/**
 * Writes a difference with its sign: +0.093.
 * @param {Unknown} value
 */
export const signedText = (value) => (value && value > 0 ? "+" : "") + numberText(value);

/**
 * Writes the ends of an interval.
 * @param {Unknown} low
 * @param {Unknown} high
 */
export const intervalText = (low, high) =>
  typeof low === "number" && typeof high === "number"
    ? `[${numberText(low)}, ${numberText(high)}]`
    : "[no interval]";

/**
 * Writes a p value: p = 0.012, p < 0.001.
 * @param {Unknown} p
 */
export function pValueText(p) {
  if (typeof p !== "number") return "p unknown";
  if (p < 0.001) return "p < 0.001";
  return `p = ${p >= 0.1 ? Math.round(100 * p) / 100 : Number(p.toPrecision(2))}`;
}

/**
 * Writes a share as a whole percentage.
 * @param {number} share
 */
export const percentText = (share) => `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)} %`;

/**
 * Writes a count with its noun: 1 prompt, 20 prompts.
 * @param {number} count
 * @param {string} noun
 */
export const countText = (count, noun) => `${count.toLocaleString("en")} ${noun}${count === 1 ? "" : "s"}`;

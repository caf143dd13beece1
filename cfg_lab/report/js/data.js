// The data of the page, and the functions with which all sections read it.

/** @import { PageData, Metric, Estimate, Change, Verdict } from "./types.d.ts" */
import { byId } from "./dom.js";
import { intervalText, MINUS, numberText, pValueText, signedText } from "./numbers.js";

/** @type {PageData} */
export const data = JSON.parse(byId("data").textContent ?? "");

/** Numbers of all cells, which are sorted by their settings. */
export const CELLS = data.cells.id.map((_, cell) => cell);

/** The metric that figures show first; undefined if nothing is measured. */
export const firstMetric = data.metrics.find((metric) => metric.role === "aim") ?? data.metrics.at(0);

const metricsByName = new Map(data.metrics.map((metric) => [metric.name, metric]));

/**
 * Returns a metric by its name.
 * @param {string} name
 */
export function metricNamed(name) {
  const metric = metricsByName.get(name);
  if (!metric) throw new Error(`the page has no metric ${name}`);
  return metric;
}

/**
 * Whether the requests of a cell ran no negative.
 * @param {number} cell
 */
export const isUnguided = (cell) => data.cells.unguided[cell];

/**
 * Returns the cell that another is compared with, or null. A baseline is compared with nothing.
 * @param {number} cell
 */
export function baselineOf(cell) {
  const baseline = data.cells.baseline[cell];
  return baseline === cell ? null : baseline;
}

/**
 * Returns the mean of a metric in a cell, or null if the cell is not scored.
 * @param {Metric} metric
 * @param {number} cell
 * @returns {Estimate | null}
 */
export function estimateOf(metric, cell) {
  const mean = metric.mean[cell];
  const low = metric.low[cell];
  const high = metric.high[cell];
  if (mean === null) return null;
  return { cell, mean, interval: low === null || high === null ? null : [low, high], n: metric.n[cell] };
}

/**
 * Returns the means of a metric in those of the cells that are scored.
 * @param {Metric} metric
 * @param {number[]} cells
 */
export const estimatesOf = (metric, cells) =>
  cells.map((cell) => estimateOf(metric, cell)).filter((estimate) => estimate !== null);

/**
 * Returns the difference of a metric between a cell and its baseline, or null if it has none.
 * @param {Metric} metric
 * @param {number} cell
 * @returns {Change | null}
 */
export function changeOf(metric, cell) {
  const columns = metric.change;
  const verdict = columns.verdict[cell];
  if (verdict === null) return null;
  return {
    difference: columns.difference[cell],
    low: columns.low[cell],
    high: columns.high[cell],
    p: columns.p[cell],
    p_holm: columns.p_holm[cell],
    effect: columns.effect[cell],
    needed: columns.needed[cell],
    verdict,
  };
}

/** @type {Verdict[]} */
const SIGNIFICANT = ["better", "worse", "different"];

/**
 * Whether a metric differs significantly between a cell and its baseline.
 * @param {Metric} metric
 * @param {number} cell
 */
export function isSignificant(metric, cell) {
  const verdict = metric.change.verdict[cell];
  return verdict !== null && SIGNIFICANT.includes(verdict);
}

/**
 * Writes the value of a setting.
 * @param {string | number} value
 */
export const valueText = (value) => String(value).replace(/^-(?=\d)/, MINUS);

/**
 * Says which direction of a metric is better.
 * @param {Metric} metric
 */
export const betterText = (metric) =>
  metric.better ? `${metric.better} is better` : "neither direction is better";

/**
 * Names a metric for the title of a figure's axis.
 * @param {Metric} metric
 */
export const axisTitle = (metric) => (metric.better ? `${metric.name} (${betterText(metric)})` : metric.name);

/**
 * Writes the mean of a metric in a cell with its interval and n.
 * @param {Metric} metric
 * @param {number} cell
 */
export const meanText = (metric, cell) =>
  `${metric.name} ${numberText(metric.mean[cell])} ` +
  `${intervalText(metric.low[cell], metric.high[cell])}, n=${metric.n[cell]}`;

/**
 * Writes the difference of a cell to its baseline with p and verdict; "" if it is not compared.
 * @param {Metric} metric
 * @param {number} cell
 */
export function changeText(metric, cell) {
  const change = changeOf(metric, cell);
  if (!change) return isUnguided(cell) ? "unguided" : "";
  return (
    `${signedText(change.difference)} ${intervalText(change.low, change.high)} from unguided, ` +
    `corrected ${pValueText(change.p_holm)}: ${data.verdicts[change.verdict]}`
  );
}

// Series: the cells that differ only in the setting that curves are drawn over form one line.

import { CELLS, data, valueText } from "./data.js";

/** Index of the axis that curves are drawn over; null if no setting suits. */
export const curveAxis = data.curve_axis;

/** @param {number} cell */
const seriesKey = (cell) => data.cells.point[cell].filter((_, axis) => axis !== curveAxis).join("|");

const keys = [...new Set(CELLS.map(seriesKey))];
const numbers = new Map(keys.map((key, number) => [key, number]));
const series = CELLS.map((cell) => numbers.get(seriesKey(cell)) ?? 0);

/**
 * Returns the number of a cell's series.
 * @param {number} cell
 */
export const seriesOf = (cell) => series[cell];

/**
 * Names the series of a cell by the settings that differ between series.
 * @param {number} cell
 */
export function seriesName(cell) {
  const settings = data.axes
    .map((axis, index) => ({ axis, index }))
    .filter(({ index }) => index !== curveAxis);
  const names = settings.map(({ axis, index }) => {
    const value = valueText(axis.values[data.cells.point[cell][index]]);
    return settings.length === 1 && !axis.numeric ? value : `${axis.name} ${value}`;
  });
  return names.join(", ") || data.name;
}

/**
 * Returns the value of a cell on the axis that curves are drawn over, or null.
 * @param {number} cell
 */
export function curveValue(cell) {
  if (curveAxis === null) return null;
  const value = data.axes[curveAxis].values[data.cells.point[cell][curveAxis]];
  return typeof value === "number" ? value : null;
}

/**
 * Groups items by the series of their cell. Within a series they are in the order of the curve.
 * @template {{ cell: number }} T
 * @param {T[]} items
 * @returns {[number, T[]][]}
 */
export function bySeries(items) {
  /** @type {Map<number, T[]>} */
  const groups = new Map();
  for (const item of items) {
    const group = groups.get(seriesOf(item.cell));
    if (group) group.push(item);
    else groups.set(seriesOf(item.cell), [item]);
  }
  if (curveAxis !== null)
    for (const group of groups.values())
      group.sort((a, b) => data.cells.point[a.cell][curveAxis] - data.cells.point[b.cell][curveAxis]);
  return [...groups].sort(([a], [b]) => a - b);
}

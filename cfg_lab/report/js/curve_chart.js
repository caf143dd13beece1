// A metric over the guidance scale or another numeric setting, with one line per series.

/** @import { Estimate, Metric } from "./types.d.ts" */
/** @import { Box, Scale } from "./geometry.js" */
import { standsForCell } from "./card.js";
import { shareTabStop } from "./controls.js";
import { axisTitle, changeText, data, isUnguided, meanText } from "./data.js";
import { svg } from "./dom.js";
import { clamp, extent, linearScale, ticks } from "./geometry.js";
import { axes, colourClass, endLabels, legend, lineClass, marker, markerState, pointsText } from "./marks.js";
import { bySeries, curveAxis, curveValue, seriesName } from "./series.js";

const ROOMY = 560; // smallest width, in pixels, of a figure with names at the ends of its lines
const MOST_NAMED = 14; // with more series, names are listed below the figure
const LONGEST_NAME = 30; // longest name, in characters, that fits at the end of a line
const MOST_INTERVALS = 8; // with more series, intervals are drawn only on hover and focus
const MOST_BANDS = 6; // with more series, no bands are drawn

/** @typedef {Estimate & { x: number, y: number }} Point an estimate with its position */

/**
 * Draws the lines of all series.
 * @param {Metric} metric
 * @param {Estimate[]} estimates of cells that have a value on the axis of the curves
 * @param {number} width
 */
export function curveLines(metric, estimates, width) {
  const groups = bySeries(estimates);
  const names = new Map(groups.map(([series, group]) => [series, seriesName(group[0].cell)]));
  const longest = Math.max(...[...names.values()].map((name) => name.length));
  const namesAtEnds =
    width > ROOMY && groups.length > 1 && groups.length <= MOST_NAMED && longest <= LONGEST_NAME;
  const height = width > ROOMY ? 400 : 320;
  const right = width - (namesAtEnds ? Math.min(220, 24 + longest * 8) : 16);
  const box = { left: 52, right, top: 34, bottom: height - 52 };

  const crowded = groups.length > MOST_INTERVALS;
  const heights = estimates.flatMap(({ mean, interval }) => [mean, ...((!crowded && interval) || [])]);
  const y = linearScale(extent(heights, crowded ? 0.2 : 0.06), box.bottom, box.top);
  const values = [...new Set(estimates.map(axisValue))].sort((a, b) => a - b);
  const x = linearScale(extent(values, 0.04), box.left, box.right);

  const series = groups.map(([number, group], index) => {
    // Series are moved a little apart, so that their intervals do not cover each other.
    const shift = (index - (groups.length - 1) / 2) * Math.min(5, 24 / groups.length);
    const points = group.map((estimate) => ({
      ...estimate,
      x: x(axisValue(estimate)) + shift,
      y: y(estimate.mean),
    }));
    const line = svg("polyline", {
      class: lineClass(number),
      points: pointsText(points.map((point) => [point.x, point.y])),
    });
    return { number, points, line };
  });
  const marks = series.flatMap(({ number, points }) =>
    points.map((point) => ({ series: number, element: cellMark(metric, point, number, box, y, crowded) })),
  );
  shareTabStop(marks.map(({ element }) => element));
  for (const mark of marks)
    fadeOthers(mark.element, () =>
      series.filter(({ number }) => number !== mark.series).map(({ line }) => line),
    );
  const labels = series.map(({ number, points }) => {
    const last = points[points.length - 1];
    return { series: number, text: names.get(number) ?? "", x: last.x + 14, y: last.y };
  });
  const title = curveAxis === null ? "" : data.axes[curveAxis].title;
  const chart = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "group",
      "aria-label": `${metric.name} over ${title}. Arrow keys move among ${marks.length} cells.`,
    },
    axes(box, x, y, values, ticks(y, 5), title, axisTitle(metric)),
    unguidedLine(estimates, x, box),
    series.map(({ number, points, line }) => [groups.length <= MOST_BANDS && band(points, number, y), line]),
    marks.map(({ element }) => element),
    namesAtEnds && svg("g", { "aria-hidden": "true" }, endLabels(labels, box.top, box.bottom)),
  );
  return [chart, !namesAtEnds && groups.length > 1 && legend(labels)];
}

/** @param {Estimate} estimate */
const axisValue = ({ cell }) => curveValue(cell) ?? 0;

/**
 * Marks the value at which all cells are unguided, if there is one such value beside guided ones.
 * @param {Estimate[]} estimates
 * @param {Scale} x
 * @param {Box} box
 */
function unguidedLine(estimates, x, box) {
  const guided = new Set(estimates.filter(({ cell }) => !isUnguided(cell)).map(axisValue));
  const unguided = new Set(estimates.map(axisValue).filter((value) => !guided.has(value)));
  if (!guided.size || unguided.size !== 1) return null;
  const position = x([...unguided][0]);
  return svg(
    "g",
    { "aria-hidden": "true" },
    svg("line", { class: "off", x1: position, x2: position, y1: box.top, y2: box.bottom }),
    svg("text", { class: "tick", x: position + 6, y: box.top + 10 }, "unguided"),
  );
}

/**
 * Draws the intervals of a series as one band.
 * @param {Point[]} points
 * @param {number} series
 * @param {Scale} y
 */
function band(points, series, y) {
  /** @type {[number, number][]} */
  const upper = [];
  /** @type {[number, number][]} */
  const lower = [];
  for (const { x, interval } of points)
    if (interval) {
      upper.push([x, y(interval[1])]);
      lower.unshift([x, y(interval[0])]);
    }
  if (upper.length < 2) return null;
  return svg("polygon", { class: `band ${colourClass(series)}`, points: pointsText([...upper, ...lower]) });
}

/**
 * Draws the marker and the interval of one cell.
 * @param {Metric} metric
 * @param {Point} point
 * @param {number} series
 * @param {Box} box
 * @param {Scale} y
 * @param {boolean} crowded whether the interval is drawn only on hover and focus
 */
function cellMark(metric, point, series, box, y, crowded) {
  const { cell, interval } = point;
  const whisker =
    interval &&
    svg("line", {
      class: `whisk ${colourClass(series)} ${crowded ? "quiet" : ""}`,
      x1: point.x,
      x2: point.x,
      y1: clamp(y(interval[0]), box.top, box.bottom),
      y2: clamp(y(interval[1]), box.top, box.bottom),
    });
  const element = svg(
    "g",
    { class: "point" },
    whisker,
    svg("circle", { class: "hit", cx: point.x, cy: point.y, r: 13 }),
    marker(series, point.x, point.y, 5, markerState(metric, cell)),
  );
  return standsForCell(element, cell, [
    data.cells.label[cell],
    meanText(metric, cell),
    changeText(metric, cell),
  ]);
}

/**
 * Fades the lines of the other series while a mark is hovered or focused.
 * @param {SVGElement} element
 * @param {() => SVGElement[]} others returns the lines of the other series
 */
function fadeOthers(element, others) {
  /** @param {boolean} faded */
  const toggle = (faded) => () => {
    for (const line of others()) line.classList.toggle("faded", faded);
  };
  element.addEventListener("pointerenter", toggle(true));
  element.addEventListener("focus", toggle(true));
  element.addEventListener("pointerleave", toggle(false));
  element.addEventListener("blur", toggle(false));
}

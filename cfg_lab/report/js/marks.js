// Elements that several figures draw: markers, axes and names of series.

/** @import { Metric } from "./types.d.ts" */
/** @import { Box, Scale } from "./geometry.js" */
import { isSignificant } from "./data.js";
import { html, svg } from "./dom.js";
import { clamp, round } from "./geometry.js";
import { numberText } from "./numbers.js";

const COLOURS = 8;
const MOST_NAMES = 40; // a longer list of names scrolls by itself
const DASHES = 3;
const LEAST_TICK_DISTANCE = 30; // pixels between the labels of an axis
const LABEL_DISTANCE = 16; // pixels between names at the ends of lines

/** @type {((radius: number) => string)[]} Outlines of the markers: disc, square, triangle, and so on. */
const SHAPES = [
  (r) => `M0,${-r}A${r},${r} 0 1 1 0,${r}A${r},${r} 0 1 1 0,${-r}Z`,
  (r) => `M${-r * 0.9},${-r * 0.9}H${r * 0.9}V${r * 0.9}H${-r * 0.9}Z`,
  (r) => `M0,${-r * 1.2}L${r * 1.15},${r * 0.85}H${-r * 1.15}Z`,
  (r) => `M0,${-r * 1.3}L${r * 1.3},0L0,${r * 1.3}L${-r * 1.3},0Z`,
  (r) => `M0,${r * 1.2}L${r * 1.15},${-r * 0.85}H${-r * 1.15}Z`,
  (r) =>
    `M${-r * 0.4},${-r * 1.1}H${r * 0.4}V${-r * 0.4}H${r * 1.1}V${r * 0.4}H${r * 0.4}V${r * 1.1}` +
    `H${-r * 0.4}V${r * 0.4}H${-r * 1.1}V${-r * 0.4}H${-r * 0.4}Z`,
];

/**
 * Class name of a series' colour.
 * @param {number} series
 */
export const colourClass = (series) => `s${series % COLOURS}`;

/**
 * Class names of a series' line: its colour, and its dashes once the colours repeat.
 * @param {number} series
 */
export const lineClass = (series) => `line ${colourClass(series)} d${Math.floor(series / COLOURS) % DASHES}`;

/**
 * Draws a marker of a series.
 * @param {number} series
 * @param {number} x
 * @param {number} y
 * @param {number} radius
 * @param {"filled" | "hollow"} state
 */
export const marker = (series, x, y, radius, state) =>
  svg("path", {
    class: `mark ${colourClass(series)} ${state}`,
    d: SHAPES[series % SHAPES.length](radius),
    transform: `translate(${round(x)},${round(y)})`,
  });

/**
 * Says how the marker of a cell is drawn: filled if it differs significantly from its baseline.
 * @param {Metric} metric
 * @param {number} cell
 */
export const markerState = (metric, cell) => (isSignificant(metric, cell) ? "filled" : "hollow");

/**
 * Writes a list of positions as the `points` of a line.
 * @param {[number, number][]} positions
 */
export const pointsText = (positions) => positions.map(([x, y]) => `${x},${y}`).join(" ");

/**
 * Draws horizontal grid lines with their values, and the axis below.
 * @param {Box} box
 * @param {Scale} x
 * @param {Scale} y
 * @param {number[]} xTicks
 * @param {number[]} yTicks
 * @param {string} xTitle
 * @param {string} yTitle
 */
export function axes(box, x, y, xTicks, yTicks, xTitle, yTitle) {
  const { left, right, bottom } = box;
  const centred = { "text-anchor": "middle" };
  let lastLabel = -Infinity;
  return svg(
    "g",
    { "aria-hidden": "true" },
    svg("text", { class: "axis-title", x: 0, y: 14 }, yTitle),
    yTicks.map((value) => [
      svg("line", { class: "grid", x1: left, x2: right, y1: y(value), y2: y(value) }),
      svg("text", { class: "tick", x: left - 8, y: y(value) + 4, "text-anchor": "end" }, numberText(value)),
    ]),
    xTicks.map((value) => {
      const mark = svg("line", { class: "tickline", x1: x(value), x2: x(value), y1: bottom, y2: bottom + 5 });
      if (x(value) - lastLabel < LEAST_TICK_DISTANCE) return mark;
      lastLabel = x(value);
      return [
        mark,
        svg("text", { class: "tick", x: x(value), y: bottom + 20, ...centred }, numberText(value)),
      ];
    }),
    svg("line", { class: "base", x1: left, x2: right, y1: bottom, y2: bottom }),
    svg("text", { class: "axis-title", x: (left + right) / 2, y: bottom + 42, ...centred }, xTitle),
  );
}

/** @typedef {{ series: number, text: string, x: number, y: number }} SeriesLabel */

/**
 * Writes the names of series at the ends of their lines, moved apart so that none covers another.
 * @param {SeriesLabel[]} labels
 * @param {number} top
 * @param {number} bottom
 */
export function endLabels(labels, top, bottom) {
  const sorted = [...labels].sort((a, b) => a.y - b.y);
  const positions = sorted.map((label) => label.y);
  for (let i = 0; i < sorted.length; i++)
    positions[i] = Math.max(positions[i], i ? positions[i - 1] + LABEL_DISTANCE : top);
  for (let i = sorted.length - 1; i >= 0; i--)
    positions[i] = clamp(
      positions[i],
      -Infinity,
      i < sorted.length - 1 ? positions[i + 1] - LABEL_DISTANCE : bottom,
    );
  return sorted.map((label, i) =>
    svg("text", { class: `end ${colourClass(label.series)}`, x: label.x, y: positions[i] + 4 }, label.text),
  );
}

/**
 * Lists the names of series below a figure.
 * @param {{ series: number, text: string }[]} labels
 */
export function legend(labels) {
  const sorted = [...labels].sort((a, b) => a.series - b.series);
  const many = sorted.length > MOST_NAMES;
  return html(
    "ul",
    // A list that scrolls by itself can be reached by keyboard.
    { class: `key ${many ? "many" : ""}`, ...(many && { tabindex: "0", "aria-label": "Series" }) },
    sorted.map(({ series, text }) =>
      html(
        "li",
        {},
        svg(
          "svg",
          { width: 26, height: 14, viewBox: "0 0 26 14", "aria-hidden": "true" },
          svg("line", { class: lineClass(series), x1: 0, x2: 26, y1: 7, y2: 7 }),
          marker(series, 13, 7, 4.5, "filled"),
        ),
        text,
      ),
    ),
  );
}

// A table of one setting against another, coloured by a metric.

/** @import { Metric } from "./types.d.ts" */
import { standsForCell } from "./card.js";
import { choice, LONG, scrollBox, segments, shareTabStop } from "./controls.js";
import {
  changeOf,
  changeText,
  data,
  firstMetric,
  isSignificant,
  isUnguided,
  meanText,
  metricNamed,
  valueText,
} from "./data.js";
import { byId, fill, html } from "./dom.js";
import { MINUS, numberText } from "./numbers.js";
import { curveAxis } from "./series.js";
import { hiddenValues, visibleCells } from "./visible.js";

/** @typedef {"mean" | "change"} Shown */

const COLUMN_WIDTH = 72; // pixels that a column needs for numbers of any length
const HEAD_WIDTH = 110;

const varying = data.axes.map((_, axis) => axis).filter((axis) => data.axes[axis].values.length > 1);
const chosen = firstChoice();

/** Chooses the axes that are shown first: the curves' axis across, and the longest other axis down. */
function firstChoice() {
  const columns = curveAxis !== null && varying.includes(curveAxis) ? curveAxis : varying.at(0);
  const rows = varying
    .filter((axis) => axis !== columns)
    .sort((a, b) => data.axes[b].values.length - data.axes[a].values.length)
    .at(0);
  return {
    rows,
    columns,
    metric: firstMetric?.name ?? "",
    show: /** @type {Shown} */ ("mean"),
    /** For each axis the index of the value that is held fixed while two other axes are shown. */
    fixed: data.axes.map(() => 0),
  };
}

/** Whether there are two settings to show against each other. */
export const hasMap = chosen.rows !== undefined && data.metrics.length > 0;

/** Draws the choice of the metric and of the axes. */
export function drawMapControls() {
  if (!hasMap || chosen.rows === undefined || chosen.columns === undefined) return;
  /** @type {[number, string][]} */
  const axes = varying.map((axis) => [axis, data.axes[axis].name]);
  /** @type {[string, string][]} */
  const metrics = data.metrics.map(({ name }) => [name, name]);
  /** @type {[Shown, string][]} */
  const shown = [
    ["mean", "mean"],
    ["change", "difference"],
  ];
  fill(
    byId("map-controls"),
    choice("metric", metrics, chosen.metric, (name) => {
      chosen.metric = name;
      drawMap();
    }),
    axes.length > 2 && [
      choice("down", axes, chosen.rows, (axis) => {
        chosen.rows = axis;
        drawMapControls();
        drawMap();
      }),
      choice("across", axes, chosen.columns, (axis) => {
        chosen.columns = axis;
        drawMapControls();
        drawMap();
      }),
    ],
    fixedAxes().map((axis) => {
      /** @type {[number, string][]} */
      const values = data.axes[axis].values.map((value, index) => [index, valueText(value)]);
      return choice(`at ${data.axes[axis].name}`, values, chosen.fixed[axis], (index) => {
        chosen.fixed[axis] = index;
        drawMap();
      });
    }),
    segments("Colour", "map-show", shown, chosen.show, (show) => {
      chosen.show = show;
      drawMap();
    }),
  );
}

const fixedAxes = () => varying.filter((axis) => axis !== chosen.rows && axis !== chosen.columns);

/** Draws the table and its caption. */
export function drawMap() {
  const { rows, columns, show } = chosen;
  if (!hasMap || rows === undefined || columns === undefined) return;
  if (rows === columns) {
    fill(byId("heatmap"), html("p", { class: "empty" }, "Choose two different settings."));
    return;
  }
  const metric = metricNamed(chosen.metric);
  const shownRows = visibleValues(rows);
  const shownColumns = visibleValues(columns);
  const numbers = shownNumbers(metric, show);
  /** @param {number} row @param {number} column */
  const place = (row, column) => `${row}|${column}`;
  const cells = new Map(
    [...numbers.keys()].map((cell) => [
      place(data.cells.point[cell][rows], data.cells.point[cell][columns]),
      cell,
    ]),
  );
  const style = styleOf(metric, show, [...numbers.values()], shownColumns.length);
  /** @type {HTMLButtonElement[]} */
  const buttons = [];
  const body = shownRows.map((row) =>
    html(
      "tr",
      {},
      html("th", { scope: "row" }, valueText(data.axes[rows].values[row])),
      shownColumns.map((column) => {
        const cell = cells.get(place(row, column));
        const value = cell === undefined ? undefined : numbers.get(cell);
        if (cell === undefined || value === undefined) return html("td", { class: "none" }, "\u2014");
        const button = html(
          "button",
          { type: "button", class: `heat ${style.hue(value)}` },
          style.text(value),
          isSignificant(metric, cell) && html("span", { class: "dot", "aria-hidden": "true" }),
        );
        button.style.setProperty("--share", `${Math.round(5 + 40 * style.strength(value))}%`);
        buttons.push(
          standsForCell(button, cell, [
            data.cells.label[cell],
            meanText(metric, cell),
            changeText(metric, cell),
          ]),
        );
        return html("td", {}, button);
      }),
    ),
  );
  shareTabStop(buttons);
  const corner = html(
    "td",
    { class: "corner-cell" },
    html("span", {}, `${data.axes[rows].name}\u00a0\u2193`),
    " ",
    html("span", {}, `${data.axes[columns].name}\u00a0\u2192`),
  );
  const heads = shownColumns.map((column) =>
    html("th", { scope: "col" }, valueText(data.axes[columns].values[column])),
  );
  const table = html(
    "table",
    { class: "heatmap" },
    html("thead", {}, html("tr", {}, corner, heads)),
    html("tbody", {}, body),
  );
  fill(byId("heatmap"), scrollBox("Cells of the heat map", table, shownRows.length > LONG ? "tall" : ""));
  fill(
    byId("map-caption"),
    html("b", {}, `${metric.name}, ${show === "mean" ? "means" : "differences to unguided decoding"}. `),
    colourCaption(metric, show),
    " A dot marks a significant difference to unguided decoding.",
  );
}

/** @param {number} axis */
const visibleValues = (axis) =>
  data.axes[axis].values.map((_, index) => index).filter((index) => !hiddenValues[axis].has(index));

/**
 * Returns the number to show for each cell. For differences, an unguided cell has 0.
 * @param {Metric} metric
 * @param {Shown} show
 * @returns {Map<number, number>}
 */
function shownNumbers(metric, show) {
  const fixed = fixedAxes();
  const numbers = new Map();
  for (const cell of visibleCells()) {
    if (fixed.some((axis) => data.cells.point[cell][axis] !== chosen.fixed[axis])) continue;
    const difference = changeOf(metric, cell)?.difference ?? (isUnguided(cell) ? 0 : null);
    const number = show === "mean" ? metric.mean[cell] : difference;
    if (number !== null) numbers.set(cell, number);
  }
  return numbers;
}

/**
 * Returns how numbers are written and coloured.
 *
 * Blue is better and orange is worse. A metric without a better direction has a colour of its own.
 * @param {Metric} metric
 * @param {Shown} show
 * @param {number[]} numbers
 * @param {number} columns
 */
function styleOf(metric, show, numbers, columns) {
  const low = Math.min(...numbers);
  const high = Math.max(...numbers);
  const reach = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const sign = metric.better && { higher: 1, lower: -1 }[metric.better];
  // In narrow columns all numbers have as many decimals as the largest needs.
  const narrow = byId("heatmap").clientWidth < HEAD_WIDTH + COLUMN_WIDTH * columns;
  const decimals = Math.max(0, (show === "mean" ? 2 : 1) - Math.floor(Math.log10(reach)));
  return {
    /** @param {number} value */
    text(value) {
      const fits = !narrow || value === 0 || decimals > 5;
      const text = fits ? numberText(value) : value.toFixed(decimals).replace("-", MINUS);
      return show === "change" && value > 0 ? `+${text}` : text;
    },
    /** @param {number} value */
    hue(value) {
      if (!sign) return "neutral";
      return show === "change" && value * sign < 0 ? "worse" : "";
    },
    /**
     * Strength of the colour, from 0 to 1.
     * @param {number} value
     */
    strength(value) {
      if (show === "change") return Math.abs(value) / reach;
      const share = (value - low) / (high - low || 1);
      return sign === -1 ? 1 - share : share;
    },
  };
}

/**
 * @param {Metric} metric
 * @param {Shown} show
 */
function colourCaption(metric, show) {
  if (show === "mean")
    return metric.better
      ? `Stronger colour is ${metric.better}, which is better.`
      : "Stronger colour is higher.";
  return metric.better
    ? `Blue is better than unguided (${metric.better}). Orange is worse.`
    : "Stronger colour is further from unguided. Neither direction is better.";
}

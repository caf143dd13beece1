// The table of all cells, which can be sorted.

/** @import { Metric } from "./types.d.ts" */
import { LONG, scrollBox, segments } from "./controls.js";
import { betterText, changeOf, changeText, data, isSignificant, isUnguided, valueText } from "./data.js";
import { byId, fill, html } from "./dom.js";
import { intervalText, numberText, signedText } from "./numbers.js";
import { openTexts } from "./texts.js";
import { visibleCells } from "./visible.js";

/** @import { Child } from "./dom.js" */
/**
 * @typedef {object} Column
 * @property {string} name
 * @property {boolean} [text] whether the column holds text rather than numbers
 * @property {string} [arrow] shows which direction is better
 * @property {string} [note] says which direction is better
 * @property {(cell: number) => number | null} key what the column is sorted by
 * @property {(cell: number) => Child} show
 */

const state = {
  allMetrics: false,
  /** @type {number | null} Number of the column that the table is sorted by. */
  sortedBy: null,
  descending: false,
};

/** Draws the choice between the main metrics and all metrics. */
export function drawTableControls() {
  if (data.metrics.every((metric) => metric.role !== "other")) return;
  /** @type {["main" | "all", string][]} */
  const options = [
    ["main", "aims and prices"],
    ["all", `all ${data.metrics.length}`],
  ];
  fill(
    byId("table-controls"),
    segments("Metrics", "table-metrics", options, "main", (value) => {
      state.allMetrics = value === "all";
      drawTable();
    }),
  );
}

/** Draws the table. */
export function drawTable() {
  const columns = tableColumns();
  const cells = sorted(visibleCells(), columns);
  const table = html(
    "table",
    { class: "results" },
    html(
      "caption",
      {},
      "Mean and 95 % interval over prompts, with n where not every text is scored. Below it, the paired " +
        "difference to unguided decoding of the same prompts.",
    ),
    html("thead", {}, html("tr", {}, columns.map(columnHead))),
    html(
      "tbody",
      {},
      cells.map((cell) => tableRow(cell, columns)),
    ),
  );
  fill(byId("table"), scrollBox("Results, one row per cell", table, cells.length > LONG ? "tall" : ""));
  fill(
    byId("table-note"),
    "\u25b2 \u25bc significantly higher or lower than unguided after correction. \u25b3 \u25bd not significant. " +
      "Rows in italics are unguided. The first column opens the texts of a cell.",
  );
}

/** @returns {Column[]} */
function tableColumns() {
  const metrics = data.metrics.filter((metric) => state.allMetrics || metric.role !== "other");
  /** @type {Column[]} */
  const settings = data.axes.map((axis, index) => ({
    name: axis.name,
    text: true,
    key: (cell) => data.cells.point[cell][index],
    show: (cell) => valueText(axis.values[data.cells.point[cell][index]]),
  }));
  /** @type {Column} */
  const name = { name: "cell", text: true, key: (cell) => cell, show: (cell) => data.cells.label[cell] };
  return [
    ...(settings.length ? settings : [name]),
    { name: "texts", key: (cell) => data.cells.texts[cell], show: (cell) => String(data.cells.texts[cell]) },
    ...metrics.map((metric) => ({
      name: metric.name,
      arrow: metric.better ? { higher: "\u2191", lower: "\u2193" }[metric.better] : "",
      note: betterText(metric),
      key: (/** @type {number} */ cell) => metric.mean[cell],
      show: (/** @type {number} */ cell) => metricCell(metric, cell),
    })),
  ];
}

/**
 * Returns the cells in the order of the sorted column. Cells without a number come last.
 * @param {number[]} cells
 * @param {Column[]} columns
 */
function sorted(cells, columns) {
  const column = state.sortedBy === null ? undefined : columns.at(state.sortedBy);
  if (!column) return cells;
  const sign = state.descending ? -1 : 1;
  return cells.sort((a, b) => {
    const [keyA, keyB] = [column.key(a), column.key(b)];
    if (keyA === null || keyB === null) return Number(keyA === null) - Number(keyB === null) || a - b;
    return sign * (keyA - keyB) || a - b;
  });
}

/**
 * @param {Column} column
 * @param {number} index
 */
function columnHead(column, index) {
  const isSorted = state.sortedBy === index;
  const direction = state.descending ? "descending" : "ascending";
  const sort = () => {
    state.descending = isSorted && !state.descending;
    state.sortedBy = index;
    drawTable();
    const heads = byId("table").querySelectorAll("thead th");
    heads.item(index).querySelector("button")?.focus();
  };
  const button = html(
    "button",
    { type: "button", title: column.note, onclick: sort },
    column.name,
    column.arrow &&
      html("span", { class: "arrow", "aria-label": column.note, role: "img" }, ` ${column.arrow}`),
    html(
      "span",
      { class: "sort", "aria-hidden": "true" },
      isSorted && (state.descending ? "\u25be" : "\u25b4"),
    ),
  );
  return html(
    "th",
    { scope: "col", class: column.text ? null : "n", "aria-sort": isSorted ? direction : "none" },
    button,
  );
}

/**
 * @param {number} cell
 * @param {Column[]} columns
 */
function tableRow(cell, columns) {
  const [first, ...rest] = columns;
  const opener = html(
    "button",
    {
      type: "button",
      class: "link",
      "aria-label": `${data.cells.label[cell]}: read its texts`,
      onclick: () => openTexts(cell),
    },
    first.show(cell),
  );
  return html(
    "tr",
    { class: isUnguided(cell) ? "unguided" : null },
    html("th", { scope: "row" }, opener),
    rest.map((column) => html("td", { class: column.text ? null : "n" }, column.show(cell))),
  );
}

/**
 * Writes the mean of a metric in a cell, its interval and its difference.
 * @param {Metric} metric
 * @param {number} cell
 */
function metricCell(metric, cell) {
  if (metric.mean[cell] === null) return html("span", { class: "none" }, "not scored");
  const change = changeOf(metric, cell);
  const difference = change?.difference ?? null;
  const [up, down] = isSignificant(metric, cell) ? ["\u25b2", "\u25bc"] : ["\u25b3", "\u25bd"];
  return [
    html("span", { class: "mean" }, numberText(metric.mean[cell])),
    " ",
    html(
      "small",
      {},
      intervalText(metric.low[cell], metric.high[cell]),
      metric.n[cell] !== data.cells.texts[cell] && ` n=${metric.n[cell]}`,
    ),
    change &&
      difference !== null &&
      html(
        "span",
        { class: `delta ${change.verdict}`, title: changeText(metric, cell) },
        difference < 0 ? down : up,
        html("span", { class: "sr" }, `${data.verdicts[change.verdict]}: `),
        ` ${signedText(difference)}`,
      ),
  ];
}

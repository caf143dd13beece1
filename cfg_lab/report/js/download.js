// CSV files, made from what the page holds.

import { CELLS, changeOf, data } from "./data.js";
import { byId, fill, html } from "./dom.js";

/** @typedef {string | number | null} Field */

/** @param {Field} value */
function csvField(value) {
  const text = value === null ? "" : String(value);
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}

/** @param {Field[][]} rows */
const csv = (rows) => `${rows.map((row) => row.map(csvField).join(",")).join("\r\n")}\r\n`;

const settingHeads = data.axes.map((axis) => axis.key);

/** @param {number} cell */
const settings = (cell) => data.axes.map((axis, index) => axis.values[data.cells.point[cell][index]]);

/** Returns one row per cell, with the mean and the difference of each metric. */
function summaryCsv() {
  const heads = data.metrics.flatMap(({ name }) => [
    name,
    `${name}_low`,
    `${name}_high`,
    `${name}_n`,
    `${name}_difference`,
    `${name}_difference_low`,
    `${name}_difference_high`,
    `${name}_p_holm`,
    `${name}_p`,
    `${name}_effect`,
    `${name}_needed`,
  ]);
  const rows = CELLS.map((cell) => [
    data.cells.id[cell],
    ...settings(cell),
    data.cells.texts[cell],
    ...data.metrics.flatMap((metric) => {
      const change = changeOf(metric, cell);
      return [
        metric.mean[cell],
        metric.low[cell],
        metric.high[cell],
        metric.n[cell],
        change?.difference ?? null,
        change?.low ?? null,
        change?.high ?? null,
        change?.p_holm ?? null,
        change?.p ?? null,
        change?.effect ?? null,
        change?.needed ?? null,
      ];
    }),
  ]);
  return csv([["cell", ...settingHeads, "texts", ...heads], ...rows]);
}

/** Returns one row per text, with its scores. */
function textsCsv() {
  const metrics = data.metrics.map((metric) => metric.name);
  const heads = ["prompt_id", "prompt", "sample", "text", "finish_reason", ...metrics];
  const rows = data.rows.cell.map((cell, row) => {
    const completion = data.rows.completion[row];
    const prompt = data.rows.prompt[row];
    return [
      data.cells.id[cell],
      ...settings(cell),
      data.prompts.id[prompt],
      data.prompts.text[prompt],
      data.rows.sample[row],
      data.completions.text[completion],
      data.completions.finish[completion],
      ...metrics.map((name) => data.completions.scores[name][completion]),
    ];
  });
  return csv([["cell", ...settingHeads, ...heads], ...rows]);
}

/**
 * Saves a text as a file on the reader's computer.
 * @param {string} name
 * @param {string} text
 */
function save(name, text) {
  const url = URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" }));
  html("a", { href: url, download: name }).click();
  setTimeout(() => URL.revokeObjectURL(url), 10_000);
}

/** Draws the buttons that save the files. */
export function drawDownloads() {
  /**
   * @param {string} text
   * @param {string} name
   * @param {() => string} content
   */
  const button = (text, name, content) =>
    html("button", { type: "button", onclick: () => save(`${data.name}-${name}.csv`, content()) }, text);
  fill(
    byId("downloads"),
    button("Download summary as CSV", "summary", summaryCsv),
    button(`Download ${data.texts_shown ? "the shown texts" : "texts"} as CSV`, "texts", textsCsv),
  );
}

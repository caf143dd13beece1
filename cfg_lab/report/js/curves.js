// The section about one metric: buttons to choose it, its figure (curves or rows), and a table of its numbers.

/** @import { Metric } from "./types.d.ts" */
import { breakable, dataTable } from "./controls.js";
import { curveLines } from "./curve_chart.js";
import { betterText, changeText, data, estimatesOf, firstMetric } from "./data.js";
import { byId, fill, html, svg } from "./dom.js";
import { forestRows } from "./forest.js";
import { extent, linearScale } from "./geometry.js";
import { lineClass, marker, pointsText } from "./marks.js";
import { countText, intervalText, numberText } from "./numbers.js";
import { bySeries, curveAxis, curveValue } from "./series.js";
import { visibleCells } from "./visible.js";

const LEAST_WIDTH = 280;
const THUMBNAIL = { left: 4, right: 92, top: 4, bottom: 34 };

let shownMetric = firstMetric;

/** Draws the choice of metrics: a small picture of each metric's curves. */
export function drawCurveControls() {
  fill(
    byId("curves-controls"),
    html(
      "fieldset",
      { class: "plates" },
      html("legend", {}, "Metric"),
      data.metrics.map((metric) =>
        html(
          "label",
          { class: metric.role },
          html("input", {
            type: "radio",
            name: "curves-metric",
            value: metric.name,
            checked: metric === shownMetric,
            onchange: () => {
              shownMetric = metric;
              drawCurves();
            },
          }),
          html("span", {}, thumbnail(metric), html("span", { class: "plate-name" }, breakable(metric.name))),
        ),
      ),
    ),
  );
}

/** Draws the shown metric, its caption and its numbers. */
export function drawCurves() {
  if (!shownMetric) return;
  const metric = shownMetric;
  const holder = byId("curves");
  const width = Math.max(LEAST_WIDTH, holder.clientWidth);
  const estimates = estimatesOf(metric, visibleCells());
  const onAxis = estimates.filter(({ cell }) => curveValue(cell) !== null);
  const prompts = data.distinct_prompts;
  if (!estimates.length)
    fill(holder, html("p", { class: "empty" }, "No cell is shown. Switch some on above."));
  else fill(holder, onAxis.length ? curveLines(metric, onAxis, width) : forestRows(metric, estimates, width));
  fill(
    byId("curves-caption"),
    html("b", {}, `${metric.name}, ${betterText(metric)}. `),
    `Means with 95 % intervals over ${countText(prompts, "prompt")}. Filled marks differ significantly from ` +
      "unguided decoding of the same prompts (corrected p < 0.05). Hollow marks do not.",
    metric.role === "other" && " The correction covers the metrics that are neither aims nor prices.",
  );
  const table = byId("curves-table");
  fill(
    table,
    table.firstElementChild,
    dataTable(
      `${metric.name} by cell`,
      ["cell", "mean", "95 % interval", "n", "difference"],
      estimates.map(({ cell, mean, n }) => [
        data.cells.label[cell],
        numberText(mean),
        intervalText(metric.low[cell], metric.high[cell]),
        String(n),
        changeText(metric, cell),
      ]),
    ),
  );
}

/**
 * Draws the curves of a metric as a small picture without axes, which the reader clicks to choose it.
 * @param {Metric} metric
 */
function thumbnail(metric) {
  const { left, right, top, bottom } = THUMBNAIL;
  const estimates = estimatesOf(metric, visibleCells());
  /** @param {number} cell */
  const position = (cell) => (curveAxis === null ? cell : curveValue(cell));
  const points = estimates.flatMap(({ cell, mean }) => {
    const value = position(cell);
    return value === null ? [] : [{ cell, mean, value }];
  });
  const x = linearScale(
    extent(
      points.map(({ value }) => value),
      0,
    ),
    left,
    right,
  );
  const y = linearScale(
    extent(
      points.map(({ mean }) => mean),
      0.1,
    ),
    bottom,
    top,
  );
  return svg(
    "svg",
    { viewBox: "0 0 96 38", width: 96, height: 38, "aria-hidden": "true" },
    bySeries(points).map(([series, group]) => {
      if (group.length === 1) return marker(series, x(group[0].value), y(group[0].mean), 2.5, "filled");
      return svg("polyline", {
        class: lineClass(series),
        points: pointsText(group.map(({ value, mean }) => [x(value), y(mean)])),
      });
    }),
  );
}

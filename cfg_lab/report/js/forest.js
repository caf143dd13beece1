// A metric with one row per cell, for studies without a numeric setting to draw curves over.

/** @import { Estimate, Metric } from "./types.d.ts" */
import { standsForCell } from "./card.js";
import { LONG, scrollBox, shareTabStop } from "./controls.js";
import { axisTitle, changeText, data, meanText } from "./data.js";
import { svg } from "./dom.js";
import { extent, linearScale, ticks } from "./geometry.js";
import { colourClass, marker, markerState } from "./marks.js";
import { numberText } from "./numbers.js";
import { seriesOf } from "./series.js";

const ROW = 40; // pixels

/**
 * Draws the mean and interval of each cell.
 * @param {Metric} metric
 * @param {Estimate[]} estimates
 * @param {number} width
 */
export function forestRows(metric, estimates, width) {
  const box = { left: 12, right: width - 12, top: 40, bottom: 48 + estimates.length * ROW };
  const ends = estimates.flatMap(({ mean, interval }) => [mean, ...(interval ?? [])]);
  const x = linearScale(extent(ends, 0.06), box.left, box.right);
  const rows = estimates.map(({ cell, mean, interval }, index) => {
    const middle = box.top + index * ROW + 22;
    const series = seriesOf(cell);
    const element = svg(
      "g",
      { class: "point" },
      svg("text", { class: "row-label", x: box.left, y: middle - 9 }, data.cells.label[cell]),
      svg("rect", { class: "hit", x: 0, y: middle - 22, width, height: ROW }),
      interval &&
        svg("line", {
          class: `whisk ${colourClass(series)}`,
          x1: x(interval[0]),
          x2: x(interval[1]),
          y1: middle,
          y2: middle,
        }),
      marker(series, x(mean), middle, 5, markerState(metric, cell)),
    );
    return standsForCell(element, cell, [
      data.cells.label[cell],
      meanText(metric, cell),
      changeText(metric, cell),
    ]);
  });
  shareTabStop(rows);
  const figure = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${box.bottom + 28}`,
      width,
      height: box.bottom + 28,
      role: "group",
      "aria-label": `${metric.name} of each cell. Arrow keys move among ${rows.length} cells.`,
    },
    svg("text", { class: "axis-title", x: 0, y: 14, "aria-hidden": "true" }, axisTitle(metric)),
    ticks(x, 5).map((value) =>
      svg(
        "g",
        { "aria-hidden": "true" },
        svg("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top - 8, y2: box.bottom }),
        svg(
          "text",
          { class: "tick", x: x(value), y: box.bottom + 18, "text-anchor": "middle" },
          numberText(value),
        ),
      ),
    ),
    rows,
  );
  return rows.length > LONG ? scrollBox(`${metric.name} of each cell`, figure, "tall") : figure;
}

// One metric against another, with the Pareto front and each cell's probability of being on it.

/** @import { Front, Metric } from "./types.d.ts" */
/** @import { Box, Scale } from "./geometry.js" */
import { standsForCell } from "./card.js";
import { choice, dataTable, shareTabStop } from "./controls.js";
import {
  axisTitle,
  CELLS,
  data,
  isSignificant,
  isUnguided,
  meanText,
  metricNamed,
  valueText,
} from "./data.js";
import { byId, fill, html, svg } from "./dom.js";
import { clamp, extent, linearScale, round, ticks } from "./geometry.js";
import { placeLabels } from "./mark_labels.js";
import { axes, colourClass, legend, marker, markerState, pointsText } from "./marks.js";
import { intervalText, numberText, percentText } from "./numbers.js";
import { bySeries, curveAxis, curveValue, seriesName, seriesOf } from "./series.js";
import { visibleCells } from "./visible.js";

/** @typedef {[number, number] | null} Interval */
/** @typedef {{ cell: number, x: number, y: number, radius: number }} Point a cell's mark on the page */

const LEAST_WIDTH = 280;
const ROOMY = 560; // from this width on, in pixels, the figure is taller
const RADIUS = 6;
const MOST_NAMED = 80; // with more marks, only unguided cells and cells on the front are named
const RING_DISTANCE = 6; // from the mark to the ring that shows a probability

const paired = [...new Set(data.fronts.flatMap((front) => [front.x, front.y]))];
const chosen = firstChoice();

/** Chooses what is shown first: an aim with a significant change, against perplexity or another metric. */
function firstChoice() {
  const aims = data.metrics.filter((metric) => metric.role === "aim" && paired.includes(metric.name));
  const significant = aims.find((metric) => CELLS.some((cell) => isSignificant(metric, cell)));
  const y = (significant ?? aims.at(0))?.name ?? paired.at(0) ?? "";
  const others = paired.filter((name) => name !== y);
  const x = others.find((name) => name === "perplexity") ?? others.at(0) ?? "";
  const size = others.find((name) => name !== x && metricNamed(name).role === "price") ?? "";
  return { x, y, size };
}

/** Draws the choice of the two metrics, and of the metric that the size of the marks shows. */
export function drawTradeOffControls() {
  /** @type {[string, string][]} */
  const pairs = paired.map((name) => [name, name]);
  /** @type {[string, string][]} */
  const sizes = [
    ["", "all alike"],
    ...data.metrics.map(({ name }) => /** @type {[string, string]} */ ([name, name])),
  ];
  /** @param {"x" | "y" | "size"} which */
  const choose = (which) => (/** @type {string} */ name) => {
    chosen[which] = name;
    drawTradeOff();
  };
  fill(
    byId("tradeoff-controls"),
    choice("up", pairs, chosen.y, choose("y")),
    choice("across", pairs, chosen.x, choose("x")),
    choice("size", sizes, chosen.size, choose("size")),
  );
}

/** Draws the figure, its caption and its numbers. */
export function drawTradeOff() {
  const holder = byId("tradeoff-chart");
  const caption = byId("tradeoff-caption");
  const { x: nameX, y: nameY } = chosen;
  const front = data.fronts.find(
    (pair) => (pair.x === nameX && pair.y === nameY) || (pair.x === nameY && pair.y === nameX),
  );
  if (!front) {
    fill(holder, html("p", { class: "empty" }, "Choose two different metrics."));
    fill(caption);
    return;
  }
  const metrics = {
    x: metricNamed(nameX),
    y: metricNamed(nameY),
    size: chosen.size ? metricNamed(chosen.size) : null,
  };
  const { x, y, size } = metrics;
  const cells = visibleCells().filter((cell) => x.mean[cell] !== null && y.mean[cell] !== null);
  const width = Math.max(LEAST_WIDTH, holder.clientWidth);
  if (cells.length) fill(holder, tradeOffChart(metrics, front, cells, width));
  else fill(holder, html("p", { class: "empty" }, "No cell is shown. Switch some on above."));
  fill(
    caption,
    html("b", {}, `${y.name} against ${x.name}. `),
    html(
      "span",
      {},
      `Filled marks: ${y.name} differs significantly from unguided decoding. `,
      "The arrow points to where both metrics are better. ",
      "The thick line joins the Pareto front of all cells: no other cell is better in both metrics. ",
      "The arc around a mark is the probability that the cell is on the front, by bootstrap over prompts; ",
      "a full ring is 100 %. ",
      "Thin lines join the cells of a series. ",
      size && `Larger marks have more ${size.name}.`,
    ),
  );
  const table = byId("tradeoff-table");
  fill(
    table,
    table.firstElementChild,
    dataTable(
      `${y.name} against ${x.name}`,
      ["cell", y.name, x.name, ...(size ? [size.name] : []), "on the front", "probability"],
      cells.map((cell) => [
        data.cells.label[cell],
        ...[y, x].map(
          (metric) => `${numberText(metric.mean[cell])} ${intervalText(metric.low[cell], metric.high[cell])}`,
        ),
        ...(size ? [numberText(size.mean[cell])] : []),
        front.on_front[cell] ? "yes" : "no",
        probabilityText(front, cell),
      ]),
    ),
  );
}

/**
 * @param {Front} front
 * @param {number} cell
 */
function probabilityText(front, cell) {
  const probability = front.probability[cell];
  return probability === null ? "unknown" : percentText(probability);
}

/**
 * Draws the figure.
 * @param {{ x: Metric, y: Metric, size: Metric | null }} metrics
 * @param {Front} front
 * @param {number[]} cells cells with a mean of both metrics
 * @param {number} width
 */
function tradeOffChart(metrics, front, cells, width) {
  const height = width > ROOMY ? 460 : 360;
  const box = { left: 52, right: width - 26, top: 40, bottom: height - 52 };
  /** @param {Metric} metric */
  const range = (metric) =>
    extent(
      cells.map((cell) => metric.mean[cell] ?? 0),
      0.16,
    );
  const x = linearScale(range(metrics.x), box.left, box.right);
  const y = linearScale(range(metrics.y), box.bottom, box.top);
  const radius = radiusOf(metrics.size, cells);
  const points = cells.map((cell) => ({
    cell,
    x: x(metrics.x.mean[cell] ?? 0),
    y: y(metrics.y.mean[cell] ?? 0),
    radius: radius(cell),
  }));
  const groups = bySeries(points);
  const yTicks = ticks(y, 5);
  const labels = placeLabels(
    points.map((point) => ({
      ...point,
      text:
        points.length <= MOST_NAMED || isUnguided(point.cell) || front.on_front[point.cell]
          ? markName(point.cell)
          : "",
      reach: point.radius + (front.probability[point.cell] ? 8 : 2),
      // The unguided cell is the baseline of the others, so it is named first, then cells on the front.
      priority: isUnguided(point.cell) ? 2 : Number(front.on_front[point.cell]),
    })),
    { left: 0, right: width, top: 18, bottom: box.bottom },
    yTicks.map((value) => ({ left: 0, top: y(value) - 7, width: box.left - 4 })),
  );
  const marks = groups.flatMap(([, group]) =>
    group.map((point) => {
      const label = labels.get(point.cell);
      const name =
        label &&
        svg(
          "text",
          {
            class: `mark-name ${isUnguided(point.cell) ? "" : colourClass(seriesOf(point.cell))}`,
            x: round(label.left + 1),
            y: round(label.top + 10.5),
          },
          markName(point.cell),
        );
      return cellMark(point, metrics, front, name, x, y, box);
    }),
  );
  shareTabStop(marks);
  const onFront = points.filter(({ cell }) => front.on_front[cell]).sort((a, b) => a.x - b.x);
  const chart = svg(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "group",
      "aria-label": `${metrics.y.name} against ${metrics.x.name}. Arrow keys move among ${marks.length} cells.`,
    },
    axes(box, x, y, ticks(x, width > ROOMY ? 7 : 4), yTicks, axisTitle(metrics.x), axisTitle(metrics.y)),
    betterCorner(metrics.x, metrics.y, box),
    line("front", onFront),
    curveAxis !== null && groups.map(([series, group]) => line(`thread ${colourClass(series)}`, group)),
    marks,
  );
  const names = groups.map(([series, group]) => ({ series, text: seriesName(group[0].cell) }));
  return [chart, groups.length > 1 && legend(names)];
}

/**
 * Names a mark by the value of its cell on the curves' axis.
 * @param {number} cell
 */
function markName(cell) {
  const value = curveValue(cell);
  if (isUnguided(cell)) return "unguided";
  return value === null ? "" : valueText(value);
}

/**
 * Returns the function that gives the radius of a cell's mark.
 * @param {Metric | null} metric the metric that the size shows
 * @param {number[]} cells
 */
function radiusOf(metric, cells) {
  const means = metric ? cells.map((cell) => metric.mean[cell]).filter((mean) => mean !== null) : [];
  const scale = linearScale(extent(means, 0), 4, 10);
  return (/** @type {number} */ cell) => {
    const mean = metric?.mean[cell];
    return typeof mean === "number" ? scale(mean) : RADIUS;
  };
}

/**
 * @param {string} kind class names
 * @param {Point[]} points
 */
const line = (kind, points) =>
  svg("polyline", {
    class: kind,
    "aria-hidden": "true",
    points: pointsText(points.map((point) => [point.x, point.y])),
  });

/**
 * Draws an arrow into the corner where both metrics are better.
 * @param {Metric} metricX
 * @param {Metric} metricY
 * @param {Box} box
 */
function betterCorner(metricX, metricY, box) {
  const right = metricX.better === "higher" ? 1 : -1;
  const up = metricY.better === "higher" ? 1 : -1;
  const x = right > 0 ? box.right - 6 : box.left + 6;
  const y = up > 0 ? box.top + 4 : box.bottom - 6;
  return svg("path", {
    class: "corner",
    "aria-hidden": "true",
    d: `M${x - 16 * right},${y + 16 * up}L${x},${y}M${x - 10 * right},${y}H${x}V${y + 10 * up}`,
  });
}

/**
 * Draws the marker of one cell with its intervals, its probability and its name.
 * @param {Point} point
 * @param {{ x: Metric, y: Metric, size: Metric | null }} metrics
 * @param {Front} front
 * @param {SVGElement | undefined} name
 * @param {Scale} x
 * @param {Scale} y
 * @param {Box} box
 */
function cellMark(point, metrics, front, name, x, y, box) {
  const { cell, radius } = point;
  const colour = colourClass(seriesOf(cell));
  const ring = radius + RING_DISTANCE;
  const circumference = 2 * Math.PI * ring;
  const probability = front.probability[cell] ?? 0;
  const low = { x: metrics.x.low[cell], y: metrics.y.low[cell] };
  const high = { x: metrics.x.high[cell], y: metrics.y.high[cell] };
  const cross =
    low.x !== null && high.x !== null && low.y !== null && high.y !== null
      ? svg(
          "g",
          { class: `cross ${colour}` },
          svg("line", {
            x1: clamp(x(low.x), box.left, box.right),
            x2: clamp(x(high.x), box.left, box.right),
            y1: point.y,
            y2: point.y,
          }),
          svg("line", {
            x1: point.x,
            x2: point.x,
            y1: clamp(y(low.y), box.top, box.bottom),
            y2: clamp(y(high.y), box.top, box.bottom),
          }),
        )
      : null;
  const element = svg(
    "g",
    { class: "point" },
    cross,
    svg("circle", { class: "hit", cx: point.x, cy: point.y, r: Math.max(13, ring) }),
    probability > 0 &&
      svg("circle", {
        class: `ring ${colour}`,
        cx: point.x,
        cy: point.y,
        r: round(ring),
        transform: `rotate(-90 ${point.x} ${point.y})`,
        "stroke-dasharray": `${round(probability * circumference)} ${round(circumference)}`,
      }),
    marker(seriesOf(cell), point.x, point.y, radius, markerState(metrics.y, cell)),
    name,
  );
  return standsForCell(element, cell, [
    data.cells.label[cell],
    meanText(metrics.y, cell),
    meanText(metrics.x, cell),
    metrics.size ? `${metrics.size.name} ${numberText(metrics.size.mean[cell])}` : "",
    `${front.on_front[cell] ? "on the front" : "not on the front"}, probability ${probabilityText(front, cell)}`,
  ]);
}

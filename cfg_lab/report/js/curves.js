// Each metric over guidance scale, a line a series; without a numeric setting, a row a cell.

const MOST_LABELLED = 14; // series with names at their ends; more are named below
const MOST_WHISKERS = 8; // series with all their intervals drawn; of more, those of the cell pointed at

let curvesMetric = (D.metrics.find((metric) => metric.role === "aim") || D.metrics[0] || {}).name;

function drawCurveControls() {
  fill(
    at("curves-controls"),
    h(
      "fieldset",
      { class: "plates" },
      h("legend", {}, "Metric"),
      D.metrics.map((metric) =>
        h(
          "label",
          { class: metric.role },
          h("input", {
            type: "radio",
            name: "curves-metric",
            value: metric.name,
            checked: metric.name === curvesMetric,
            onchange: () => {
              curvesMetric = metric.name;
              drawCurves();
            },
          }),
          h("span", {}, thumbnail(metric), h("span", { class: "plate-name" }, breakable(metric.name))),
        ),
      ),
    ),
  );
}

// Lines without axes, to choose by.
function thumbnail(metric) {
  const shown = visibleCells();
  const [low, high] = extent(
    shown.map((cell) => metric.mean[cell]),
    0.1,
  );
  const y = linear(low, high, 34, 4);
  const places = scaleAxis < 0 ? CELLS : D.axes[scaleAxis].values;
  const [first, last] = scaleAxis < 0 ? [0, Math.max(1, CELLS.length - 1)] : extent(places, 0);
  const x = linear(first, last, 4, 92);
  return s(
    "svg",
    { viewBox: "0 0 96 38", width: 96, height: 38, "aria-hidden": "true" },
    bySeries(shown).map(([series, cells]) => {
      const place = (cell) => (scaleAxis < 0 ? cell : scaleValue(cell));
      const drawn = cells.filter((cell) => metric.mean[cell] !== null && Number.isFinite(place(cell)));
      if (drawn.length === 1)
        return marker(series, x(place(drawn[0])), y(metric.mean[drawn[0]]), 2.5, "filled");
      return s("polyline", {
        class: `line ${tone(series)} ${dash(series)}`,
        points: drawn.map((cell) => `${x(place(cell))},${y(metric.mean[cell])}`).join(" "),
      });
    }),
  );
}

function bySeries(cells) {
  const groups = new Map();
  for (const cell of cells) {
    const series = seriesOf(cell);
    if (!groups.has(series)) groups.set(series, []);
    groups.get(series).push(cell);
  }
  if (scaleAxis >= 0)
    for (const group of groups.values())
      group.sort((a, b) => D.cells.at[a][scaleAxis] - D.cells.at[b][scaleAxis]);
  return [...groups].sort((a, b) => a[0] - b[0]);
}

function drawCurves() {
  const metric = METRIC.get(curvesMetric);
  if (!metric) {
    at("scale").hidden = true;
    return;
  }
  const holder = at("curves"),
    width = Math.max(280, holder.clientWidth);
  const cells = visibleCells().filter((cell) => metric.mean[cell] !== null);
  const onScale = scaleAxis >= 0 ? cells.filter((cell) => Number.isFinite(scaleValue(cell))) : [];
  const drawn = onScale.length ? curveLines(metric, onScale, width) : forestRows(metric, cells, width);
  fill(holder, cells.length ? drawn : h("p", { class: "empty" }, "No cell is shown: switch some on above."));
  fill(
    at("curves-caption"),
    h("b", {}, `${metric.name}, ${betterText(metric)}. `),
    `Means with 95 % intervals over ${D.prompts.id.length} prompt${D.prompts.id.length === 1 ? "" : "s"}. Filled marks: shown to differ from unguided decoding of the same prompts (corrected p < 0.05); hollow: not shown.`,
    metric.role === "other" ? " Corrected among the metrics beside aims and prices." : "",
  );
  const table = at("curves-table");
  fill(
    table,
    table.firstElementChild,
    dataTable(
      `${metric.name} by cell`,
      ["cell", "mean", "95 % interval", "n", "beside unguided"],
      cells.map((cell) => [
        D.cells.label[cell],
        short(metric.mean[cell]),
        interval(metric.low[cell], metric.high[cell]),
        String(metric.n[cell]),
        changeText(metric, cell),
      ]),
    ),
  );
}

function curveLines(metric, cells, width) {
  const groups = bySeries(cells);
  const names = new Map(groups.map(([series, group]) => [series, seriesName(group[0])]));
  const longest = Math.max(...[...names.values()].map((name) => name.length));
  const beside = width > 560 && groups.length > 1 && groups.length <= MOST_LABELLED && longest <= 30;
  const height = width > 560 ? 400 : 320;
  const box = {
    left: 52,
    right: width - (beside ? Math.min(220, 24 + longest * 8) : 16),
    top: 34,
    bottom: height - 52,
  };
  const quiet = groups.length > MOST_WHISKERS;
  const drawn = (cell) => (quiet ? [] : [metric.low[cell], metric.high[cell]]);
  const y = linear(
    ...extent(
      cells.flatMap((cell) => [metric.mean[cell], ...drawn(cell)]),
      quiet ? 0.2 : 0.06,
    ),
    box.bottom,
    box.top,
  );
  const inside = (value) => Math.min(box.bottom, Math.max(box.top, y(value)));
  const values = [...new Set(cells.map(scaleValue))].sort((a, b) => a - b);
  const x = linear(...extent(values, 0.04), box.left, box.right);
  const axis = D.axes[scaleAxis];
  const parts = [
    frame(
      box,
      x,
      y,
      values,
      ticks(y.low, y.high, 5),
      axis.key === "guidance.scale" ? "guidance scale \u03b3, 1 is off" : axis.key,
      `${metric.name}${metric.better ? ` (${betterText(metric)})` : ""}`,
    ),
  ];
  if (axis.key === "guidance.scale" && values.includes(1) && values.length > 1)
    parts.push(
      s(
        "g",
        { "aria-hidden": "true" },
        s("line", { class: "off", x1: x(1), x2: x(1), y1: box.top, y2: box.bottom }),
        s("text", { class: "tick", x: x(1) + 6, y: box.top + 10 }, "unguided"),
      ),
    );
  const lines = new Map(),
    labels = [],
    points = [];
  groups.forEach(([series, group], place) => {
    const shift = (place - (groups.length - 1) / 2) * Math.min(5, 24 / groups.length);
    const px = (cell) => x(scaleValue(cell)) + shift;
    const sure = group.filter((cell) => metric.low[cell] !== null);
    if (sure.length > 1 && groups.length <= 6)
      parts.push(
        s("polygon", {
          class: `band ${tone(series)}`,
          points: [
            ...sure.map((cell) => `${px(cell)},${y(metric.high[cell])}`),
            ...sure.reverse().map((cell) => `${px(cell)},${y(metric.low[cell])}`),
          ].join(" "),
        }),
      );
    const line = s("polyline", {
      class: `line ${tone(series)} ${dash(series)}`,
      points: group.map((cell) => `${px(cell)},${y(metric.mean[cell])}`).join(" "),
    });
    lines.set(series, line);
    parts.push(line);
    for (const cell of group) {
      const whisker =
        metric.low[cell] === null
          ? null
          : s("line", {
              class: `whisk ${tone(series)} ${quiet ? "quiet" : ""}`,
              x1: px(cell),
              x2: px(cell),
              y1: inside(metric.low[cell]),
              y2: inside(metric.high[cell]),
            });
      points.push(
        speaks(
          s(
            "g",
            { class: "point" },
            whisker,
            s("circle", { class: "hit", cx: px(cell), cy: y(metric.mean[cell]), r: 13 }),
            marker(series, px(cell), y(metric.mean[cell]), 5, markerState(metric, cell)),
          ),
          cell,
          [D.cells.label[cell], meanText(metric, cell), changeText(metric, cell)],
        ),
      );
    }
    const last = group[group.length - 1];
    labels.push({ series, text: names.get(series), x: px(last) + 14, y: y(metric.mean[last]) });
  });
  roving(points);
  const order = groups.flatMap(([series, group]) => group.map(() => series));
  points.forEach((point, place) => followSeries(point, order[place], lines));
  const chart = s(
    "svg",
    {
      viewBox: `0 0 ${width} ${height}`,
      width,
      height,
      role: "group",
      "aria-label": `${metric.name} over guidance scale; arrow keys move among ${points.length} cells`,
    },
    parts,
    points,
    beside ? s("g", { "aria-hidden": "true" }, endLabels(labels, box.top, box.bottom)) : null,
  );
  return [chart, beside || groups.length < 2 ? null : key(labels)];
}

// While a point is hovered or focused, the lines of the other series step back.
function followSeries(point, series, lines) {
  const fade = (on) => () => {
    for (const [other, line] of lines) line.classList.toggle("faded", on && other !== series);
  };
  point.addEventListener("pointerenter", fade(true));
  point.addEventListener("focus", fade(true));
  point.addEventListener("pointerleave", fade(false));
  point.addEventListener("blur", fade(false));
}

// Names of the series below a chart that has no room for them at the ends of its lines.
function key(labels) {
  return h(
    "ul",
    { class: "key" },
    [...labels]
      .sort((a, b) => a.series - b.series)
      .map((label) =>
        h(
          "li",
          {},
          s(
            "svg",
            { width: 26, height: 14, viewBox: "0 0 26 14", "aria-hidden": "true" },
            s("line", {
              class: `line ${tone(label.series)} ${dash(label.series)}`,
              x1: 0,
              x2: 26,
              y1: 7,
              y2: 7,
            }),
            marker(label.series, 13, 7, 4.5, "filled"),
          ),
          label.text,
        ),
      ),
  );
}

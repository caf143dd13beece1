// A table of one setting against another, coloured by a metric.

const map = (() => {
  const many = D.axes.map((axis, index) => [axis.values.length, index]).filter(([count]) => count > 1);
  const columns = scaleAxis >= 0 && D.axes[scaleAxis].values.length > 1 ? scaleAxis : (many[0] || [0, -1])[1];
  const rows = (many.filter(([, index]) => index !== columns).sort((a, b) => b[0] - a[0])[0] || [0, -1])[1];
  return { rows, columns, metric: curvesMetric, show: "mean", fixed: D.axes.map(() => 0) };
})();

function drawMapControls() {
  at("map").hidden = map.rows < 0 || map.columns < 0 || !D.metrics.length;
  if (at("map").hidden) return;
  const axes = D.axes
    .map((axis, index) => [index, axis.name])
    .filter(([index]) => D.axes[index].values.length > 1);
  const set = (name, convert) => (value) => {
    map[name] = convert(value);
    drawMapControls();
    drawMap();
  };
  const rest = axes.filter(([index]) => index !== map.rows && index !== map.columns);
  fill(
    at("map-controls"),
    choice(
      "metric",
      D.metrics.map((metric) => [metric.name, metric.name]),
      map.metric,
      set("metric", String),
    ),
    axes.length > 2
      ? [
          choice("down", axes, map.rows, set("rows", Number)),
          choice("across", axes, map.columns, set("columns", Number)),
        ]
      : null,
    rest.map(([index, name]) =>
      choice(
        `at ${name}`,
        D.axes[index].values.map((value, place) => [place, valueText(value)]),
        map.fixed[index],
        (value) => {
          map.fixed[index] = Number(value);
          drawMap();
        },
      ),
    ),
    segments(
      "Colour",
      "map-show",
      [
        ["mean", "mean"],
        ["change", "difference"],
      ],
      map.show,
      (value) => {
        map.show = value;
        drawMap();
      },
    ),
  );
}

function drawMap() {
  if (at("map").hidden) return;
  const metric = METRIC.get(map.metric),
    rows = D.axes[map.rows],
    columns = D.axes[map.columns];
  if (map.rows === map.columns) {
    fill(at("heatmap"), h("p", { class: "empty" }, "Choose two different settings."));
    return;
  }
  const fixed = D.axes
    .map((axis, index) => index)
    .filter((index) => index !== map.rows && index !== map.columns && D.axes[index].values.length > 1);
  const cells = visibleCells().filter((cell) =>
    fixed.every((index) => D.cells.at[cell][index] === map.fixed[index]),
  );
  const value = (cell) =>
    map.show === "mean"
      ? metric.mean[cell]
      : metric.change[cell]
        ? metric.change[cell][0]
        : isBaseline(cell)
          ? 0
          : null;
  const [low, high] = extent(cells.map(value), 0),
    reach = Math.max(Math.abs(low), Math.abs(high)) || 1;
  const find = (row, column) =>
    cells.find((cell) => D.cells.at[cell][map.rows] === row && D.cells.at[cell][map.columns] === column);
  const shownRows = rows.values.map((_, place) => place).filter((place) => !off[map.rows].has(place));
  const shownColumns = columns.values
    .map((_, place) => place)
    .filter((place) => !off[map.columns].has(place));
  const buttons = [];
  // where columns are narrow, as many decimals for all as the largest needs
  const narrow = at("heatmap").clientWidth < 110 + 72 * shownColumns.length;
  const digits = Math.max(0, (map.show === "mean" ? 2 : 1) - Math.floor(Math.log10(reach)));
  const told = (one) =>
    narrow && one !== 0 && digits < 6 ? one.toFixed(digits).replace("-", MINUS) : short(one);
  // blue is better and orange worse; without a better direction there is one colour, and it is neither
  const good = { higher: 1, lower: -1 }[metric.better] || 0;
  const hue = (one) => (good ? (map.show !== "mean" && one * good < 0 ? "worse" : "") : "neutral");
  const body = shownRows.map((row) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, valueText(rows.values[row])),
      shownColumns.map((column) => {
        const cell = find(row, column);
        if (cell === undefined || value(cell) === null) return h("td", { class: "none" }, "\u2014");
        const change = metric.change[cell];
        const button = h(
          "button",
          { type: "button", class: `heat ${hue(value(cell))}` },
          (map.show !== "mean" && value(cell) > 0 ? "+" : "") + told(value(cell)),
          isShown(change) ? h("span", { class: "dot", "aria-hidden": "true" }) : null,
        );
        const above = (value(cell) - low) / (high - low || 1);
        const share =
          map.show === "mean" ? (good < 0 ? 1 - above : above) : Math.abs(value(cell)) / reach;
        button.style.setProperty("--share", `${Math.round(5 + 40 * share)}%`);
        speaks(button, cell, [D.cells.label[cell], meanText(metric, cell), changeText(metric, cell)]);
        buttons.push(button);
        return h("td", {}, button);
      }),
    ),
  );
  roving(buttons);
  fill(
    at("heatmap"),
    scrollBox(
      "Heat map",
      h(
        "table",
        { class: "heatmap" },
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h(
              "td",
              { class: "corner-cell" },
              h("span", {}, `${rows.name}\u00a0\u2193`),
              " ",
              h("span", {}, `${columns.name}\u00a0\u2192`),
            ),
            shownColumns.map((column) => h("th", { scope: "col" }, valueText(columns.values[column]))),
          ),
        ),
        h("tbody", {}, body),
      ),
    ),
  );
  fill(
    at("map-caption"),
    h("b", {}, `${metric.name}, ${map.show === "mean" ? "means" : "differences to unguided decoding"}. `),
    map.show === "mean"
      ? `Stronger colour is ${metric.better ? `${metric.better}, which is better` : "higher"}.`
      : good
        ? `Blue is better than unguided (${metric.better}), orange worse.`
        : "Stronger colour is further from unguided; neither direction is better.",
    " A dot: the difference to unguided decoding is shown.",
  );
}

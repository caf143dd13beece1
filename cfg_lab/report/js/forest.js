// A row a cell, for studies without a numeric setting to draw curves over.

function forestRows(metric, cells, width) {
  const row = 40,
    box = { left: 12, right: width - 12, top: 40, bottom: 48 + cells.length * row };
  const x = linear(
    ...extent(
      cells.flatMap((cell) => [metric.low[cell], metric.high[cell], metric.mean[cell]]),
      0.06,
    ),
    box.left,
    box.right,
  );
  const values = ticks(x.low, x.high, 5),
    points = [];
  const parts = values.map((value) =>
    s(
      "g",
      { "aria-hidden": "true" },
      s("line", { class: "grid", x1: x(value), x2: x(value), y1: box.top - 8, y2: box.bottom }),
      s("text", { class: "tick", x: x(value), y: box.bottom + 18, "text-anchor": "middle" }, short(value)),
    ),
  );
  cells.forEach((cell, place) => {
    const middle = box.top + place * row + 22,
      series = seriesOf(cell);
    points.push(
      speaks(
        s(
          "g",
          { class: "point" },
          s("text", { class: "row-label", x: box.left, y: middle - 9 }, D.cells.label[cell]),
          s("rect", { class: "hit", x: 0, y: middle - 22, width, height: row }),
          metric.low[cell] === null
            ? null
            : s("line", {
                class: `whisk ${tone(series)}`,
                x1: x(metric.low[cell]),
                x2: x(metric.high[cell]),
                y1: middle,
                y2: middle,
              }),
          marker(series, x(metric.mean[cell]), middle, 5, markerState(metric, cell)),
        ),
        cell,
        [D.cells.label[cell], meanText(metric, cell), changeText(metric, cell)],
      ),
    );
  });
  roving(points);
  return s(
    "svg",
    {
      viewBox: `0 0 ${width} ${box.bottom + 28}`,
      width,
      height: box.bottom + 28,
      role: "group",
      "aria-label": `${metric.name} of each cell`,
    },
    s(
      "text",
      { class: "axis-title", x: 0, y: 14, "aria-hidden": "true" },
      `${metric.name}${metric.better ? ` (${betterText(metric)})` : ""}`,
    ),
    parts,
    points,
  );
}

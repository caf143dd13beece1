// One metric against another, with the Pareto front and how likely each cell is to be on it.

const tradeX = new Set(D.fronts.flatMap((front) => [front.x, front.y]));
const trade = (() => {
  const names = [...tradeX],
    aims = names.filter((name) => METRIC.get(name).role === "aim");
  const y = aims[0] || names[0];
  const x =
    names.includes("perplexity") && y !== "perplexity" ? "perplexity" : names.find((name) => name !== y);
  const size = names.find((name) => METRIC.get(name).role === "price" && name !== x && name !== y);
  return { x, y, size: size || "" };
})();

function drawTradeControls() {
  const options = [...tradeX].map((name) => [name, name]);
  const set = (which) => (value) => {
    trade[which] = value;
    drawTrade();
  };
  fill(
    at("tradeoff-controls"),
    choice("up", options, trade.y, set("y")),
    choice("across", options, trade.x, set("x")),
    choice(
      "size",
      [["", "all alike"], ...D.metrics.map((metric) => [metric.name, metric.name])],
      trade.size,
      set("size"),
    ),
  );
}

function drawTrade() {
  const holder = at("tradeoff-chart"),
    width = Math.max(280, holder.clientWidth);
  if (trade.x === trade.y) {
    fill(holder, h("p", { class: "empty" }, "Choose two different metrics."));
    fill(at("tradeoff-caption"));
    return;
  }
  const x = METRIC.get(trade.x),
    y = METRIC.get(trade.y),
    size = METRIC.get(trade.size);
  const front = D.fronts.find(
    (one) => (one.x === trade.x && one.y === trade.y) || (one.x === trade.y && one.y === trade.x),
  );
  const cells = visibleCells().filter((cell) => x.mean[cell] !== null && y.mean[cell] !== null);
  fill(
    holder,
    cells.length
      ? tradeChart(x, y, size, front, cells, width)
      : h("p", { class: "empty" }, "No cell is shown: switch some on above."),
  );
  fill(
    at("tradeoff-caption"),
    h("b", {}, `${y.name} against ${x.name}. `),
    "Better lies towards the corner with the arrow. The heavy line joins the Pareto front over all cells: none is better on both. The arc around a mark is the share of bootstrap resamples of the prompts in which the cell is on the front; a full ring is certain.",
    size ? ` Larger marks: more ${size.name}.` : "",
    " Thin lines follow a series from low to high scale.",
  );
  const table = at("tradeoff-table");
  fill(
    table,
    table.firstElementChild,
    dataTable(
      `${y.name} against ${x.name}`,
      ["cell", y.name, x.name, ...(size ? [size.name] : []), "on the front", "probability"],
      cells.map((cell) => [
        D.cells.label[cell],
        `${short(y.mean[cell])} ${interval(y.low[cell], y.high[cell])}`,
        `${short(x.mean[cell])} ${interval(x.low[cell], x.high[cell])}`,
        ...(size ? [short(size.mean[cell])] : []),
        front.on[cell] ? "yes" : "no",
        front.probability[cell] === null ? "\u2014" : percent(front.probability[cell]),
      ]),
    ),
  );
}

function tradeChart(mx, my, size, front, cells, width) {
  const height = width > 560 ? 460 : 360,
    roomy = width > 560;
  const groups = bySeries(cells);
  const box = { left: 52, right: width - 26, top: 40, bottom: height - 52 };
  const spread = (metric) =>
    extent(
      cells.map((cell) => metric.mean[cell]),
      0.16,
    );
  const x = linear(...spread(mx), box.left, box.right),
    y = linear(...spread(my), box.bottom, box.top);
  const clampX = (value) => Math.min(box.right, Math.max(box.left, x(value))),
    clampY = (value) => Math.min(box.bottom, Math.max(box.top, y(value)));
  const range = size
    ? extent(
        cells.map((cell) => size.mean[cell]),
        0,
      )
    : null;
  const radius = (cell) =>
    size && size.mean[cell] !== null
      ? 4 + (6 * (size.mean[cell] - range[0])) / (range[1] - range[0] || 1)
      : 6;
  const parts = [
    frame(
      box,
      x,
      y,
      ticks(x.low, x.high, roomy ? 7 : 4),
      ticks(y.low, y.high, 5),
      `${mx.name} (${betterText(mx)})`,
      `${my.name} (${betterText(my)})`,
    ),
  ];
  const right = mx.better === "higher",
    up = my.better === "higher";
  const cx = right ? box.right - 6 : box.left + 6,
    cy = up ? box.top + 4 : box.bottom - 6;
  parts.push(
    s("path", {
      class: "corner",
      "aria-hidden": "true",
      d: `M${cx + (right ? -16 : 16)},${cy + (up ? 16 : -16)}L${cx},${cy}M${cx + (right ? -10 : 10)},${cy}H${cx}V${cy + (up ? 10 : -10)}`,
    }),
  );
  const order = cells.filter((cell) => front.on[cell]).sort((a, b) => mx.mean[a] - mx.mean[b]);
  if (order.length)
    parts.push(
      s("polyline", {
        class: "front",
        "aria-hidden": "true",
        points: order.map((cell) => `${x(mx.mean[cell])},${y(my.mean[cell])}`).join(" "),
      }),
    );
  for (const [series, group] of groups)
    if (scaleAxis >= 0)
      parts.push(
        s("polyline", {
          class: `thread ${tone(series)}`,
          "aria-hidden": "true",
          points: group.map((cell) => `${x(mx.mean[cell])},${y(my.mean[cell])}`).join(" "),
        }),
      );
  const points = [],
    labelled = [];
  const room = (left, top) => {
    // a label is left out where it would cover another or a mark
    const free = !labelled.some(
      ([l, t, w, tall]) => left < l + w && l < left + 26 && top < t + tall && t < top + 13,
    );
    if (free) labelled.push([left, top, 26, 13]);
    return free;
  };
  for (const cell of cells) labelled.push([x(mx.mean[cell]) - 6, y(my.mean[cell]) - 6, 12, 12]);
  const placed = new Set(
    [...cells]
      .sort((a, b) => front.on[b] - front.on[a])
      .filter(
        (cell) =>
          scaleAxis >= 0 && room(x(mx.mean[cell]) + radius(cell) + 9, y(my.mean[cell]) - radius(cell) - 12),
      ),
  );
  for (const [series, group] of groups)
    for (const cell of group) {
      const px = x(mx.mean[cell]),
        py = y(my.mean[cell]),
        r = radius(cell),
        ring = r + 6;
      const likely = front.probability[cell] || 0,
        round = 2 * Math.PI * ring;
      const cross =
        mx.low[cell] === null || my.low[cell] === null
          ? null
          : s(
              "g",
              { class: `cross ${tone(series)}` },
              s("line", { x1: clampX(mx.low[cell]), x2: clampX(mx.high[cell]), y1: py, y2: py }),
              s("line", { x1: px, x2: px, y1: clampY(my.low[cell]), y2: clampY(my.high[cell]) }),
            );
      points.push(
        speaks(
          s(
            "g",
            { class: "point" },
            cross,
            s("circle", { class: "hit", cx: px, cy: py, r: Math.max(13, ring) }),
            likely
              ? s("circle", {
                  class: `ring ${tone(series)}`,
                  cx: px,
                  cy: py,
                  r: number(ring),
                  transform: `rotate(-90 ${px} ${py})`,
                  "stroke-dasharray": `${number(likely * round)} ${number(round)}`,
                })
              : null,
            marker(series, px, py, r, markerState(my, cell)),
            placed.has(cell)
              ? s("text", { class: "tick", x: px + r + 10, y: py - r - 1 }, short(scaleValue(cell)))
              : null,
          ),
          cell,
          [
            D.cells.label[cell],
            meanText(my, cell),
            meanText(mx, cell),
            size ? `${size.name} ${short(size.mean[cell])}` : "",
            `${front.on[cell] ? "on" : "not on"} the front; ${front.probability[cell] === null ? "probability unknown" : `on it in ${percent(likely)} of resamples`}`,
          ],
        ),
      );
    }
  roving(points);
  const labels = groups.map(([series, group]) => ({ series, text: seriesName(group[0]) }));
  return [
    s(
      "svg",
      {
        viewBox: `0 0 ${width} ${height}`,
        width,
        height,
        role: "group",
        "aria-label": `${my.name} against ${mx.name}; arrow keys move among ${points.length} cells`,
      },
      parts,
      points,
    ),
    groups.length > 1 ? key(labels) : null,
  ];
}

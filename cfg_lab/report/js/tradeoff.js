// One metric against another, with the Pareto front and how likely each cell is to be on it.

const tradeX = new Set(D.fronts.flatMap((front) => [front.x, front.y]));
const trade = (() => {
  const names = [...tradeX],
    aims = D.metrics.filter((metric) => metric.role === "aim" && tradeX.has(metric.name));
  // what is shown of an aim is worth weighing first
  const aim = aims.find((metric) => metric.change.some(isShown)) || aims[0];
  const y = aim ? aim.name : names[0];
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
    `Filled marks: ${y.name} shown to differ from unguided decoding. Better lies towards the corner with the arrow. The heavy line joins the Pareto front over all cells: none is better on both. The arc around a mark is the share of bootstrap resamples of the prompts in which the cell is on the front; a full ring is certain.`,
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
  const values = ticks(y.low, y.high, 5);
  const parts = [
    frame(
      box,
      x,
      y,
      ticks(x.low, x.high, roomy ? 7 : 4),
      values,
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
  const points = [];
  const labels = markLabels(
    cells.map((cell) => ({
      cell,
      x: x(mx.mean[cell]),
      y: y(my.mean[cell]),
      reach: radius(cell) + (front.probability[cell] ? 8 : 2),
      // unguided is what the others are compared with: it is named before them, then the front
      first: isBaseline(cell) ? 2 : front.on[cell],
    })),
    { left: 0, right: width, top: 18, bottom: box.bottom },
    values.map((value) => [0, y(value) - 7, box.left - 4]),
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
            labels.get(cell),
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
  const names = groups.map(([series, group]) => ({ series, text: seriesName(group[0]) }));
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
    groups.length > 1 ? key(names) : null,
  ];
}

const markName = (cell) =>
  isBaseline(cell) ? "unguided" : scaleAxis < 0 ? null : valueText(scaleValue(cell));

// The name of each mark in the first place round it where it covers no mark, ring or other name, or none;
// marks on the very same spot are named once. `taken` are [left, top, width] of text that is there already.
function markLabels(marks, box, taken) {
  const found = new Map(),
    named = new Set();
  const tall = 13;
  const clear = (left, top, wide) =>
    left >= box.left &&
    left + wide <= box.right &&
    top >= box.top &&
    top + tall <= box.bottom &&
    !taken.some(([l, t, w]) => left < l + w && l < left + wide && top < t + tall && t < top + tall) &&
    !marks.some((mark) => {
      const dx = mark.x - Math.max(left, Math.min(mark.x, left + wide)),
        dy = mark.y - Math.max(top, Math.min(mark.y, top + tall));
      return Math.hypot(dx, dy) < mark.reach;
    });
  const compass = [
    [1, -1],
    [1, 0],
    [1, 1],
    [0, -1],
    [0, 1],
    [-1, -1],
    [-1, 0],
    [-1, 1],
  ];
  for (const mark of [...marks].sort((a, b) => b.first - a.first)) {
    const text = markName(mark.cell),
      spot = `${mark.x} ${mark.y} ${text}`;
    if (!text || named.has(spot)) continue;
    const wide = 7.4 * text.length + 2;
    const places = [1, 10, 20].flatMap((gap) =>
      compass.map(([dx, dy]) => {
        const away = (mark.reach + gap) / Math.hypot(dx, dy);
        return [mark.x + dx * away + ((dx - 1) / 2) * wide, mark.y + dy * away + ((dy - 1) / 2) * tall];
      }),
    );
    const place = places.find(([left, top]) => clear(left, top, wide));
    if (!place) continue;
    taken.push([...place, wide]);
    named.add(spot);
    found.set(
      mark.cell,
      s(
        "text",
        {
          class: `mark-name ${isBaseline(mark.cell) ? "" : tone(seriesOf(mark.cell))}`,
          x: number(place[0] + 1),
          y: number(place[1] + 10.5),
        },
        text,
      ),
    );
  }
  return found;
}

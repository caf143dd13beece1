// A row a cell, sortable.

const grid = { all: false, by: null, down: false };

function drawTableControls() {
  if (D.metrics.every((metric) => metric.role !== "other")) return;
  fill(
    at("table-controls"),
    segments(
      "Metrics",
      "table-metrics",
      [
        ["main", "aims and prices"],
        ["all", `all ${D.metrics.length}`],
      ],
      "main",
      (value) => {
        grid.all = value === "all";
        drawTable();
      },
    ),
  );
}

function drawTable() {
  const metrics = D.metrics.filter((metric) => grid.all || metric.role !== "other");
  const axes = D.axes.map((axis, index) => [axis, index]);
  const columns = [
    ...(axes.length
      ? axes.map(([axis, index]) => ({
          name: axis.name,
          left: true,
          key: (cell) => D.cells.at[cell][index],
          show: (cell) => valueText(axis.values[D.cells.at[cell][index]]),
        }))
      : [{ name: "cell", left: true, key: (cell) => cell, show: (cell) => D.cells.label[cell] }]),
    { name: "texts", key: (cell) => D.cells.texts[cell], show: (cell) => String(D.cells.texts[cell]) },
    ...metrics.map((metric) => ({
      name: metric.name,
      arrow: { higher: "\u2191", lower: "\u2193" }[metric.better],
      say: betterText(metric),
      key: (cell) => metric.mean[cell],
      show: (cell) => metricCell(metric, cell),
    })),
  ];
  const cells = visibleCells();
  if (grid.by !== null && columns[grid.by]) {
    const key = columns[grid.by].key,
      sign = grid.down ? -1 : 1;
    cells.sort((a, b) => (key(a) === null) - (key(b) === null) || sign * (key(a) - key(b)) || a - b);
  }
  const head = columns.map((column, index) =>
    h(
      "th",
      {
        scope: "col",
        class: column.left ? null : "n",
        "aria-sort": grid.by === index ? (grid.down ? "descending" : "ascending") : "none",
      },
      h(
        "button",
        {
          type: "button",
          title: column.say,
          onclick: () => {
            grid.down = grid.by === index ? !grid.down : false;
            grid.by = index;
            drawTable();
            at("table").querySelectorAll("th button")[index].focus();
          },
        },
        column.name,
        column.arrow
          ? h("span", { class: "arrow", "aria-label": column.say, role: "img" }, ` ${column.arrow}`)
          : null,
        h(
          "span",
          { class: "sort", "aria-hidden": "true" },
          grid.by === index ? (grid.down ? "\u25be" : "\u25b4") : "",
        ),
      ),
    ),
  );
  const body = cells.map((cell) =>
    h(
      "tr",
      { class: isBaseline(cell) ? "unguided" : null },
      columns.map((column, index) =>
        index
          ? h("td", { class: column.left ? null : "n" }, column.show(cell))
          : h(
              "th",
              { scope: "row" },
              h(
                "button",
                {
                  type: "button",
                  class: "link",
                  "aria-label": `${D.cells.label[cell]}: its texts`,
                  onclick: () => openTexts(cell),
                },
                column.show(cell),
              ),
            ),
      ),
    ),
  );
  fill(
    at("table"),
    scrollBox(
      "Results, a row a cell",
      h(
        "table",
        { class: "results" },
        h(
          "caption",
          {},
          "Mean, 95 % interval over prompts (n where not every text is scored), paired difference to unguided decoding of the same prompts.",
        ),
        h("thead", {}, h("tr", {}, head)),
        h("tbody", {}, body),
      ),
      cells.length > 40 ? "tall" : "",
    ),
  );
  fill(
    at("table-note"),
    "\u25b2 \u25bc shown higher or lower than unguided after correction; \u25b3 \u25bd not shown. Rows in italics are unguided. The first column opens a cell's texts.",
  );
}

function metricCell(metric, cell) {
  if (metric.mean[cell] === null) return h("span", { class: "none" }, "not scored");
  const change = metric.change[cell];
  return [
    h("span", { class: "mean" }, short(metric.mean[cell])),
    " ",
    h(
      "small",
      {},
      interval(metric.low[cell], metric.high[cell]),
      metric.n[cell] === D.cells.texts[cell] ? null : ` n=${metric.n[cell]}`,
    ),
    change && change[0] !== null
      ? h(
          "span",
          { class: `delta ${change[4]}`, title: changeText(metric, cell) },
          (isShown(change) ? "\u25b2\u25bc" : "\u25b3\u25bd")[change[0] < 0 ? 1 : 0],
          h("span", { class: "sr" }, `${WORDS[change[4]]}: `),
          ` ${signed(change[0])}`,
        )
      : null,
  ];
}

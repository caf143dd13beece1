// CSV made here, from what the page holds.

const quoted = (value) => (/[",\r\n]/.test(value) ? `"${value.replace(/"/g, '""')}"` : value);
const csv = (rows) =>
  rows
    .map((row) =>
      row.map((value) => quoted(value === null || value === undefined ? "" : String(value))).join(","),
    )
    .join("\r\n") + "\r\n";

function summaryCsv() {
  const heads = [
    "cell",
    ...D.axes.map((axis) => axis.key),
    "texts",
    ...D.metrics.flatMap(({ name }) => [
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
    ]),
  ];
  return csv([
    heads,
    ...CELLS.map((cell) => [
      D.cells.id[cell],
      ...D.axes.map((axis, index) => axis.values[D.cells.at[cell][index]]),
      D.cells.texts[cell],
      ...D.metrics.flatMap((metric) => [
        metric.mean[cell],
        metric.low[cell],
        metric.high[cell],
        metric.n[cell],
        ...(metric.change[cell] || Array(8).fill(null)).filter((_, place) => place !== 4), // without the verdict
      ]),
    ]),
  ]);
}

function textsCsv() {
  const names = D.metrics.map((metric) => metric.name);
  const heads = [
    "cell",
    ...D.axes.map((axis) => axis.key),
    "prompt_id",
    "prompt",
    "sample",
    "text",
    "finish_reason",
    ...names,
  ];
  return csv([
    heads,
    ...D.rows.cell.map((cell, row) => {
      const completion = D.rows.completion[row],
        prompt = D.rows.prompt[row];
      return [
        D.cells.id[cell],
        ...D.axes.map((axis, index) => axis.values[D.cells.at[cell][index]]),
        D.prompts.id[prompt],
        D.prompts.text[prompt],
        D.rows.sample[row],
        D.completions.text[completion],
        D.completions.finish[completion],
        ...names.map((name) => D.completions.scores[name][completion]),
      ];
    }),
  ]);
}

function save(name, text) {
  const link = h("a", {
    href: URL.createObjectURL(new Blob([text], { type: "text/csv;charset=utf-8" })),
    download: name,
  });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 10000);
}

function drawDownloads() {
  fill(
    at("downloads"),
    h(
      "button",
      { type: "button", onclick: () => save(`${D.name}-summary.csv`, summaryCsv()) },
      "Download summary as CSV",
    ),
    h(
      "button",
      { type: "button", onclick: () => save(`${D.name}-texts.csv`, textsCsv()) },
      "Download texts as CSV",
    ),
  );
}

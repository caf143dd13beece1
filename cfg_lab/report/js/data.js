// The data, numbers as text, and which cells are shown.

const D = JSON.parse(at("data").textContent);
const CELLS = D.cells.label.map((label, index) => index);
const METRIC = new Map(D.metrics.map((metric) => [metric.name, metric]));
const MINUS = "\u2212";

function short(value) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "\u2014";
  const size = Math.abs(value);
  const text =
    size >= 1000
      ? Math.round(value).toLocaleString("en")
      : size && size < 0.001
        ? value.toExponential(1)
        : String(Number(value.toPrecision(3)));
  return text.replaceAll("-", MINUS); // also of an exponent
}
const signed = (value) => (value > 0 ? "+" : "") + short(value);
const interval = (low, high) =>
  low === null || high === null ? "[no interval]" : `[${short(low)}, ${short(high)}]`;
const chance = (p) =>
  p === null
    ? "p unknown"
    : p < 0.001
      ? "p < 0.001"
      : `p = ${p >= 0.1 ? Math.round(100 * p) / 100 : Number(p.toPrecision(2))}`;
const percent = (share) => `${share > 0 && share < 0.01 ? "<1" : Math.round(100 * share)} %`;
const valueText = (value) => (typeof value === "number" ? String(value).replace("-", MINUS) : value);
const betterText = (metric) => (metric.better ? `${metric.better} is better` : "no better direction");
const WORDS = {
  better: "shown better",
  worse: "shown worse",
  changed: "shown to differ",
  lead: "a lead only",
  unclear: "no difference shown",
  unknown: "uncertain",
};
const isShown = (change) => change !== null && ["better", "worse", "changed"].includes(change[4]);
const isBaseline = (cell) => D.cells.baseline[cell] === cell;

function meanText(metric, cell) {
  return `${metric.name} ${short(metric.mean[cell])} ${interval(metric.low[cell], metric.high[cell])}, n=${metric.n[cell]}`;
}
function changeText(metric, cell) {
  const change = metric.change[cell];
  if (!change) return isBaseline(cell) ? "unguided" : "";
  return `${signed(change[0])} ${interval(change[1], change[2])} beside unguided, ${chance(change[3])} corrected: ${WORDS[change[4]]}`;
}

// Series: cells that differ only in scale are a line.
const scaleAxis = (() => {
  const named = D.axes.findIndex((axis) => axis.key === "guidance.scale" && axis.numeric);
  return named >= 0 ? named : D.axes.findIndex((axis) => axis.numeric && axis.values.length > 2);
})();
const seriesKey = (cell) => D.cells.at[cell].filter((_, axis) => axis !== scaleAxis).join("|");
const SERIES = [...new Set(CELLS.map(seriesKey))];
const seriesOf = (cell) => SERIES.indexOf(seriesKey(cell));
function seriesName(cell) {
  const rest = D.axes.map((axis, index) => [axis, index]).filter(([, index]) => index !== scaleAxis);
  return (
    rest
      .map(([axis, index]) => {
        const value = valueText(axis.values[D.cells.at[cell][index]]);
        return rest.length === 1 && !axis.numeric ? value : `${axis.name} ${value}`;
      })
      .join(", ") || D.name
  );
}
const scaleValue = (cell) => (scaleAxis < 0 ? null : D.axes[scaleAxis].values[D.cells.at[cell][scaleAxis]]);

// What is shown: values switched off, by axis; whoever draws cells registers itself.
const off = D.axes.map(() => new Set());
const isVisible = (cell) => D.cells.at[cell].every((value, axis) => !off[axis].has(value));
const visibleCells = () => CELLS.filter(isVisible);
const drawers = [];
const redraw = () => drawers.forEach((draw) => draw());

// What the figures share: scales, axes, markers, the card that says what a point is.

const number = (value) => Math.round(value * 100) / 100;

function linear(low, high, from, to) {
  const scale = (value) => number(from + ((value - low) / (high - low || 1)) * (to - from));
  scale.low = low;
  scale.high = high;
  return scale;
}

// Round numbers between low and high, about `wanted` of them.
function ticks(low, high, wanted) {
  const raw = (high - low) / Math.max(1, wanted);
  const power = 10 ** Math.floor(Math.log10(raw || 1));
  const step = [1, 2, 2.5, 5, 10].map((one) => one * power).find((one) => one >= raw) || power;
  const found = [];
  for (let k = Math.ceil(low / step - 1e-9); k * step <= high + step * 1e-9; k++)
    found.push(Number((k * step).toPrecision(12)));
  return found;
}

function extent(values, pad) {
  const known = values.filter((value) => value !== null && Number.isFinite(value));
  if (!known.length) return [0, 1];
  let low = Math.min(...known),
    high = Math.max(...known);
  if (low === high) {
    low -= Math.abs(low) * 0.05 || 0.5;
    high += Math.abs(high) * 0.05 || 0.5;
  }
  return [low - (high - low) * pad, high + (high - low) * pad];
}

// The width there is to draw in, and drawing again where it changes.
function sized(holder, draw) {
  let last = 0;
  new ResizeObserver(() => {
    const width = Math.floor(holder.clientWidth);
    if (width && Math.abs(width - last) > 1) {
      last = width;
      draw();
    }
  }).observe(holder);
  drawers.push(draw);
}

const SHAPES = [
  (r) => `M0,${-r}A${r},${r} 0 1 1 0,${r}A${r},${r} 0 1 1 0,${-r}Z`,
  (r) => `M${-r * 0.9},${-r * 0.9}H${r * 0.9}V${r * 0.9}H${-r * 0.9}Z`,
  (r) => `M0,${-r * 1.2}L${r * 1.15},${r * 0.85}H${-r * 1.15}Z`,
  (r) => `M0,${-r * 1.3}L${r * 1.3},0L0,${r * 1.3}L${-r * 1.3},0Z`,
  (r) => `M0,${r * 1.2}L${r * 1.15},${-r * 0.85}H${-r * 1.15}Z`,
  (r) =>
    `M${-r * 0.4},${-r * 1.1}H${r * 0.4}V${-r * 0.4}H${r * 1.1}V${r * 0.4}H${r * 0.4}V${r * 1.1}H${-r * 0.4}V${r * 0.4}H${-r * 1.1}V${-r * 0.4}H${-r * 0.4}Z`,
];
const tone = (series) => `s${series % 8}`;
const dash = (series) => `d${Math.floor(series / 8) % 3}`;
const shape = (series, radius) => SHAPES[series % SHAPES.length](radius);

// Filled where the difference to unguided decoding is shown, hollow where it is not, small for unguided.
function marker(series, x, y, radius, state) {
  return s("path", {
    class: `mark ${tone(series)} ${state}`,
    d: shape(series, radius),
    transform: `translate(${number(x)},${number(y)})`,
  });
}
const markerState = (metric, cell) => (isShown(metric.change[cell]) ? "filled" : "hollow");

// Horizontal grid lines with their values, and the axis below.
function frame(box, x, y, xTicks, yTicks, xTitle, yTitle) {
  const parts = [s("text", { class: "axis-title", x: 0, y: 14 }, yTitle)];
  for (const value of yTicks) {
    parts.push(s("line", { class: "grid", x1: box.left, x2: box.right, y1: y(value), y2: y(value) }));
    parts.push(
      s("text", { class: "tick", x: box.left - 8, y: y(value) + 4, "text-anchor": "end" }, short(value)),
    );
  }
  let last = -Infinity;
  for (const value of xTicks) {
    parts.push(
      s("line", { class: "tickline", x1: x(value), x2: x(value), y1: box.bottom, y2: box.bottom + 5 }),
    );
    if (x(value) - last < 30) continue;
    last = x(value);
    parts.push(
      s("text", { class: "tick", x: x(value), y: box.bottom + 20, "text-anchor": "middle" }, short(value)),
    );
  }
  parts.push(s("line", { class: "base", x1: box.left, x2: box.right, y1: box.bottom, y2: box.bottom }));
  parts.push(
    s(
      "text",
      { class: "axis-title", x: (box.left + box.right) / 2, y: box.bottom + 42, "text-anchor": "middle" },
      xTitle,
    ),
  );
  return s("g", { "aria-hidden": "true" }, parts);
}

// Labels at the ends of lines, pushed apart so that none covers another.
function endLabels(labels, top, bottom) {
  const gap = 16;
  labels.sort((a, b) => a.y - b.y);
  let floor = top;
  for (const label of labels) {
    label.at = Math.max(label.y, floor);
    floor = label.at + gap;
  }
  let ceiling = bottom;
  for (const label of [...labels].reverse()) {
    label.at = Math.min(label.at, ceiling);
    ceiling = label.at - gap;
  }
  return labels.map((label) =>
    s("text", { class: `end ${tone(label.series)}`, x: label.x, y: label.at + 4 }, label.text),
  );
}

let carded = null;
function showCard(element, lines) {
  hideCard();
  element.classList.add("hot");
  const card = at("card");
  fill(
    card,
    h("strong", {}, lines[0]),
    lines
      .slice(1)
      .filter(Boolean)
      .map((line) => h("span", {}, line)),
  );
  card.hidden = false;
  carded = { element, top: element.getBoundingClientRect().top };
  const around = element.getBoundingClientRect(),
    size = card.getBoundingClientRect();
  const left = Math.min(
    Math.max(8, around.left + around.width / 2 - size.width / 2),
    window.innerWidth - size.width - 8,
  );
  const above = around.top - size.height - 10;
  card.style.left = `${Math.max(0, left)}px`;
  card.style.top = `${above > 8 ? above : around.bottom + 10}px`;
}
function hideCard() {
  at("card").hidden = true;
  if (carded) carded.element.classList.remove("hot");
  carded = null;
}
// Scrolling that ends before the pointer rests still reports itself later: only what moved loses its card.
window.addEventListener(
  "scroll",
  () => {
    if (carded && Math.abs(carded.element.getBoundingClientRect().top - carded.top) > 4) hideCard();
  },
  { passive: true },
);
window.addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideCard();
});

// A finger cannot hover: its first tap on a mark is for the card, and a tap elsewhere puts the card away.
let finger = false,
  tapped = null; // whose card was up when the finger came down
window.addEventListener(
  "pointerdown",
  (event) => {
    finger = event.pointerType === "touch";
    tapped = carded && carded.element.contains(event.target) ? carded.element : null;
    if (!tapped) hideCard();
  },
  true,
);

// Makes an element speak for a cell: card on hover, focus and a first tap; its texts on click and a second.
function speaks(element, cell, lines) {
  element.setAttribute("role", "button");
  element.setAttribute("aria-label", lines.filter(Boolean).join(". ") + ". Shows its texts.");
  const show = () => showCard(element, [...lines, finger ? "tap again: its texts" : "click: its texts"]);
  element.addEventListener("pointerenter", (event) => event.pointerType === "touch" || show());
  element.addEventListener("pointerleave", (event) => event.pointerType === "touch" || hideCard());
  element.addEventListener("focus", show);
  element.addEventListener("blur", hideCard);
  activate(element, (event) => {
    if (event.type === "click" && finger && tapped !== element) return show();
    hideCard();
    openTexts(cell);
  });
  return element;
}

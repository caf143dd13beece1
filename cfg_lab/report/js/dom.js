// Elements. Text goes in as text nodes only, so that nothing in the data is ever read as HTML.

const SVG = "http://www.w3.org/2000/svg";

function build(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "value" || name === "checked" || name === "selected") element[name] = value;
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== ""),
  );
  return element;
}

const h = (tag, attributes, ...children) => build(document.createElement(tag), attributes, children);
const s = (tag, attributes, ...children) => build(document.createElementNS(SVG, tag), attributes, children);
const at = (id) => document.getElementById(id);

function fill(element, ...children) {
  element.replaceChildren(
    ...children.flat(3).filter((child) => child !== null && child !== undefined && child !== ""),
  );
}

// A labelled <select>; options are [value, text].
function choice(label, options, value, change) {
  const select = h(
    "select",
    { onchange: () => change(select.value) },
    options.map(([key, text]) => h("option", { value: key, selected: String(key) === String(value) }, text)),
  );
  return h("label", { class: "choice" }, h("span", {}, label), select);
}

// Radio buttons that look like one segmented control.
function segments(label, name, options, value, change) {
  return h(
    "fieldset",
    { class: "segments" },
    h("legend", {}, label),
    options.map(([key, text]) =>
      h(
        "label",
        {},
        h("input", { type: "radio", name, value: key, checked: key === value, onchange: () => change(key) }),
        h("span", {}, text),
      ),
    ),
  );
}

// One tab stop for many elements: arrow keys, Home and End move among them.
function roving(elements) {
  elements.forEach((element, index) => {
    element.setAttribute("tabindex", index ? "-1" : "0");
    element.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      let next = step === undefined ? null : (index + step + elements.length) % elements.length;
      if (event.key === "Home") next = 0;
      if (event.key === "End") next = elements.length - 1;
      if (next === null) return;
      event.preventDefault();
      element.setAttribute("tabindex", "-1");
      elements[next].setAttribute("tabindex", "0");
      elements[next].focus();
    });
  });
}

// What Enter, Space and a click do to an element that is not a native button.
function activate(element, action) {
  element.addEventListener("click", action);
  element.addEventListener("keydown", (event) => {
    if (event.key === "Enter" || event.key === " ") {
      event.preventDefault();
      action(event);
    }
  });
}

// A table too wide for the page scrolls by itself, and fades out at the edge while there is more beyond it.
const fade = (box) =>
  box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);
const widths = new ResizeObserver((changes) => changes.forEach(({ target }) => fade(target.closest(".box"))));
function fading(box) {
  box.addEventListener("scroll", () => fade(box), { passive: true });
  widths.observe(box);
  widths.observe(box.firstElementChild);
  return box;
}
const scrollBox = (label, table, kind = "") =>
  fading(h("div", { class: `box ${kind}`, tabindex: "0", role: "region", "aria-label": label }, table));

// Names break after an underscore rather than within a word.
const breakable = (name) => name.split(/(?<=_)/).flatMap((part, place) => (place ? [h("wbr"), part] : [part]));

function dataTable(caption, heads, rows) {
  return scrollBox(
    caption,
    h(
      "table",
      { class: "plain" },
      h("caption", {}, caption),
      h(
        "thead",
        {},
        h(
          "tr",
          {},
          heads.map((head, index) => h("th", { scope: "col", class: index ? "n" : null }, head)),
        ),
      ),
      h(
        "tbody",
        {},
        rows.map((row) =>
          h(
            "tr",
            {},
            row.map((value, index) =>
              index ? h("td", { class: "n" }, value) : h("th", { scope: "row" }, value),
            ),
          ),
        ),
      ),
    ),
  );
}

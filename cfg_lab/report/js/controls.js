// Form controls, keyboard handling and tables that several sections use.

import { html } from "./dom.js";

/** From this number of rows on, a table or a figure is in a box that scrolls by itself. */
export const LONG = 40;

/**
 * Creates a labelled <select>.
 * @template {string | number} T
 * @param {string} label
 * @param {[T, string][]} options value and text of each option
 * @param {T} selected
 * @param {(value: T) => void} onChoose
 */
export function choice(label, options, selected, onChoose) {
  const select = html(
    "select",
    { onchange: () => onChoose(options[select.selectedIndex][0]) },
    options.map(([value, text]) => html("option", { value, selected: value === selected }, text)),
  );
  return html("label", { class: "choice" }, html("span", {}, label), select);
}

/**
 * Creates radio buttons that look like one segmented control.
 * @template {string} T
 * @param {string} label
 * @param {string} name
 * @param {[T, string][]} options value and text of each button
 * @param {T} selected
 * @param {(value: T) => void} onChoose
 */
export function segments(label, name, options, selected, onChoose) {
  return html(
    "fieldset",
    { class: "segments" },
    html("legend", {}, label),
    options.map(([value, text]) =>
      html(
        "label",
        {},
        html("input", {
          type: "radio",
          name,
          value,
          checked: value === selected,
          onchange: () => onChoose(value),
        }),
        html("span", {}, text),
      ),
    ),
  );
}

/**
 * Makes the Tab key stop once for a list of elements. The arrow keys, Home and End move within the list.
 * @param {(HTMLElement | SVGElement)[]} elements
 */
export function shareTabStop(elements) {
  elements.forEach((element, index) => {
    element.setAttribute("tabindex", index ? "-1" : "0");
    element.addEventListener("keydown", (event) => {
      const next = target(event, index, elements.length);
      if (next === null) return;
      event.preventDefault();
      element.setAttribute("tabindex", "-1");
      elements[next].setAttribute("tabindex", "0");
      elements[next].focus();
    });
  });
}

/**
 * Returns the element that a key moves to, or null for other keys.
 * @param {Event} event
 * @param {number} index
 * @param {number} count
 */
function target(event, index, count) {
  switch (event instanceof KeyboardEvent ? event.key : "") {
    case "ArrowRight":
    case "ArrowDown":
      return (index + 1) % count;
    case "ArrowLeft":
    case "ArrowUp":
      return (index - 1 + count) % count;
    case "Home":
      return 0;
    case "End":
      return count - 1;
    default:
      return null;
  }
}

/**
 * Runs an action on a click, Enter and Space, for elements that are not native buttons.
 * @param {HTMLElement | SVGElement} element
 * @param {(event: Event) => void} action
 */
export function activate(element, action) {
  element.addEventListener("click", action);
  element.addEventListener("keydown", (event) => {
    if (event instanceof KeyboardEvent && (event.key === "Enter" || event.key === " ")) {
      event.preventDefault();
      action(event);
    }
  });
}

/** @param {Element} box */
const fade = (box) => box.classList.toggle("more", box.scrollLeft + box.clientWidth < box.scrollWidth - 1);

const widths = new ResizeObserver((entries) => {
  for (const { target: resized } of entries) {
    const box = resized.closest(".box");
    if (box) fade(box);
  }
});

/**
 * Makes the edge of a scrolling box fade out while there is hidden content behind that edge.
 * @template {Element} E
 * @param {E} box
 * @returns {E}
 */
export function fading(box) {
  box.addEventListener("scroll", () => fade(box), { passive: true });
  widths.observe(box);
  if (box.firstElementChild) widths.observe(box.firstElementChild);
  return box;
}

/**
 * Puts a table or a figure that may be larger than the page into a box that scrolls by itself.
 * @param {string} label
 * @param {Element} content
 * @param {string} kind further class names
 */
export function scrollBox(label, content, kind = "") {
  return fading(
    html("div", { class: `box ${kind}`, tabindex: "0", role: "region", "aria-label": label }, content),
  );
}

/**
 * Creates a plain table whose first column names the rows.
 * @param {string} caption
 * @param {string[]} heads
 * @param {string[][]} rows
 */
export function dataTable(caption, heads, rows) {
  return scrollBox(
    caption,
    html(
      "table",
      { class: "plain" },
      html("caption", {}, caption),
      html(
        "thead",
        {},
        html(
          "tr",
          {},
          heads.map((head, column) => html("th", { scope: "col", class: column ? "n" : null }, head)),
        ),
      ),
      html(
        "tbody",
        {},
        rows.map((row) =>
          html(
            "tr",
            {},
            row.map((value, column) =>
              column ? html("td", { class: "n" }, value) : html("th", { scope: "row" }, value),
            ),
          ),
        ),
      ),
    ),
  );
}

/**
 * Lets a name break after its underscores rather than within a word.
 * @param {string} name
 */
export const breakable = (name) =>
  name.split(/(?<=_)/).flatMap((part, index) => (index ? [html("wbr"), part] : [part]));

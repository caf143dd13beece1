// Checkboxes that choose which values of the settings the whole page shows.

import { CELLS, data, valueText } from "./data.js";
import { byId, fill, html } from "./dom.js";
import { hiddenValues, redraw, visibleCells } from "./visible.js";

const MANY = 8; // values; a setting with more has a button that switches all of them on or off
const MOST_CHECKBOXES = 20; // with more, the filters scroll by themselves

/** Draws one checkbox for each value of each setting. */
export function drawFilters() {
  const form = byId("filters");
  form.hidden = CELLS.length < 2;
  form.addEventListener("submit", (event) => event.preventDefault());
  const count = html("output", { class: "count", "aria-live": "polite" });
  const showCount = () => fill(count, `${visibleCells().length} of ${CELLS.length} cells`);
  /**
   * @param {number} axis
   * @param {number} value
   */
  const chip = (axis, value) => {
    const input = html("input", {
      type: "checkbox",
      checked: true,
      name: data.axes[axis].key,
      value: String(data.axes[axis].values[value]),
      onchange: () => {
        if (input.checked) hiddenValues[axis].delete(value);
        else hiddenValues[axis].add(value);
        showCount();
        redraw();
      },
    });
    const label = html(
      "label",
      { class: "chip" },
      input,
      html("span", {}, valueText(data.axes[axis].values[value])),
    );
    return { input, label };
  };
  /**
   * @param {number} axis
   * @param {HTMLInputElement[]} inputs
   */
  const switchAll = (axis, inputs) => {
    const on = hiddenValues[axis].size > 0;
    inputs.forEach((input, value) => {
      input.checked = on;
      if (on) hiddenValues[axis].delete(value);
      else hiddenValues[axis].add(value);
    });
    showCount();
    redraw();
  };
  /** @param {number} axis */
  const fieldset = (axis) => {
    const { name, values } = data.axes[axis];
    const chips = values.map((_, value) => chip(axis, value));
    const inputs = chips.map(({ input }) => input);
    return html(
      "fieldset",
      {},
      html("legend", {}, name),
      values.length > MANY &&
        html(
          "button",
          { type: "button", class: "link", onclick: () => switchAll(axis, inputs) },
          "all or none",
        ),
      chips.map(({ label }) => label),
    );
  };
  const varying = data.axes.map((_, axis) => axis).filter((axis) => data.axes[axis].values.length > 1);
  const checkboxes = varying.reduce((sum, axis) => sum + data.axes[axis].values.length, 0);
  form.classList.toggle("many", checkboxes > MOST_CHECKBOXES);
  fill(
    form,
    html("span", { class: "filters-title", "aria-hidden": "true" }, "Show"),
    varying.map(fieldset),
    count,
  );
  showCount();
}

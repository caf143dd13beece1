// Checkboxes that choose which values of the settings the whole page shows.

import { CELLS, data, valueText } from "./data.js";
import { byId, fill, html } from "./dom.js";
import { hiddenValues, redraw, visibleCells } from "./visible.js";

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
    return html(
      "label",
      { class: "chip" },
      input,
      html("span", {}, valueText(data.axes[axis].values[value])),
    );
  };
  fill(
    form,
    html("span", { class: "filters-title", "aria-hidden": "true" }, "Show"),
    data.axes.map(
      ({ name, values }, axis) =>
        values.length > 1 &&
        html(
          "fieldset",
          {},
          html("legend", {}, name),
          values.map((_, value) => chip(axis, value)),
        ),
    ),
    count,
  );
  showCount();
}

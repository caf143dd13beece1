// Which values of the settings are shown, everywhere on the page.

function drawFilters() {
  const form = at("filters");
  const axes = D.axes.map((axis, index) => [axis, index]).filter(([axis]) => axis.values.length > 1);
  form.hidden = CELLS.length < 2;
  form.addEventListener("submit", (event) => event.preventDefault());
  const state = h("output", { class: "count", "aria-live": "polite" });
  const count = () => {
    fill(state, `${visibleCells().length} of ${CELLS.length} cells`);
  };
  fill(
    form,
    h("span", { class: "filters-title", "aria-hidden": "true" }, "Show"),
    axes.map(([axis, index]) =>
      h(
        "fieldset",
        {},
        h("legend", {}, axis.name),
        axis.values.map((value, place) =>
          h(
            "label",
            { class: "chip" },
            h("input", {
              type: "checkbox",
              checked: true,
              name: axis.key,
              value: String(value),
              onchange: (event) => {
                if (event.target.checked) off[index].delete(place);
                else off[index].add(place);
                count();
                redraw();
              },
            }),
            h("span", {}, valueText(value)),
          ),
        ),
      ),
    ),
    state,
  );
  count();
}

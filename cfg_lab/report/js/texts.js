// The texts of a prompt, cell beside cell.

const MOST = 24; // cards at once
const reading = { prompt: 0, sample: 0, mode: "text", cells: null };
const rowAt = new Map(
  D.rows.cell.map((cell, row) => [`${cell}|${D.rows.prompt[row]}|${D.rows.sample[row]}`, row]),
);
const samplesOf = (prompt) =>
  [...new Set(D.rows.sample.filter((_, row) => D.rows.prompt[row] === prompt))].sort((a, b) => a - b);

// At first: the best visible cell by the first aim, and what it is compared with; all where they are few.
function firstCells() {
  const cells = visibleCells();
  if (cells.length <= 4) return cells;
  const metric = D.metrics.find((one) => one.role === "aim");
  if (!metric) return cells.slice(0, 4);
  const sign = metric.better === "lower" ? -1 : 1;
  const scored = cells.filter((cell) => metric.mean[cell] !== null && !isBaseline(cell));
  const best = scored.sort((a, b) => sign * (metric.mean[b] - metric.mean[a]))[0];
  return best === undefined ? cells.slice(0, 4) : withBaseline(best).filter(isVisible);
}
function withBaseline(cell) {
  const base = D.cells.baseline[cell];
  return base >= 0 && base !== cell ? [base, cell] : [cell];
}

function openTexts(cell) {
  const chosen = new Set([...withBaseline(cell)]);
  reading.cells = CELLS.filter((one) => chosen.has(one));
  drawTextControls();
  drawTexts();
  at("texts").scrollIntoView({
    behavior: window.matchMedia("(prefers-reduced-motion: reduce)").matches ? "auto" : "smooth",
  });
  at("h-texts").setAttribute("tabindex", "-1");
  at("h-texts").focus({ preventScroll: true });
}

function drawTextControls() {
  const samples = samplesOf(reading.prompt);
  if (!samples.includes(reading.sample)) reading.sample = samples[0] ?? 0;
  const again = () => {
    drawTextControls();
    drawTexts();
  };
  const step = (by) => () => {
    reading.prompt = (reading.prompt + by + D.prompts.id.length) % D.prompts.id.length;
    again();
  };
  const name = (prompt) => {
    const text = D.prompts.text[prompt];
    return `${D.prompts.id[prompt]}: ${text.length > 60 ? text.slice(0, 59) + "\u2026" : text}`;
  };
  const held = document.activeElement && document.activeElement.getAttribute("data-keep");
  const quick = (text, cells) =>
    h(
      "button",
      {
        type: "button",
        onclick: () => {
          reading.cells = cells();
          again();
        },
      },
      text,
    );
  const picker = h(
    "details",
    { class: "picker" },
    h("summary", {}, `Cells: ${chosenCells().length} chosen`),
    h(
      "div",
      {},
      quick("all shown", () => [...CELLS]),
      quick("best and unguided", firstCells),
      h(
        "fieldset",
        {},
        h("legend", {}, "Cells beside each other"),
        visibleCells().map((cell) =>
          h(
            "label",
            { class: "chip" },
            h("input", {
              type: "checkbox",
              checked: chosenCells().includes(cell),
              onchange: (event) => {
                const before = chosenCells();
                reading.cells = CELLS.filter((one) =>
                  one === cell ? event.target.checked : before.includes(one),
                );
                picker.firstElementChild.textContent = `Cells: ${chosenCells().length} chosen`;
                drawTexts();
              },
            }),
            h("span", {}, D.cells.label[cell]),
          ),
        ),
      ),
    ),
  );
  picker.id = "texts-picker";
  if (at("texts-picker") && at("texts-picker").open) picker.open = true;
  fill(
    at("texts-controls"),
    h(
      "button",
      {
        type: "button",
        class: "step",
        "data-keep": "back",
        "aria-label": "Previous prompt",
        onclick: step(-1),
      },
      "\u2190",
    ),
    choice(
      "prompt",
      D.prompts.id.map((_, prompt) => [prompt, name(prompt)]),
      reading.prompt,
      (value) => {
        reading.prompt = Number(value);
        again();
      },
    ),
    h(
      "button",
      { type: "button", class: "step", "data-keep": "on", "aria-label": "Next prompt", onclick: step(1) },
      "\u2192",
    ),
    samples.length > 1
      ? choice(
          "sample",
          samples.map((sample) => [sample, String(sample)]),
          reading.sample,
          (value) => {
            reading.sample = Number(value);
            drawTexts();
          },
        )
      : null,
    segments(
      "Reading",
      "texts-mode",
      [
        ["text", "plain"],
        ["differences", "differences"],
        ["tokens", "tokens"],
      ],
      reading.mode,
      (value) => {
        reading.mode = value;
        drawTexts();
      },
    ),
    picker,
  );
  if (held) at("texts-controls").querySelector(`[data-keep="${held}"]`).focus();
}

// Where the filters hide all that was chosen, others stand in for it until they show it again.
function chosenCells() {
  const visible = reading.cells.filter(isVisible);
  return visible.length || !reading.cells.length ? visible : firstCells();
}

function whyNoTokens() {
  if (D.tokens.kept && typeof DecompressionStream === "undefined")
    return "This browser cannot open the token views; a newer one can.";
  if (D.tokens.kept || D.tokens.note) return D.tokens.note;
  return (
    "These results do not hold the text of each token (they are older than the token view): the words are " +
    "shown. Run the sweep again in a new folder to have it."
  );
}

let drawing = 0;
async function drawTexts() {
  const turn = ++drawing;
  at("texts-grid").setAttribute("aria-busy", "true");
  const negative = D.prompts.negative?.[reading.prompt];
  fill(
    at("texts-prompt"),
    h("span", {}, "Prompt "),
    h("bdi", {}, D.prompts.text[reading.prompt] ?? ""),
    negative ? [h("br"), h("span", {}, "Negative "), h("bdi", {}, negative)] : null,
  );
  const withTokens = reading.mode === "tokens" && D.tokens.kept && typeof DecompressionStream !== "undefined";
  const rows = chosenCells().map((cell) => [cell, rowAt.get(`${cell}|${reading.prompt}|${reading.sample}`)]);
  const found = rows.filter(([, row]) => row !== undefined);
  const notes = [
    reading.mode === "tokens" ? whyNoTokens() : "",
    found.length > MOST ? `The first ${MOST} of ${found.length} are shown.` : "",
    found.length < rows.length
      ? `${rows.length - found.length} of the chosen cells have no text here${D.texts_left_out ? " or it was left out to keep this page small" : ""}.`
      : "",
    D.texts_left_out
      ? `${D.texts_left_out.toLocaleString("en")} texts are left out of this page to keep it small; they are in the results folder.`
      : "",
  ];
  fill(at("texts-note"), notes.filter(Boolean).join(" "));
  fill(at("legend"), withTokens ? legend() : null);
  at("inspector").hidden = true; // its token is drawn anew
  const cards = await Promise.all(found.slice(0, MOST).map(([cell, row]) => textCard(cell, row, withTokens)));
  if (turn !== drawing) return;
  at("texts-grid").removeAttribute("aria-busy");
  fill(at("texts-grid"), cards.length ? cards : h("p", { class: "empty" }, noText()));
}

const noText = () =>
  visibleCells().length ? "No cell is chosen." : "No cell is shown: switch some on above.";

async function textCard(cell, row, withTokens) {
  const completion = D.rows.completion[row],
    text = D.completions.text[completion];
  const base = D.cells.baseline[cell];
  const other =
    base >= 0 && base !== cell ? rowAt.get(`${base}|${reading.prompt}|${reading.sample}`) : undefined;
  let body = h("p", { class: "body", dir: "auto" }, text || h("em", {}, "empty text")),
    foot = "";
  if (withTokens) {
    const view = await tokenView(completion);
    if (view) body = h("div", { class: "body" }, view);
    else foot = "No token view of this text was kept.";
  } else if (reading.mode === "differences" && other !== undefined) {
    const marked = differences(D.completions.text[D.rows.completion[other]], text);
    body = h("p", { class: "body", dir: "auto" }, marked.nodes);
    foot = marked.sentence;
  } else if (reading.mode === "differences")
    foot = isBaseline(cell)
      ? "Unguided: the others are marked against their own unguided text."
      : "It has no unguided text to compare with.";
  const scores = D.metrics
    .filter((metric) => metric.role !== "other")
    .map((metric) => [metric.name, D.completions.scores[metric.name][completion]]);
  const end = D.completions.finish[completion] === "length" ? "cut at" : "ended after";
  return h(
    "article",
    { class: `text ${isBaseline(cell) ? "unguided" : ""}`, "aria-label": D.cells.label[cell] },
    h(
      "header",
      {},
      h("h3", {}, D.cells.label[cell], isBaseline(cell) ? h("small", {}, " unguided") : null),
      h(
        "dl",
        {},
        scores.map(([name, value]) => h("div", {}, h("dt", {}, name), h("dd", {}, short(value)))),
      ),
    ),
    body,
    h(
      "footer",
      {},
      foot ? h("span", {}, foot) : null,
      h("span", {}, `${end} ${D.completions.tokens[completion]} tokens`),
    ),
  );
}

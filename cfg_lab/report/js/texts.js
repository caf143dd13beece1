// The texts of one prompt, with the cells beside each other.

import { choice, segments } from "./controls.js";
import { baselineOf, CELLS, data, estimatesOf, isUnguided } from "./data.js";
import { differences } from "./diff.js";
import { byId, fill, html } from "./dom.js";
import { numberText } from "./numbers.js";
import { tokenLegend, tokensWork, tokenView } from "./tokens.js";
import { isVisible, visibleCells } from "./visible.js";

/** @typedef {"text" | "differences" | "tokens"} Mode how texts are shown */

const MOST_CARDS = 24;
const FEW_CELLS = 4; // up to this many cells are all shown at first
const LONGEST_PROMPT = 60; // characters of a prompt in the list of prompts

const state = {
  prompt: 0,
  sample: 0,
  mode: /** @type {Mode} */ ("text"),
  /** @type {number[] | null} The cells that the reader chose; null before any choice. */
  cells: null,
};

/**
 * @param {number} cell
 * @param {number} prompt
 * @param {number} sample
 */
const rowKey = (cell, prompt, sample) => `${cell}|${prompt}|${sample}`;
const rowsByKey = new Map(
  data.rows.cell.map((cell, row) => [rowKey(cell, data.rows.prompt[row], data.rows.sample[row]), row]),
);

/**
 * Returns the row of a cell's text of the shown prompt and sample, if the page holds it.
 * @param {number | null} cell
 */
const rowOf = (cell) => (cell === null ? undefined : rowsByKey.get(rowKey(cell, state.prompt, state.sample)));

/** @param {number} prompt */
const samplesOf = (prompt) =>
  [...new Set(data.rows.sample.filter((_, row) => data.rows.prompt[row] === prompt))].sort((a, b) => a - b);

/** Returns all visible cells if they are few, else the best guided one in the first aim and its baseline. */
function bestAndUnguided() {
  const cells = visibleCells();
  const aim = data.metrics.find((metric) => metric.role === "aim");
  if (cells.length <= FEW_CELLS || !aim) return cells.slice(0, FEW_CELLS);
  const sign = aim.better === "lower" ? -1 : 1;
  const guided = estimatesOf(aim, cells).filter(({ cell }) => !isUnguided(cell));
  const best = guided.sort((a, b) => sign * (b.mean - a.mean)).at(0);
  return best ? withBaseline(best.cell).filter(isVisible) : cells.slice(0, FEW_CELLS);
}

/** @param {number} cell */
function withBaseline(cell) {
  const baseline = baselineOf(cell);
  return baseline === null ? [cell] : [baseline, cell];
}

/** Returns the chosen cells that are visible. If the filters hide all of them, returns the default choice. */
function shownCells() {
  if (!state.cells) return bestAndUnguided();
  const visible = state.cells.filter(isVisible);
  return visible.length || !state.cells.length ? visible : bestAndUnguided();
}

/**
 * Shows the texts of a cell beside those of its baseline, and moves the focus there.
 * @param {number} cell
 */
export function openTexts(cell) {
  const chosen = withBaseline(cell);
  state.cells = CELLS.filter((candidate) => chosen.includes(candidate));
  drawAll();
  const still = matchMedia("(prefers-reduced-motion: reduce)").matches;
  byId("texts").scrollIntoView({ behavior: still ? "auto" : "smooth" });
  const heading = byId("h-texts");
  heading.setAttribute("tabindex", "-1");
  heading.focus({ preventScroll: true });
}

function drawAll() {
  drawTextControls();
  drawTexts();
}

/** Draws the choice of prompt, sample, mode and cells. */
export function drawTextControls() {
  state.cells ??= bestAndUnguided();
  const samples = samplesOf(state.prompt);
  if (!samples.includes(state.sample)) state.sample = samples.at(0) ?? 0;
  /** @type {[number, string][]} */
  const prompts = data.prompts.id.map((_, prompt) => [prompt, promptName(prompt)]);
  /** @type {[number, string][]} */
  const sampleOptions = samples.map((sample) => [sample, String(sample)]);
  /** @type {[Mode, string][]} */
  const modes = [
    ["text", "plain"],
    ["differences", "differences"],
    ["tokens", "tokens"],
  ];
  const focused = document.activeElement?.getAttribute("data-step");
  fill(
    byId("texts-controls"),
    stepButton("back", "Previous prompt", "\u2190", -1),
    choice("prompt", prompts, state.prompt, (prompt) => {
      state.prompt = prompt;
      drawAll();
    }),
    stepButton("on", "Next prompt", "\u2192", 1),
    samples.length > 1 &&
      choice("sample", sampleOptions, state.sample, (sample) => {
        state.sample = sample;
        drawTexts();
      }),
    segments("Reading", "texts-mode", modes, state.mode, (mode) => {
      state.mode = mode;
      drawTexts();
    }),
    cellPicker(),
  );
  for (const button of byId("texts-controls").querySelectorAll("button"))
    if (focused && button.getAttribute("data-step") === focused) button.focus();
}

/** @param {number} prompt */
function promptName(prompt) {
  const characters = [...data.prompts.text[prompt]]; // of Unicode, so that none is cut into halves
  const short =
    characters.length > LONGEST_PROMPT ? [...characters.slice(0, LONGEST_PROMPT - 1), "\u2026"] : characters;
  return `${data.prompts.id[prompt]}: ${short.join("")}`;
}

/**
 * Creates a button that moves to another prompt.
 * @param {string} name
 * @param {string} label
 * @param {string} arrow
 * @param {number} step
 */
function stepButton(name, label, arrow, step) {
  const count = data.prompts.id.length;
  const move = () => {
    state.prompt = (state.prompt + step + count) % count;
    drawAll();
  };
  return html(
    "button",
    { type: "button", class: "step", "data-step": name, "aria-label": label, onclick: move },
    arrow,
  );
}

/** Creates the choice of cells, which opens on a click. */
function cellPicker() {
  const summary = html("summary", {}, pickerTitle());
  const shown = new Set(shownCells());
  /** @param {number} cell */
  const chip = (cell) => {
    const input = html("input", {
      type: "checkbox",
      checked: shown.has(cell),
      onchange: () => {
        const before = new Set(shownCells());
        state.cells = CELLS.filter((other) => (other === cell ? input.checked : before.has(other)));
        fill(summary, pickerTitle());
        drawTexts();
      },
    });
    return html("label", { class: "chip" }, input, html("span", {}, data.cells.label[cell]));
  };
  const previous = document.getElementById("texts-picker");
  return html(
    "details",
    { class: "picker", id: "texts-picker", open: previous instanceof HTMLDetailsElement && previous.open },
    summary,
    html(
      "div",
      {},
      chooseButton("all cells", () => [...CELLS]),
      chooseButton("best and unguided", bestAndUnguided),
      html("fieldset", {}, html("legend", {}, "Cells beside each other"), visibleCells().map(chip)),
    ),
  );
}

const pickerTitle = () => `Cells: ${shownCells().length} chosen`;

/**
 * Creates a button that chooses cells.
 * @param {string} text
 * @param {() => number[]} cells
 */
function chooseButton(text, cells) {
  const choose = () => {
    state.cells = cells();
    drawAll();
  };
  return html("button", { type: "button", onclick: choose }, text);
}

let drawings = 0;

/** Draws the texts. Unpacking tokens takes a moment, so only the latest drawing is shown. */
export async function drawTexts() {
  const drawing = ++drawings;
  const grid = byId("texts-grid");
  grid.setAttribute("aria-busy", "true");
  const negative = data.prompts.negative.at(state.prompt);
  fill(
    byId("texts-prompt"),
    html("span", {}, "Prompt "),
    html("bdi", {}, data.prompts.text[state.prompt] ?? ""),
    negative && [html("br"), html("span", {}, "Negative "), html("bdi", {}, negative)],
  );
  const cells = shownCells();
  const rows = cells.flatMap((cell) => {
    const row = rowOf(cell);
    return row === undefined ? [] : [{ cell, row }];
  });
  const withTokens = state.mode === "tokens" && tokensWork;
  fill(byId("texts-note"), notes(cells.length, rows.length).filter(Boolean).join(" "));
  fill(byId("legend"), withTokens && tokenLegend());
  byId("inspector").hidden = true; // its token is drawn anew
  const cards = await Promise.all(
    rows.slice(0, MOST_CARDS).map(({ cell, row }) => textCard(cell, data.rows.completion[row], withTokens)),
  );
  if (drawing !== drawings) return;
  grid.removeAttribute("aria-busy");
  const nothing = visibleCells().length ? "No cell is chosen." : "No cell is shown. Switch some on above.";
  fill(grid, cards.length ? cards : html("p", { class: "empty" }, nothing));
}

/**
 * Says what is not shown, and why.
 * @param {number} cells how many cells are chosen
 * @param {number} texts how many of them have a text
 */
function notes(cells, texts) {
  const leftOut = data.texts_left_out;
  return [
    state.mode === "tokens" && tokenNote(),
    texts > MOST_CARDS && `The first ${MOST_CARDS} of ${texts} texts are shown.`,
    texts < cells && `${cells - texts} of the chosen cells have no text here.`,
    data.texts_shown,
    leftOut > 0 &&
      `${leftOut.toLocaleString("en")} texts are left out to keep this page small. The results folder has them.`,
  ];
}

/** Says why tokens are missing; "" if none are. */
function tokenNote() {
  if (data.tokens.available && !tokensWork) return "This browser cannot unpack the tokens. A newer one can.";
  if (data.tokens.available || data.tokens.note) return data.tokens.note;
  return (
    "These results were made before the text of each token was kept, so whole texts are shown. Run the sweep " +
    "again in a new folder to see tokens."
  );
}

/**
 * Draws one text with its scores.
 * @param {number} cell
 * @param {number} completion
 * @param {boolean} withTokens
 */
async function textCard(cell, completion, withTokens) {
  const label = data.cells.label[cell];
  const { body, note } = await textBody(cell, completion, withTokens);
  const metrics = data.metrics.filter((metric) => metric.role !== "other");
  const end = data.completions.finish[completion] === "length" ? "Cut off after" : "Ended after";
  return html(
    "article",
    { class: `text ${isUnguided(cell) ? "unguided" : ""}`, "aria-label": label },
    html(
      "header",
      {},
      html("h3", {}, label, isUnguided(cell) && html("small", {}, " unguided")),
      html(
        "dl",
        {},
        metrics.map(({ name }) =>
          html(
            "div",
            {},
            html("dt", {}, name),
            html("dd", {}, numberText(data.completions.scores[name][completion])),
          ),
        ),
      ),
    ),
    body,
    html(
      "footer",
      {},
      note && html("span", {}, note),
      html("span", {}, `${end} ${data.completions.tokens[completion]} tokens.`),
    ),
  );
}

/**
 * Returns the text in the chosen mode, and a note below it.
 * @param {number} cell
 * @param {number} completion
 * @param {boolean} withTokens
 */
async function textBody(cell, completion, withTokens) {
  const text = data.completions.text[completion];
  const plain = html("p", { class: "body", dir: "auto" }, text || html("em", {}, "empty text"));
  if (withTokens) {
    const view = await tokenView(completion);
    if (view) return { body: html("div", { class: "body" }, view), note: "" };
    return { body: plain, note: text && "The tokens of this text were left out." };
  }
  if (state.mode !== "differences") return { body: plain, note: "" };
  const row = rowOf(baselineOf(cell));
  if (row !== undefined) {
    const marked = differences(data.completions.text[data.rows.completion[row]], text);
    return { body: html("p", { class: "body", dir: "auto" }, marked.nodes), note: marked.sentence };
  }
  const note = isUnguided(cell)
    ? "Unguided. The other texts are marked where they differ from their own unguided text."
    : "There is no unguided text to compare it with.";
  return { body: plain, note };
}

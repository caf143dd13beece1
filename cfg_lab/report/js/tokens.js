// The tokens of a text, coloured by how much guidance changed their probability.

/** @import { Alternative, Pack, PackedText, Token, TraceField } from "./types.d.ts" */
import { activate, shareTabStop } from "./controls.js";
import { data } from "./data.js";
import { byId, fill, html, svg } from "./dom.js";
import { round } from "./geometry.js";
import { numberText, percentText, signedText } from "./numbers.js";

const LEVELS = data.tokens.levels; // smallest change, in nats, of each level of colour
const STRIP_REACH = 3; // change, in nats, that fills the strip
const STRIP_MIDDLE = 16;
const STRIP_HEIGHT = 15;
const HARDLY = 0.005; // nats; a smaller change would be printed as 0

/** Whether the page holds tokens and the browser can unpack them. */
export const tokensWork = data.tokens.available && typeof DecompressionStream !== "undefined";

/** @type {Map<number, Promise<Pack>>} */
const packs = new Map();

/**
 * Returns a pack by its number. It is unpacked once and kept.
 * @param {number} number
 * @returns {Promise<Pack>}
 */
function openPack(number) {
  const pack = packs.get(number) ?? unpack(byId(`pack-${number}`).textContent ?? "");
  packs.set(number, pack);
  return pack;
}

/** @param {string} base64 */
async function unpack(base64) {
  const bytes = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("gzip"));
  return JSON.parse(await new Response(stream).text());
}

/**
 * Reads one token of a packed text. Log-probs are packed without their sign.
 * @param {Pack} pack
 * @param {PackedText} text
 * @param {number} index
 * @returns {Token}
 */
function tokenAt(pack, text, index) {
  /** @param {TraceField} field */
  const numberOf = ({ name, kind }) => {
    const hundredths = text.trace[name]?.[index] ?? null;
    return hundredths === null ? null : (kind === "log-prob" ? -1 : 1) * (hundredths / 100);
  };
  const numbers = Object.fromEntries(data.tokens.fields.map((field) => [field.name, numberOf(field)]));
  const [before, after] = data.tokens.change.map((name) => numbers[name] ?? null);
  return {
    piece: pack.pieces[text.pieces[index]],
    numbers,
    change: before === null || after === null ? null : after - before,
    alternatives: data.tokens.distributions.map((distribution) => ({
      distribution,
      tokens: alternativesAt(pack, text.alternatives[distribution]?.[index] ?? []),
    })),
  };
}

/**
 * @param {Pack} pack
 * @param {number[]} flat piece, hundredths of -log-prob, piece, and so on
 * @returns {Alternative[]}
 */
function alternativesAt(pack, flat) {
  const alternatives = [];
  for (let i = 0; i < flat.length; i += 2)
    alternatives.push({ piece: pack.pieces[flat[i]], logProb: -flat[i + 1] / 100 });
  return alternatives;
}

/**
 * Writes a piece on one line: control characters as signs, the empty piece as ∅.
 * @param {string} piece
 */
function visiblePiece(piece) {
  const signs = [...piece].map((character) => {
    const code = character.codePointAt(0) ?? 0;
    if (character === "\n") return "\u21b5";
    if (character === "\t") return "\u21e5";
    return code < 32 || code === 127 ? "\u00b7" : character;
  });
  return signs.join("") || "\u2205";
}

/**
 * Says how much guidance changed the probability of a token.
 * @param {number | null} change
 */
function changeText(change) {
  if (change === null) return "change not measured";
  if (Math.abs(change) < HARDLY) return `${signedText(change)} nats, unchanged`;
  const factor = numberText(Math.exp(Math.abs(change)));
  return `${signedText(change)} nats, ${factor} times ${change < 0 ? "less" : "as"} likely`;
}

/**
 * Returns the class names of a token's colour.
 * @param {number | null} change
 */
function colourClasses(change) {
  const level = change === null ? 0 : LEVELS.filter((least) => Math.abs(change) >= least).length;
  return change && level ? ` ${change > 0 ? "up" : "down"} l${level}` : "";
}

/**
 * Returns the tokens of a completion, or null if the page does not hold them.
 * @param {number} completion
 */
export async function tokenView(completion) {
  const number = data.completions.pack[completion];
  if (number === null) return null;
  const pack = await openPack(number);
  const text = pack.texts[String(completion)];
  const tokens = text.pieces.map((_, index) => tokenAt(pack, text, index));
  const elements = tokens.map((token) => {
    const element = html(
      "span",
      {
        class: `t${colourClasses(token.change)}`,
        role: "button",
        "aria-label": `${visiblePiece(token.piece)}: ${changeText(token.change)}`,
      },
      token.piece.replace(/\n/g, "\u21b5\n") || "\u2205",
    );
    const show = () => inspect(token, element);
    element.addEventListener("pointerenter", () => {
      if (!inspection.closed) show();
    });
    element.addEventListener("focus", () => {
      if (!(inspection.closed && inspection.element === element)) show();
    });
    activate(element, show);
    return element;
  });
  shareTabStop(elements);
  return [
    strip(tokens),
    html(
      "div",
      { class: "tokens", dir: "auto", role: "group", "aria-label": "Tokens. Arrow keys move among them." },
      elements,
    ),
  ];
}

/**
 * Draws one bar per token: up where guidance made it more likely, down where it made it less likely.
 * @param {Token[]} tokens
 */
function strip(tokens) {
  const width = Math.max(1, tokens.length);
  return svg(
    "svg",
    { class: "strip", viewBox: `0 0 ${width} 32`, preserveAspectRatio: "none", "aria-hidden": "true" },
    svg("line", { x1: 0, x2: width, y1: STRIP_MIDDLE, y2: STRIP_MIDDLE }),
    tokens.map(({ change }, index) => {
      if (change === null) return null;
      const height = (Math.min(STRIP_REACH, Math.abs(change)) / STRIP_REACH) * STRIP_HEIGHT;
      return svg("rect", {
        class: change > 0 ? "up" : "down",
        x: index + 0.1,
        width: 0.8,
        y: round(change > 0 ? STRIP_MIDDLE - height : STRIP_MIDDLE),
        height: round(height),
      });
    }),
  );
}

const inspection = {
  /** @type {HTMLElement | null} The token whose numbers are shown. */
  element: null,
  /** Whether the reader closed the inspector. Hovering does not open it again; a click or an arrow key does. */
  closed: false,
};

/**
 * Shows the numbers of a token.
 * @param {Token} token
 * @param {HTMLElement} element
 */
function inspect(token, element) {
  inspection.element?.classList.remove("hot");
  inspection.element = element;
  inspection.closed = false;
  element.classList.add("hot");
  const panel = byId("inspector");
  fill(
    panel,
    html(
      "div",
      { class: "inspected" },
      html("p", { class: "piece" }, html("bdi", {}, visiblePiece(token.piece))),
      html("p", {}, changeText(token.change)),
      html(
        "dl",
        {},
        data.tokens.fields.map((field) => [
          html("dt", {}, field.label),
          html("dd", {}, fieldText(field, token.numbers[field.name])),
        ]),
      ),
      html(
        "button",
        { type: "button", class: "close", "aria-label": "Close", onclick: closeInspector },
        "\u00d7",
      ),
    ),
    alternativesView(token),
  );
  panel.hidden = false;
}

/**
 * @param {TraceField} field
 * @param {number | null} value
 */
function fieldText({ kind }, value) {
  if (value === null) return "none";
  if (kind === "log-prob") return `${numberText(value)} (${percentText(Math.exp(value))})`;
  return kind === "nats" ? `${numberText(value)} nats` : numberText(value);
}

/** @param {Token} token */
function alternativesView(token) {
  if (token.alternatives.every(({ tokens }) => !tokens.length)) {
    const reason = data.tokens.alternatives
      ? "The other likely tokens were left out to keep this page small."
      : "The other likely tokens were not recorded. Run the sweep with top=5 to record them.";
    return html("p", { class: "tops-none" }, reason);
  }
  return html(
    "div",
    { class: "tops" },
    token.alternatives.map(({ distribution, tokens }) =>
      html(
        "div",
        {},
        html("h4", {}, distribution),
        tokens.length
          ? html(
              "ol",
              {},
              tokens.map((alternative) => alternativeRow(alternative, token)),
            )
          : html("p", {}, "none recorded"),
      ),
    ),
  );
}

/**
 * @param {Alternative} alternative
 * @param {Token} token
 */
function alternativeRow({ piece, logProb }, token) {
  const bar = html("span", { class: "bar", "aria-hidden": "true" });
  bar.style.setProperty("--share", `${round(100 * Math.exp(logProb))}%`);
  return html(
    "li",
    { class: piece === token.piece ? "chosen" : null },
    bar,
    html("bdi", { class: "piece" }, visiblePiece(piece)),
    html("span", { class: "n" }, percentText(Math.exp(logProb))),
  );
}

function closeInspector() {
  byId("inspector").hidden = true;
  inspection.closed = true;
  inspection.element?.classList.remove("hot");
  inspection.element?.focus();
}
addEventListener("keydown", (event) => {
  if (event.key === "Escape" && !byId("inspector").hidden) closeInspector();
});

/** Explains the colours of tokens. */
export function tokenLegend() {
  /**
   * @param {string} direction
   * @param {number} level
   */
  const sample = (direction, level) =>
    html("span", { class: `t ${direction} l${level}`, "aria-hidden": "true" }, "ab");
  const levels = LEVELS.map((_, index) => index + 1);
  return html(
    "p",
    { class: "legend" },
    html("span", {}, "less likely"),
    levels.toReversed().map((level) => sample("down", level)),
    html("span", { class: "t", "aria-hidden": "true" }, "\u2002"),
    levels.map((level) => sample("up", level)),
    html("span", {}, "more likely through guidance"),
    html(
      "small",
      {},
      `Colour shows the change of log-prob by guidance, in steps of ${LEVELS.join(", ")} nats. A solid line ` +
        "means more likely, a dotted line less likely.",
    ),
  );
}

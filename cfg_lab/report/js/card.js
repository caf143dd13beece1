// The card that shows a cell's numbers beside the pointer or the focus.

import { activate } from "./controls.js";
import { byId, fill, html } from "./dom.js";
import { clamp } from "./geometry.js";
import { openTexts } from "./texts.js";

const EDGE = 8; // pixels kept free at the edges of the window
const GAP = 10; // pixels between an element and its card
const MOST_SCROLLED = 4; // pixels by which an element may move before its card disappears

const card = byId("card");

/** @type {{ element: Element, top: number } | null} The element whose card is shown, and where it was. */
let shown = null;

/**
 * Shows a card beside an element.
 * @param {Element} element
 * @param {string[]} lines
 */
function showCard(element, lines) {
  hideCard();
  element.classList.add("hot");
  const [title, ...details] = lines.filter(Boolean);
  fill(
    card,
    html("strong", {}, title),
    details.map((line) => html("span", {}, line)),
  );
  card.hidden = false;
  const area = element.getBoundingClientRect();
  const size = card.getBoundingClientRect();
  shown = { element, top: area.top };
  const left = clamp(area.left + area.width / 2 - size.width / 2, EDGE, innerWidth - size.width - EDGE);
  const above = area.top - size.height - GAP;
  card.style.left = `${Math.max(0, left)}px`;
  card.style.top = `${above > EDGE ? above : area.bottom + GAP}px`;
}

function hideCard() {
  card.hidden = true;
  shown?.element.classList.remove("hot");
  shown = null;
}

// The browser reports a scroll after it has ended, perhaps when a new card is already shown. Only a card whose
// element has moved is hidden.
addEventListener(
  "scroll",
  () => {
    if (shown && Math.abs(shown.element.getBoundingClientRect().top - shown.top) > MOST_SCROLLED) hideCard();
  },
  { passive: true },
);
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideCard();
});

// A finger cannot hover. Its first tap on an element shows the card, the second opens the texts, and a tap
// elsewhere hides the card.
let usesFinger = false;
/** @type {Element | null} The element whose card was already shown when the finger came down. */
let tappedAgain = null;
addEventListener(
  "pointerdown",
  (event) => {
    usesFinger = event.pointerType === "touch";
    tappedAgain =
      shown && event.target instanceof Node && shown.element.contains(event.target) ? shown.element : null;
    if (!tappedAgain) hideCard();
  },
  true,
);

/**
 * Lets an element stand for a cell: its card is shown on hover and focus, and its texts are opened on a click.
 * @template {HTMLElement | SVGElement} E
 * @param {E} element
 * @param {number} cell
 * @param {string[]} lines lines of the card; the first is the title
 * @returns {E}
 */
export function standsForCell(element, cell, lines) {
  element.setAttribute("role", "button");
  element.setAttribute("aria-label", `${lines.filter(Boolean).join(". ")}. Opens its texts.`);
  const show = () => {
    showCard(element, [...lines, usesFinger ? "Tap again to read its texts." : "Click to read its texts."]);
  };
  /** @param {() => void} action */
  const onHover = (action) => (/** @type {Event} */ event) => {
    if (event instanceof PointerEvent && event.pointerType !== "touch") action();
  };
  element.addEventListener("pointerenter", onHover(show));
  element.addEventListener("pointerleave", onHover(hideCard));
  element.addEventListener("focus", show);
  element.addEventListener("blur", hideCard);
  activate(element, (event) => {
    if (event.type === "click" && usesFinger && tappedAgain !== element) return show();
    hideCard();
    openTexts(cell);
  });
  return element;
}

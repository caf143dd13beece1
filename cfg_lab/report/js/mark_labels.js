// Names beside the marks of a figure, placed so that they cover nothing.

/** @typedef {{ x: number, y: number, reach: number }} Disc a mark with all that surrounds it */
/** @typedef {Disc & { cell: number, text: string, priority: number }} NamedMark */
/** @typedef {{ left: number, top: number, width: number }} Label */
/** @import { Box } from "./geometry.js" */

const HEIGHT = 13; // pixels of one line of text
const GAPS = [1, 10, 20]; // distances from the mark, in pixels, in the order in which they are tried
/** @type {[number, number][]} Directions from the mark, in the order in which they are tried. */
const DIRECTIONS = [
  [1, -1],
  [1, 0],
  [1, 1],
  [0, -1],
  [0, 1],
  [-1, -1],
  [-1, 0],
  [-1, 1],
];

/**
 * Returns the position of each mark's name, by cell.
 *
 * 1. Marks are taken by priority, the highest first.
 * 2. Around each mark, the positions at three distances and in eight directions are tried in order.
 * 3. The first position is used that lies in the box and covers no mark, no other name and no text in `taken`.
 * 4. A mark without such a position has no name. Marks with the same name at the same spot are named once.
 *
 * @param {NamedMark[]} marks
 * @param {Box} box
 * @param {Label[]} taken areas that already hold text
 * @returns {Map<number, Label>}
 */
export function placeLabels(marks, box, taken) {
  const labels = new Map();
  const occupied = [...taken];
  const named = new Set();
  for (const mark of [...marks].sort((a, b) => b.priority - a.priority)) {
    const spot = `${mark.x} ${mark.y} ${mark.text}`;
    if (!mark.text || named.has(spot)) continue;
    const label = candidates(mark).find(
      (candidate) =>
        isInside(candidate, box) &&
        !occupied.some((other) => overlap(candidate, other)) &&
        !marks.some((other) => covers(candidate, other)),
    );
    if (!label) continue;
    occupied.push(label);
    named.add(spot);
    labels.set(mark.cell, label);
  }
  return labels;
}

/**
 * @param {NamedMark} mark
 * @returns {Label[]}
 */
function candidates({ x, y, reach, text }) {
  const width = 7.4 * text.length + 2;
  return GAPS.flatMap((gap) =>
    DIRECTIONS.map(([dx, dy]) => {
      const distance = (reach + gap) / Math.hypot(dx, dy);
      return {
        left: x + dx * distance + ((dx - 1) / 2) * width,
        top: y + dy * distance + ((dy - 1) / 2) * HEIGHT,
        width,
      };
    }),
  );
}

/**
 * @param {Label} label
 * @param {Box} box
 */
const isInside = ({ left, top, width }, box) =>
  left >= box.left && left + width <= box.right && top >= box.top && top + HEIGHT <= box.bottom;

/**
 * @param {Label} a
 * @param {Label} b
 */
const overlap = (a, b) =>
  a.left < b.left + b.width && b.left < a.left + a.width && a.top < b.top + HEIGHT && b.top < a.top + HEIGHT;

/**
 * @param {Label} label
 * @param {Disc} disc
 */
function covers({ left, top, width }, { x, y, reach }) {
  const dx = x - Math.max(left, Math.min(x, left + width));
  const dy = y - Math.max(top, Math.min(y, top + HEIGHT));
  return Math.hypot(dx, dy) < reach;
}

// Which cells the filters show, and what is drawn again when they or the width change.

import { CELLS, data } from "./data.js";

/** For each axis, the indices of the values that are switched off. */
export const hiddenValues = data.axes.map(() => /** @type {Set<number>} */ (new Set()));

/** @param {number} cell */
export const isVisible = (cell) =>
  data.cells.point[cell].every((value, axis) => !hiddenValues[axis].has(value));

export const visibleCells = () => CELLS.filter(isVisible);

/** @type {(() => void)[]} */
const drawings = [];

/**
 * Draws something again whenever the filters change.
 * @param {...() => void} draw
 */
export const drawOnFilter = (...draw) => drawings.push(...draw);

/** Draws everything that depends on the filters. */
export function redraw() {
  for (const draw of drawings) draw();
}

/**
 * Draws a figure now, and again whenever its width or the filters change.
 * @param {HTMLElement} holder
 * @param {() => void} draw
 */
export function drawAtWidth(holder, draw) {
  let width = 0;
  new ResizeObserver(() => {
    if (holder.clientWidth && Math.abs(holder.clientWidth - width) > 1) {
      width = holder.clientWidth;
      draw();
    }
  }).observe(holder);
  drawOnFilter(draw);
}

// Draws every section once. What depends on the width or on the filters is drawn again when they change.

import { fading } from "./controls.js";
import { drawCurveControls, drawCurves } from "./curves.js";
import { CELLS, data } from "./data.js";
import { byId } from "./dom.js";
import { drawDownloads } from "./download.js";
import { drawFilters } from "./filters.js";
import { drawMap, drawMapControls, hasMap } from "./heatmap.js";
import { curveAxis } from "./series.js";
import { drawTable, drawTableControls } from "./table.js";
import { drawTextControls, drawTexts } from "./texts.js";
import { drawTradeOff, drawTradeOffControls } from "./tradeoff.js";
import { drawAtWidth, drawOnFilter } from "./visible.js";

drawFilters();

byId("h-scale").textContent =
  curveAxis === null ? "Metric by metric" : `What ${data.axes[curveAxis].name} does`;
byId("scale").hidden = !data.metrics.length;
if (data.metrics.length) {
  drawCurveControls();
  drawAtWidth(byId("curves"), drawCurves);
  drawOnFilter(drawCurveControls);
}

const hasTradeOff = data.fronts.length > 0 && CELLS.length > 1;
byId("tradeoff").hidden = !hasTradeOff;
if (hasTradeOff) {
  drawTradeOffControls();
  drawAtWidth(byId("tradeoff-chart"), drawTradeOff);
}

byId("map").hidden = !hasMap;
if (hasMap) {
  drawMapControls();
  drawAtWidth(byId("heatmap"), drawMap);
}

drawTableControls();
drawTable();
drawTextControls();
drawTexts();
drawOnFilter(drawTable, drawTextControls, drawTexts);
drawDownloads();

for (const box of document.querySelectorAll(":is(#answer, #metrics, #repeat) .box")) fading(box);
byId("metrics").hidden = !byId("metrics").querySelector("dt");
for (const link of document.querySelectorAll("nav a")) {
  const section = byId(link.getAttribute("href")?.slice(1) ?? "");
  const item = link.closest("li");
  if (item) item.hidden = section.hidden;
}
document.documentElement.setAttribute("data-ready", "");
performance.mark("cfg_lab-ready");

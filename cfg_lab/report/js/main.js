// Everything drawn once; what depends on width or filters draws itself again.

reading.cells = firstCells();
drawFilters();
if (scaleAxis < 0) at("h-scale").textContent = "Metric by metric";
else if (D.axes[scaleAxis].key !== "guidance.scale")
  at("h-scale").textContent = `What ${D.axes[scaleAxis].name} does`;
drawCurveControls();
if (D.metrics.length) sized(at("curves"), drawCurves);
else at("scale").hidden = true;
if (D.fronts.length && CELLS.length > 1) {
  drawTradeControls();
  sized(at("tradeoff-chart"), drawTrade);
} else at("tradeoff").hidden = true;
drawMapControls();
sized(at("heatmap"), drawMap);
drawers.push(drawCurveControls, drawTable, drawTextControls, drawTexts);
drawTableControls();
drawTable();
drawTextControls();
drawTexts();
drawDownloads();
document.querySelectorAll(":is(#answer, #metrics, #repeat) .box").forEach(fading);
at("metrics").hidden = !at("metrics").querySelector("dt");
for (const link of document.querySelectorAll("nav a"))
  link.parentElement.hidden = at(link.getAttribute("href").slice(1)).hidden;
document.documentElement.setAttribute("data-ready", "");
performance.mark("cfg_lab-ready");

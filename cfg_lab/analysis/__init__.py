"""Tables and figures from a results frame (a pandas table with one row per text). No model is needed.

Matplotlib is imported only when a figure is drawn.
"""

from cfg_lab.analysis.compare import comparisons, summary
from cfg_lab.analysis.figures import heat_map, scale_curves, trade_off
from cfg_lab.analysis.frame import metrics_of, settings_of, unguided_cells, varying
from cfg_lab.analysis.pareto_front import pareto, pareto_fronts
from cfg_lab.analysis.style import COLUMN, PAGE, save
from cfg_lab.metrics.known_columns import better, bounds, meaning

__all__ = [
    "COLUMN",
    "PAGE",
    "better",
    "bounds",
    "comparisons",
    "heat_map",
    "meaning",
    "metrics_of",
    "pareto",
    "pareto_fronts",
    "save",
    "scale_curves",
    "settings_of",
    "summary",
    "trade_off",
    "unguided_cells",
    "varying",
]

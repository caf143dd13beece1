"""From results to tables and figures: nothing here needs a model.

Matplotlib is imported when a figure is drawn.
"""

from cfg_lab.analysis.compare import comparisons, summary
from cfg_lab.analysis.figures import heat_map, scale_curves, trade_off
from cfg_lab.analysis.frame import metrics_of, varying
from cfg_lab.analysis.pareto_front import pareto
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
    "save",
    "scale_curves",
    "summary",
    "trade_off",
    "varying",
]

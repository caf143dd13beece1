"""From results to tables and figures: nothing here needs a model.

Matplotlib is imported when a figure is asked for.
"""

from cfg_lab.analysis.cells import metrics_of, varying
from cfg_lab.analysis.compare import comparisons, summary
from cfg_lab.analysis.directions import better
from cfg_lab.analysis.front import pareto

__all__ = ["better", "comparisons", "metrics_of", "pareto", "summary", "varying"]

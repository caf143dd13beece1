"""The page of a results folder: what was asked, what came out, how sure it is, and every text behind it.

Statistics come from `cfg_lab.analysis`; here they are put into sentences, figures and tables. The figures are
SVG drawn by a few hundred lines of plain JavaScript: plotly would add 4.5 MB to every page, draws on canvases
and nodes that a screen reader cannot read, and brings its own look.
"""

from cfg_lab.report.document import document
from cfg_lab.report.write import report

__all__ = ["document", "report"]

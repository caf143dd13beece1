"""The page of a results folder: the question, the answer, how certain it is, and every text behind it.

Statistics come from `cfg_lab.analysis`. This package turns them into sentences, figures and tables. The
page's own scripts draw the figures as SVG; CONTRIBUTING says why no charting library draws them.
"""

from cfg_lab.report.document import document
from cfg_lab.report.write import report

__all__ = ["document", "report"]

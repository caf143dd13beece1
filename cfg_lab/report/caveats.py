"""Lists what a reader must know to read the findings of a study correctly.

All returned text is safe HTML; <b> marks the most important words.
"""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from cfg_lab.analysis.stats.sign_flips import MAX_PROMPTS_FOR_ALL_SIGN_FLIPS, MIN_PROMPTS_FOR_SIGN_FLIPS
from cfg_lab.report.change import SIGNIFICANCE_LEVEL
from cfg_lab.report.findings import Finding
from cfg_lab.report.scope import Scope
from cfg_lab.study.formats import count, joined

MOST_CELLS = 12  # of which a caveat gives the names
FEW_PROMPTS = 10  # with fewer prompts, a caveat says that the intervals are approximate


def caveats(results: Sequence[Finding], scope: Scope, unscored: Sequence[str]) -> list[str]:
    """List what a reader must know to read the findings correctly.

    Args:
        results: one finding per aim.
        scope: size of the study.
        unscored: names of the metrics without any score.
    """
    compared = [finding for finding in results if finding.change is not None]
    notes: list[str] = []
    if any(finding.guided > 1 for finding in compared):
        notes.append(
            "The best cell was <b>chosen on the same texts</b> that it is judged by. Its true advantage is "
            "probably smaller. Decode it again with new prompts or another seed before you rely on it."
        )
    if scope.comparisons > 1:
        notes += [
            f"A difference is called <b>significant</b> if p is below {SIGNIFICANCE_LEVEL:g} after Holm's "
            f"correction over the {scope.comparisons} comparisons of aims and prices. It is called <b>a "
            f"lead</b> if p is below {SIGNIFICANCE_LEVEL:g} before the correction only.",
            "Each interval covers 95 % by itself. Intervals are not corrected.",
            "Aims and prices are fixed in advance, whatever the results are. The other metrics are corrected "
            "among themselves.",
        ]
    if MIN_PROMPTS_FOR_SIGN_FLIPS <= scope.prompts <= MAX_PROMPTS_FOR_ALL_SIGN_FLIPS:
        smallest_p = scope.comparisons * 2 / 2**scope.prompts
        if smallest_p >= SIGNIFICANCE_LEVEL:
            notes.append(
                f"With {scope.prompts} prompts and {scope.comparisons} comparisons no difference can be "
                f"significant: no corrected p can be below {SIGNIFICANCE_LEVEL:g}. Use more prompts, or "
                "compare fewer cells or metrics."
            )
    if any(finding.neighbours for finding in results):
        notes.append(
            "Where the best cell is compared with cells that differ in one setting, p is corrected over all "
            "these cells. It is also corrected for the choice of the best guided cell, for each aim."
        )
    for finding in compared:
        if finding.unscored:
            names = [escape(scope.labels[cell]) for cell in finding.unscored[:MOST_CELLS]]
            further = len(finding.unscored) - len(names)
            cells = joined([*names, *([count(further, "further cell")] if further else [])])
            notes.append(f"Not compared, because {escape(finding.metric)} has no score there: {cells}.")
    if scope.planned > scope.texts:
        notes.append(
            f"<b>{scope.texts:,} of {scope.planned:,} planned texts are decoded.</b> Cells may hold "
            "different prompts, so the difference of two means can differ from the paired difference. Run "
            "the sweep again to decode the rest."
        )
    if scope.prompts == 1:
        notes.append(
            "There is <b>one prompt</b>. Intervals are computed over prompts, so there are none. These "
            "results say nothing about other prompts."
        )
    elif scope.prompts < FEW_PROMPTS:
        notes.append(
            f"There are only {count(scope.prompts, 'prompt')}. The intervals are wide, and approximate."
        )
    if unscored:
        notes.append(f"No text has a score of {joined(map(escape, unscored))}.")
    return notes

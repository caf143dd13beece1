"""What is recommended, and why: the sentences that end the command."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from cfg_lab.analysis.stats import Difference
from cfg_lab.study.formats import interval, joined, p_value, signed
from cfg_lab.suggest.evidence import Comparison

BEST = "best guided"
RUNNER_UP = "runner-up"
HAND_MADE = "hand-made"
PLAIN = "plain"
INSTRUCTIONS = ("instruction", "instruction not")

_SIGNIFICANT = 0.05

_IN_SENTENCES = {
    PLAIN: "plain decoding",
    "instruction": "an instruction in the prompt",
    "instruction not": "an instruction of what not to be",
    RUNNER_UP: "the runner-up",
    HAND_MADE: "the hand-made setting",
}


@dataclass(frozen=True, kw_only=True)
class Verdict:
    """What is recommended.

    Attributes:
        method: name of the recommended method: "best guided", one of `INSTRUCTIONS`, or "plain".
        sentences: the reasons, one statement each. The first one says what is shown and what is not.
    """

    method: Literal["best guided", "instruction", "instruction not", "plain"]
    sentences: tuple[str, ...]


def decide(
    rows: Sequence[Comparison],
    *,
    column: str,
    sign: int,
    prompts: tuple[int, int],
    prices: Mapping[str, Difference],
    broken: Sequence[str] = (),
) -> Verdict:
    """Decide by the held-out half what to recommend.

    - The best guided setting, if it is shown to be better than plain decoding and than every instruction.
    - Otherwise the best instruction that is shown to be better than plain decoding.
    - Otherwise the best guided setting, if it is shown to be better than plain decoding.
    - Otherwise plain decoding.

    Args:
        rows: one row per method, from `cfg_lab.suggest.evidence.compare` with the subject "best guided".
        column: the column of the aim.
        sign: 1 if high values are good, else -1.
        prompts: number of prompts of the choice, and of held-out prompts.
        prices: column -> difference of the best guided setting from plain decoding, on held-out prompts.
        broken: the limits that the best guided setting does not keep on the prompts of the choice.
    """
    by_method = {row.method: row for row in rows}
    simple = [method for method in (PLAIN, *INSTRUCTIONS) if method in by_method]
    shown = [method for method in simple if _is_better(by_method[method], sign)]
    not_shown = [method for method in simple if method not in shown]
    better_instructions = [
        method
        for method in simple
        if (gain := by_method[method].held_out) is not None and gain.p < _SIGNIFICANT and gain.mean * sign > 0
    ]
    sentences: list[str] = []
    if not_shown:
        sentences.append(
            f"Not shown on {prompts[1]} held-out prompts: that guidance is better than "
            f"{joined((_against(by_method[method]) for method in not_shown), 'or')}."
        )
    if shown:
        sentences.append(
            f"Shown on {prompts[1]} held-out prompts: guidance is better than "
            f"{joined(_against(by_method[method]) for method in shown)}."
        )
    method: Literal["best guided", "instruction", "instruction not", "plain"] = PLAIN
    if not not_shown or (PLAIN in shown and not better_instructions):
        method = BEST
    elif better_instructions:
        best = max(better_instructions, key=lambda name: sign * by_method[name].reward.mean)
        method = "instruction" if best == "instruction" else "instruction not"
    sentences += _details(by_method, column, prompts, prices, broken)
    return Verdict(method=method, sentences=tuple(sentences))


def _details(
    rows: Mapping[str, Comparison],
    column: str,
    prompts: tuple[int, int],
    prices: Mapping[str, Difference],
    broken: Sequence[str],
) -> list[str]:
    """The optimism of choosing, the price, and the other methods."""
    best = rows[BEST]
    sentences: list[str] = []
    if best.selection is not None and best.held_out is not None:
        chosen, held_out = difference_in_words(best.selection), difference_in_words(best.held_out)
        sentences.append(
            f"Over plain decoding, guidance changes {column} by {chosen} on the {prompts[0]} prompts of the "
            f"choice and by {held_out} on held-out prompts. Only the second number is evidence."
        )
    if prices:
        listed = joined(f"{name} {difference_in_words(difference)}" for name, difference in prices.items())
        sentences.append(f"Price of guidance on held-out prompts: {listed}, and two contexts instead of one.")
    for method in (*INSTRUCTIONS, RUNNER_UP, HAND_MADE):
        if method in rows and (gain := rows[method].held_out) is not None:
            name, words = _IN_SENTENCES[method], difference_in_words(gain)
            sentences.append(
                f"{name[0].upper()}{name[1:]} changes {column} by {words} over plain decoding "
                f"({p_value(gain.p)})."
            )
    if broken:
        sentences.append(
            f"No setting that was tried keeps the limits; the best guided one is beyond {joined(broken)}."
        )
    return sentences


def _is_better(row: Comparison, sign: int) -> bool:
    """Whether the best guided setting is shown to be better than a method."""
    difference = row.found_minus
    return difference is not None and row.p < _SIGNIFICANT and difference.mean * sign > 0


def _against(row: Comparison) -> str:
    """A method with the difference of the best guided setting from it."""
    assert row.found_minus is not None
    return f"{_IN_SENTENCES[row.method]} ({difference_in_words(row.found_minus)}, {p_value(row.p)})"


def difference_in_words(difference: Difference) -> str:
    """A difference with its interval: "+0.05 [0.01, 0.09]"."""
    return f"{signed(difference.mean)} {interval(difference.low, difference.high)}"

"""The files of a suggestion: negatives.yaml for `negatives=file`, and choice.json with all of the choice."""

from __future__ import annotations

import json
import math
from typing import Any

import yaml

from cfg_lab.analysis.stats import Difference
from cfg_lab.prompts.phrases import write_phrases
from cfg_lab.suggest.cells import Bench
from cfg_lab.suggest.choice import Choice
from cfg_lab.suggest.evidence import Evidence
from cfg_lab.suggest.ranking import Rank


def negatives_file(bench: Bench, choice: Choice, evidence: Evidence) -> str:
    """The content of negatives.yaml. It depends on the texts alone, not on times."""
    texts, tokens = choice.sampled
    content: dict[str, Any] = {
        "phrases": [
            {
                "phrase": phrase.text,
                "weight": phrase.weight,
                "origin": list(choice.origins[phrase.text]),
            }
            for phrase in choice.phrases
        ],
        **{key: value for key, value in bench.template.items() if value is not None},
        "evidence": {
            "aim": bench.aim,
            "scale": choice.rank.scale,
            "guidance": str(bench.config.hydra.runtime.choices.guidance),
            "model": bench.model.name,
            "conclusion": evidence.sentences(),
            "prompts": {"selection": evidence.prompts[0], "held_out": evidence.prompts[1]},
            "sampled_for_the_choice": {"texts": texts, "tokens": tokens},
            "methods": [
                {
                    "method": row.method,
                    "phrases": row.phrases,
                    "scale": _rounded(row.scale),
                    "kl_from_plain": _rounded(row.divergence.mean),
                    evidence.column: _rounded(row.reward.mean),
                    "change_on_selection": _difference(row.selection),
                    "change_on_held_out": _difference(row.held_out),
                    "found_minus_this": _difference(row.found_minus),
                    "p_holm": _rounded(row.p),
                }
                for row in evidence.rows
            ],
        },
    }
    head = f"# Found by: {bench.command}\n# Use: negatives=file negatives.path=<this file>\n"
    return head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True, width=110)


def choice_file(choice: Choice, evidence: Evidence, seconds: float) -> str:
    """The content of choice.json: candidates, rounds, sets, cost, and which cell is which method.

    Args:
        seconds: time that sampling took on the selection half.
    """
    texts, tokens = choice.sampled
    content = {
        "candidates": [
            {"phrase": phrase, "origins": choice.origins[phrase], **_rank(rank)}
            for phrase, rank in choice.ranks.items()
        ],
        "rounds": [{"prompts": of.prompts, "means": dict(of.means), "kept": of.kept} for of in choice.rounds],
        "sets": [
            {"phrases": write_phrases(subset.phrases), "change": _rounded(subset.reward)}
            for subset in choice.subsets
        ],
        "chosen": {"phrases": write_phrases(choice.phrases), **_rank(choice.rank)},
        "cells": {half: dict(cells) for half, cells in evidence.cells.items()},
        "cost": {
            "sampled_texts": texts,
            "sampled_tokens": tokens,
            "sampling_seconds": round(seconds, 1),
            "readings": choice.cost.forwards,
            "read_tokens": choice.cost.tokens,
            "reading_seconds": round(choice.cost.seconds, 1),
        },
    }
    return json.dumps(content, indent=1, ensure_ascii=False)


def _rank(rank: Rank) -> dict[str, float | None]:
    return {name: _rounded(value) for name, value in vars(rank).items()}


def _difference(difference: Difference | None) -> list[float | None] | None:
    """Mean and ends of the interval."""
    if difference is None:
        return None
    return [_rounded(value) for value in (difference.mean, difference.low, difference.high)]


def _rounded(value: float) -> float | None:
    return float(f"{value:.4g}") if math.isfinite(value) else None

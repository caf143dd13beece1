"""Verdicts on planned hypotheses, from scores whose truth is known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from experiments.hypotheses import Hypothesis, one_cell, p_value, planned_comparisons, planned_table

PROMPTS = 20


def scores(*cells: tuple[str, float, float]) -> pd.DataFrame:
    """Scores of cells (negatives, mean sentiment, mean leakage), with noise of standard deviation 0.1."""
    generator = np.random.default_rng(0)
    frames = [
        pd.DataFrame(
            {
                "cell": name,
                "negatives": name,
                "guidance.scale": 3.0,
                "prompt_id": [str(i) for i in range(PROMPTS)],
                "prompt": [f"prompt {i}" for i in range(PROMPTS)],
                "sample": 0,
                "sentiment": sentiment + generator.normal(0, 0.1, PROMPTS),
                "leakage": leakage + generator.normal(0, 0.1, PROMPTS),
            }
        )
        for name, sentiment, leakage in cells
    ]
    return pd.concat(frames, ignore_index=True)


def verdict(sentiment: float, leakage: float) -> str:
    """The verdict on a claim, if the cell differs from its baseline by these amounts."""
    planned = planned_comparisons(
        scores(("a", sentiment, leakage), ("b", 0, 0)),
        [
            Hypothesis(
                key="H1",
                claim="a beats b",
                cell={"negatives": "a"},
                baseline={"negatives": "b"},
                metrics=["sentiment", "leakage"],
            )
        ],
    )
    assert len(set(planned["verdict"])) == 1
    return planned["verdict"][0]


def test_a_verdict_knows_which_direction_of_a_metric_is_better() -> None:
    assert verdict(0.5, 0) == verdict(0, -0.5) == verdict(0.5, -0.5) == "supported"
    assert verdict(-0.5, 0) == verdict(0, 0.5) == verdict(-0.5, 0.5) == "contradicted"
    assert verdict(0.5, 0.5) == verdict(-0.5, -0.5) == "mixed"
    assert verdict(0, 0) == "not supported"


def test_p_values_are_corrected_over_all_planned_tests() -> None:
    results = scores(("a", 0.15, 0), ("b", 0, 0), ("c", 0.02, 0.01))
    hypotheses = [
        Hypothesis(
            key=f"H{name}",
            claim=name,
            cell={"guidance.scale": "3", "negatives": name},
            baseline={"negatives": "b"},
            metrics=["sentiment", "leakage"] if name == "a" else ["sentiment"],
        )
        for name in ("a", "c")
    ]
    planned = planned_comparisons(results, hypotheses)
    assert list(planned["key"]) == ["Ha", "Ha", "Hc"]
    assert planned["p_holm"].min() == pytest.approx(3 * planned["p"].min())
    table = planned_table(planned).splitlines()
    assert table[0] == "|  | hypothesis | n | sentiment | leakage | verdict |"
    assert table[3].startswith(f"| Hc | c | {PROMPTS} | ")
    assert table[3].endswith(" |  | not supported |")  # no test of leakage


def test_settings_must_name_one_cell() -> None:
    results = scores(("a", 0, 0), ("b", 0, 0))
    assert one_cell(results, {"negatives": "b", "guidance.scale": 3}) == "b"
    for settings in ({"guidance.scale": 3}, {"negatives": "c"}):
        with pytest.raises(SystemExit, match="not one"):
            one_cell(results, settings)


def test_p_values_in_words() -> None:
    assert [p_value(p) for p in (0.0004, 0.0132, 1.2, float("nan"))] == [
        "p < 0.001",
        "p = 0.013",
        "p = 1",
        "p unknown",
    ]

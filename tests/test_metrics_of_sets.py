"""Metrics of all texts of a cell: values a text, whose mean is the set's number."""

from __future__ import annotations

import math
import warnings
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from cfg_lab import Prompt
from cfg_lab.analysis.stats import mean_interval
from cfg_lab.errors import InputError
from cfg_lab.metrics import Mauve, SelfBleu, Vendi, scored_together
from cfg_lab.metrics.jackknife import spread
from cfg_lab.metrics.mauve import mauve_area
from tests.texts import Embeds, of, text


def test_a_jackknifed_mean_is_the_mean_with_its_usual_interval() -> None:
    """Law: of a mean over prompts, the jackknife gives what the texts' own values give."""
    values = [0.1, 0.7, 0.4, 0.9, 0.2, 0.3]
    texts = [*of("a", "1", "2"), *of("b", "3", "4"), *of("c", "5", "6")]
    clusters = [one.prompt.id for one in texts]
    spread_out = mean_interval(spread(texts, lambda p: float(np.mean([values[i] for i in p]))), clusters)
    direct = mean_interval(values, clusters)
    assert (spread_out.mean, spread_out.low, spread_out.high) == pytest.approx(
        (direct.mean, direct.low, direct.high)
    )


def test_the_mean_over_texts_is_the_statistic_also_of_uneven_prompts() -> None:
    texts = [*of("a", "1", "2", "3"), *of("b", "4"), *of("c", "5", "6")]
    values = spread(texts, lambda places: float(np.prod([place + 1 for place in places])))
    assert np.mean(values) == pytest.approx(720)
    alone = of("a", "1", "2")
    assert math.isnan(mean_interval(spread(alone, lambda places: 3.0), ["a", "a"]).low)


def test_self_bleu() -> None:
    same, other = "the cat sat on the mat", "a dog ran over hills today"
    texts = [*of("p", same, same), *of("q", same, other), *of("r", "", "")]
    scores = SelfBleu().score(texts)
    pair = BLEU(effective_order=True).sentence_score(same, [other]).score / 100
    assert scores["self_bleu"] == pytest.approx([1, 1, pair, pair, 1, 1])  # equal and empty texts are alike
    # Ordered pairs of texts of different prompts: 24, of which p and q's equal ones are 4.
    back = BLEU(effective_order=True).sentence_score(other, [same]).score / 100
    assert np.mean(scores["self_bleu_across"]) == pytest.approx((4 + 2 * pair + 2 * back) / 24)
    alone = SelfBleu().score(of("p", same))
    assert math.isnan(alone["self_bleu"][0])
    assert math.isnan(alone["self_bleu_across"][0])


def test_the_vendi_score_counts_different_texts() -> None:
    embeds = Embeds({"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "xy": [1, 1, 0]}, size=3)
    scores = Vendi(lambda: embeds).score([*of("p", "x", "x"), *of("q", "y", "z"), *of("r", "x")])
    assert scores["vendi"][:4] == pytest.approx([1, 1, 2, 2])
    assert math.isnan(scores["vendi"][4])
    # shares 3/5, 1/5, 1/5
    entropy = -(0.6 * math.log(0.6) + 2 * 0.2 * math.log(0.2))
    assert np.mean(scores["vendi_across"]) == pytest.approx(math.exp(entropy))
    # cosine c: eigenvalues (1 ± c)/2
    high, low = (1 + 2**-0.5) / 2, (1 - 2**-0.5) / 2
    expected = math.exp(-(high * math.log(high) + low * math.log(low)))
    assert Vendi(lambda: embeds).score(of("p", "x", "xy"))["vendi"] == pytest.approx([expected] * 2)


def test_mauve_area() -> None:
    half = np.array([0.5, 0.5])
    assert mauve_area(half, half) == pytest.approx(1)
    # Apart, KL(P|R) is -log λ and KL(Q|R) -log(1-λ): the curve is (1-λ)^5, λ^5, its area ∫ 5 λ^5 (1-λ)^4 dλ.
    assert mauve_area(np.array([1.0, 0.0]), np.array([0.0, 1.0])) == pytest.approx(
        5 * math.factorial(5) * math.factorial(4) / math.factorial(10), abs=1e-3
    )


def test_mauve_equals_the_authors_program_on_clear_clusters() -> None:
    compute = pytest.importorskip("mauve").compute_mauve
    rng = np.random.default_rng(0)
    centres = np.eye(4)

    def draw(shares: list[float]) -> np.ndarray:
        labels = np.repeat(np.arange(4), [round(40 * share) for share in shares])
        points = centres[labels] + 1e-3 * rng.normal(size=(40, 4))
        return points / np.linalg.norm(points, axis=1, keepdims=True)

    p, q = draw([0.25, 0.25, 0.25, 0.25]), draw([0.7, 0.1, 0.1, 0.1])
    theirs = compute(p_features=p, q_features=q, num_buckets=4, verbose=False).mauve
    embeds = Embeds({f"t{i}": row for i, row in enumerate([*p, *q])}, size=4)
    texts = [text(f"t{i}", prompt=Prompt(id=str(i), text="?", reference=f"t{40 + i}")) for i in range(len(p))]
    ours = Mauve(lambda: embeds, min_texts=40).score(texts)["mauve"]
    assert np.mean(ours) == pytest.approx(theirs, abs=1e-6)
    interval = mean_interval(ours, [one.prompt.id for one in texts])
    assert interval.low < theirs < interval.high


def test_mauve_of_too_few_texts_is_nan_and_says_so(tmp_path: Path) -> None:
    references = tmp_path / "references.txt"
    references.write_text("one\ntwo\n\n")
    metric = Mauve(lambda: Embeds({}), references=str(references))
    with pytest.warns(
        UserWarning, match=r"3 texts and 2 references, .* at least metrics\.mauve\.min_texts=100"
    ):
        scores = metric.score(of("p", "a", "b", "c"))
    assert np.isnan(scores["mauve"]).all()
    with pytest.raises(InputError, match=r"metrics\.mauve\.references is 'nowhere'"):
        Mauve(lambda: Embeds({}), references="nowhere")
    with pytest.raises(InputError, match=r"min_texts must be at least 20, got 5"):
        Mauve(lambda: Embeds({}), min_texts=5)


def test_they_say_that_they_need_the_set_and_score_nothing() -> None:
    for metric in (SelfBleu(), Vendi(lambda: Embeds({})), Mauve(lambda: Embeds({}))):
        assert scored_together(metric)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert all(values == [] for values in metric.score([]).values())

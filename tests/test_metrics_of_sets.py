"""Metrics of all texts of a cell give one value per text, whose mean is the number of the cell."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from sacrebleu.metrics.bleu import BLEU

from cfg_lab import Prompt
from cfg_lab.analysis.stats import mean_interval
from cfg_lab.errors import InputError
from cfg_lab.metrics import Length, Mauve, SelfBleu, Vendi, needs_whole_cell
from cfg_lab.metrics.jackknife import pseudo_values
from cfg_lab.metrics.mauve import mauve_area
from tests.texts import FakeEmbedder, samples_of, text


def test_a_jackknifed_mean_is_the_mean_with_its_usual_interval() -> None:
    """Law: for a mean, the jackknife gives the same mean and interval as the values themselves."""
    values = [0.1, 0.7, 0.4, 0.9, 0.2, 0.3]
    texts = [*samples_of("a", "1", "2"), *samples_of("b", "3", "4"), *samples_of("c", "5", "6")]
    clusters = [sample.prompt.id for sample in texts]
    jackknifed = pseudo_values(texts, lambda indices: float(np.mean([values[i] for i in indices])))
    estimate = mean_interval(jackknifed, clusters)
    direct = mean_interval(values, clusters)
    assert (estimate.mean, estimate.low, estimate.high) == pytest.approx(
        (direct.mean, direct.low, direct.high)
    )


def test_the_mean_over_texts_is_the_statistic_also_if_prompts_have_different_numbers_of_texts() -> None:
    texts = [*samples_of("a", "1", "2", "3"), *samples_of("b", "4"), *samples_of("c", "5", "6")]
    values = pseudo_values(texts, lambda indices: float(np.prod([index + 1 for index in indices])))
    assert np.mean(values) == pytest.approx(720)
    one_prompt = samples_of("a", "1", "2")
    estimate = mean_interval(pseudo_values(one_prompt, lambda indices: 3.0), ["a", "a"])
    assert estimate.mean == 3
    assert math.isnan(estimate.low)


def test_duplicates_of_prompts_change_no_metric_of_the_cell() -> None:
    """Law: a prompt that is given several times has equal texts, which add no evidence."""
    words = {"p": ["a cat sat on the mat", "the dog ran"], "q": ["a cat ran", "rain fell"], "r": ["so", "no"]}
    once = [sample for prompt, texts in words.items() for sample in samples_of(prompt, *texts)]
    vectors = {sample.text: np.random.default_rng(n).normal(size=4) for n, sample in enumerate(once)}
    metrics = (SelfBleu(), Vendi(embedder=lambda: FakeEmbedder(vectors, size=4)))
    several = [
        replace(sample, prompt=replace(sample.prompt, id=f"{sample.prompt.id}-{copy}"))
        for copy in range(3)
        for sample in once
    ]
    clusters = [sample.prompt.text for sample in once]
    for metric in metrics:
        scores, scores_of_several = metric.score(once), metric.score(several)
        for column, values in scores.items():
            assert scores_of_several[column] == pytest.approx(values * 3), column
            expected = mean_interval(values, clusters)
            estimate = mean_interval(scores_of_several[column], clusters * 3)
            assert (estimate.low, estimate.high) == pytest.approx((expected.low, expected.high))


def test_self_bleu_by_hand() -> None:
    same, other = "the cat sat on the mat", "a dog ran over hills today"
    texts = [*samples_of("p", same, same), *samples_of("q", same, other), *samples_of("r", "", "")]
    scores = SelfBleu().score(texts)
    pair = BLEU(effective_order=True).sentence_score(same, [other]).score / 100
    assert scores["self_bleu"] == pytest.approx(
        [1, 1, pair, pair, 1, 1]
    )  # equal texts and empty texts have 1
    # There are 24 ordered pairs of texts of different prompts. In 4 of them, of p and q, the texts are equal.
    back = BLEU(effective_order=True).sentence_score(other, [same]).score / 100
    assert np.mean(scores["self_bleu_across"]) == pytest.approx((4 + 2 * pair + 2 * back) / 24)
    single = SelfBleu().score(samples_of("p", same))
    assert math.isnan(single["self_bleu"][0])
    assert math.isnan(single["self_bleu_across"][0])
    two_prompts = SelfBleu().score([*samples_of("p", same), *samples_of("q", other)])
    assert np.isnan(two_prompts["self_bleu_across"]).all()


def test_the_vendi_score_counts_different_texts() -> None:
    embedder = FakeEmbedder({"x": [1, 0, 0], "y": [0, 1, 0], "z": [0, 0, 1], "xy": [1, 1, 0]}, size=3)
    scores = Vendi(embedder=lambda: embedder).score(
        [*samples_of("p", "x", "x"), *samples_of("q", "y", "z"), *samples_of("r", "x")]
    )
    assert scores["vendi"][:4] == pytest.approx([1, 1, 2, 2])
    assert math.isnan(scores["vendi"][4])
    # The eigenvalues are 3/5, 1/5 and 1/5.
    entropy = -(0.6 * math.log(0.6) + 2 * 0.2 * math.log(0.2))
    assert np.mean(scores["vendi_across"]) == pytest.approx(math.exp(entropy))
    # Two texts of cosine c have the eigenvalues (1 ± c)/2.
    high, low = (1 + 2**-0.5) / 2, (1 - 2**-0.5) / 2
    expected = math.exp(-(high * math.log(high) + low * math.log(low)))
    assert Vendi(embedder=lambda: embedder).score(samples_of("p", "x", "xy"))["vendi"] == pytest.approx(
        [expected] * 2
    )


def test_the_area_of_mauve_by_hand() -> None:
    half = np.array([0.5, 0.5])
    assert mauve_area(half, half) == pytest.approx(1)
    # If P and Q share no cluster, KL(P|R) is -log λ and KL(Q|R) is -log(1-λ). So the curve is ((1-λ)^5, λ^5),
    # and its area is ∫ 5 λ^5 (1-λ)^4 dλ.
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
    reference = compute(p_features=p, q_features=q, num_buckets=4, verbose=False).mauve
    embedder = FakeEmbedder({f"t{i}": row for i, row in enumerate([*p, *q])}, size=4)
    texts = [
        text(f"t{i}", prompt=Prompt(id=str(i), text=f"{i}?", references=(f"t{40 + i}",)))
        for i in range(len(p))
    ]
    scores = Mauve(embedder=lambda: embedder, min_texts=40).score(texts)["mauve"]
    assert np.mean(scores) == pytest.approx(reference, abs=1e-6)
    interval = mean_interval(scores, [sample.prompt.id for sample in texts])
    assert interval.low < reference < interval.high


def test_mauve_of_too_few_texts_is_nan_and_says_so(tmp_path: Path) -> None:
    references = tmp_path / "references.txt"
    references.write_text("one\ntwo\n\n")
    metric = Mauve(embedder=lambda: FakeEmbedder({}), references=str(references))
    with pytest.warns(
        UserWarning, match=r"3 texts and 2 references, .* at least metrics\.mauve\.min_texts=100"
    ):
        scores = metric.score(samples_of("p", "a", "b", "c"))
    assert np.isnan(scores["mauve"]).all()
    with pytest.raises(InputError, match=r"metrics\.mauve\.references is 'nowhere'"):
        Mauve(embedder=lambda: FakeEmbedder({}), references="nowhere")
    with pytest.raises(InputError, match=r"min_texts must be at least 20, got 5"):
        Mauve(embedder=lambda: FakeEmbedder({}), min_texts=5)


def test_metrics_of_sets_need_the_whole_cell_and_score_no_texts_without_a_warning() -> None:
    for metric in (
        SelfBleu(),
        Vendi(embedder=lambda: FakeEmbedder({})),
        Mauve(embedder=lambda: FakeEmbedder({})),
    ):
        assert needs_whole_cell(metric)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            assert metric.score([]) == {column: [] for column in metric.columns}
    assert not needs_whole_cell(Length())

"""Laws of sampling and its noise."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from scipy.stats import chisquare, kstest
from transformers import (
    LogitsProcessorList,
    MinPLogitsWarper,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from cfg_lab import BeamSearch, Greedy, Sampling
from cfg_lab.decoding.sampling import SamplingSettings, _truncate, gumbel, nucleus_sampling, position_keys
from cfg_lab.errors import InputError
from cfg_lab.guidance.log_probs import FLOOR


def logits(rows: int, vocab: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return (torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread).log_softmax(-1)


@pytest.mark.parametrize("vocab", [7, 300, 5000])
@pytest.mark.parametrize(
    "settings",
    [
        {"temperature": 0.7, "top_p": 0.9},
        {"temperature": 1.5, "top_p": 0.99},
        {"top_k": 5},
        {"top_k": 50, "top_p": 0.5, "min_p": 0.05, "temperature": 2.0},
        {"min_p": 0.1},
        {"top_p": 0.01},
    ],
)
def test_truncation_equals_that_of_transformers(vocab: int, settings: dict[str, Any]) -> None:
    scores = logits(6, vocab, spread=1.0)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(settings.get("temperature", 1.0))])
    if "top_k" in settings:
        warpers.append(TopKLogitsWarper(settings["top_k"]))
    if "top_p" in settings:
        warpers.append(TopPLogitsWarper(settings["top_p"]))
    if "min_p" in settings:
        warpers.append(MinPLogitsWarper(settings["min_p"]))
    expected = ~warpers(torch.zeros(6, 1, dtype=torch.long), scores.clone()).isneginf()
    assert vocab == 7 or not expected.all()  # of so few tokens perhaps none is cut
    sampling = Sampling(**settings)
    truncated, tokens = _truncate(
        scores / sampling.temperature, SamplingSettings.of([sampling] * 6, scores.device)
    )
    survives = torch.zeros_like(expected).scatter(1, tokens, ~truncated.isneginf())
    assert torch.equal(survives, expected)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(temperature=2.0, top_p=0.8)])
def test_draws_follow_the_truncated_distribution(sampling: Sampling) -> None:
    row = logits(1, 6, seed=3, spread=1.0)
    draws = 20_000
    keys = position_keys(torch.arange(draws), torch.zeros(draws, dtype=torch.long))
    chosen = sampling.choose(row.expand(draws, -1), keys)
    truncated, tokens = _truncate(row / sampling.temperature, SamplingSettings.of([sampling], row.device))
    probs = truncated[0].double().softmax(-1)
    expected = torch.zeros(6, dtype=torch.double).scatter(0, tokens[0], probs) * draws
    counts = chosen.bincount(minlength=6)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible].double(), expected[possible]).pvalue > 0.001


def test_noise_is_gumbel_and_a_function_of_key_and_token_alone() -> None:
    keys = position_keys(torch.arange(200), torch.arange(200) % 7)
    noise = gumbel(keys, torch.arange(300))
    assert kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 0.001
    subset = torch.tensor([[4, 250, 17]]).expand(200, -1)
    assert torch.equal(gumbel(keys, subset), noise[:, [4, 250, 17]])
    assert torch.equal(gumbel(keys[50:60], torch.arange(300)), noise[50:60])
    correlations = torch.corrcoef(noise[:, :50].T)
    assert (correlations - torch.eye(50)).abs().max() < 0.35
    assert len(set(noise.flatten().tolist())) > 0.99 * noise.numel()  # keys and positions do not repeat


def test_the_same_request_has_other_noise_at_every_position() -> None:
    keys = position_keys(torch.zeros(300, dtype=torch.long), torch.arange(300))
    assert len(set(keys.tolist())) == 300
    noise = gumbel(keys, torch.arange(200))
    assert kstest(noise[:, 0].numpy(), "gumbel_r").pvalue > 0.001
    assert torch.corrcoef(torch.stack([noise[:-1].flatten(), noise[1:].flatten()]))[0, 1].abs() < 0.02


def test_greedy_takes_the_lowest_id_of_equally_likely_tokens() -> None:
    scores = torch.tensor([[0.1, 0.3, 0.3, 0.3], [0.4, 0.1, 0.1, 0.4]]).log()
    assert Greedy().choose(scores, torch.zeros(2, dtype=torch.long)).tolist() == [1, 0]


@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.9999}, {"min_p": 1e-9}])
def test_an_impossible_token_is_never_drawn(settings: dict[str, Any]) -> None:
    scores = logits(1, 6).expand(2000, -1).clone()
    scores[:, [1, 4]] = FLOOR
    tokens = Sampling(temperature=1e6, **settings).choose(scores, torch.arange(2000))
    assert set(tokens.tolist()) == {0, 2, 3, 5}


def test_nucleus_sampling_is_sampling_with_other_defaults() -> None:
    assert nucleus_sampling() == Sampling(temperature=0.8, top_p=0.95)
    values: dict[str, Any] = {"temperature": 1.5, "top_k": 7, "top_p": 0.5, "min_p": 0.25}
    assert nucleus_sampling(**values) == Sampling(**values)
    scores, keys = logits(50, 400), torch.arange(50)
    untouched = (scores + gumbel(keys, torch.arange(400))).argmax(-1)
    assert torch.equal(Sampling().choose(scores, keys), untouched)  # the defaults change nothing


def test_top_1_is_greedy() -> None:
    scores = logits(50, 400)
    keys = torch.arange(50)
    greedy = Greedy().choose(scores, keys)
    assert torch.equal(Sampling(top_k=1, temperature=3.0).choose(scores, keys), greedy)
    assert torch.equal(Sampling(top_p=1e-6).choose(scores, keys), greedy)
    assert torch.equal(Sampling(temperature=1e-4).choose(scores, keys), greedy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"temperature": 0}, "sampling.temperature must be a number above 0, got 0"),
        ({"temperature": "hot"}, "got 'hot'"),
        ({"temperature": True}, "got True"),
        ({"temperature": float("inf")}, "got inf"),
        ({"top_p": 0}, r"sampling.top_p must be a number in \(0, 1\], got 0"),
        ({"top_p": 1.2}, "got 1.2"),
        ({"top_p": float("nan")}, "got nan"),
        ({"top_k": -1}, "sampling.top_k must be a whole number"),
        ({"top_k": 2.5}, "got 2.5"),
        ({"min_p": -0.1}, "sampling.min_p must be a number in"),
    ],
)
def test_bad_settings_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Sampling(**settings)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "sampling.width must be a whole number of at least 1, got 0"),
        ({"width": "wide"}, "got 'wide'"),
        ({"n_best": 0}, "sampling.n_best must be a whole number from 1 to sampling.width, got 0"),
        ({"n_best": 5}, "got 5"),
        ({"early_stopping": "never"}, "sampling.early_stopping must be true or false, got 'never'"),
    ],
)
def test_bad_settings_of_a_beam_search_are_named(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        BeamSearch(**settings)

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

from cfg_lab import Greedy, Sampling
from cfg_lab.decoding.sampling import gumbel, position_keys
from cfg_lab.errors import InputError


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
def test_truncation_is_transformers(vocab: int, settings: dict[str, Any]) -> None:
    scores = logits(6, vocab, spread=1.0)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(settings.get("temperature", 1.0))])
    if "top_k" in settings:
        warpers.append(TopKLogitsWarper(settings["top_k"]))
    if "top_p" in settings:
        warpers.append(TopPLogitsWarper(settings["top_p"]))
    if "min_p" in settings:
        warpers.append(MinPLogitsWarper(settings["min_p"]))
    theirs = ~warpers(torch.zeros(6, 1, dtype=torch.long), scores.clone()).isneginf()
    sampling = Sampling(**settings)
    kept, tokens = sampling._truncate(scores / sampling.temperature)
    ours = torch.zeros_like(theirs).scatter(1, tokens, ~kept.isneginf())
    assert torch.equal(ours, theirs)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(temperature=2.0, top_p=0.8)])
def test_draws_follow_the_truncated_distribution(sampling: Sampling) -> None:
    row = logits(1, 6, seed=3, spread=1.0)
    draws = 20_000
    keys = position_keys(torch.arange(draws), torch.zeros(draws, dtype=torch.long))
    chosen = sampling.choose(row.expand(draws, -1), keys)
    kept, tokens = sampling._truncate(row / sampling.temperature)
    expected = torch.zeros(6, dtype=torch.double).scatter(0, tokens[0], kept[0].double().softmax(-1)) * draws
    counts = chosen.bincount(minlength=6)
    assert counts[expected == 0].sum() == 0
    seen = expected > 0
    assert chisquare(counts[seen].double(), expected[seen]).pvalue > 0.001


def test_noise_is_gumbel_and_a_function_of_key_and_token_alone() -> None:
    keys = position_keys(torch.arange(200), torch.arange(200) % 7)
    noise = gumbel(keys, torch.arange(300))
    assert kstest(noise.flatten().numpy(), "gumbel_r").pvalue > 0.001
    some = torch.tensor([[4, 250, 17]]).expand(200, -1)
    assert torch.equal(gumbel(keys, some), noise[:, [4, 250, 17]])
    assert torch.equal(gumbel(keys[50:60], torch.arange(300)), noise[50:60])
    columns = torch.corrcoef(noise[:, :50].T)
    assert (columns - torch.eye(50)).abs().max() < 0.35


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

"""Laws of sampling and its noise."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import product
from typing import Any

import numpy as np
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
from cfg_lab.decoding.noise import FastNoise, gumbel, position_keys
from cfg_lab.decoding.sampling import SamplingSettings, draw, draw_on_device, nucleus_sampling
from cfg_lab.decoding.truncation import truncate
from cfg_lab.errors import InputError
from cfg_lab.guidance.log_probs import FLOOR, log_probs

CPU = torch.device("cpu")
Draw = Callable[[torch.Tensor, torch.Tensor, SamplingSettings], torch.Tensor]
both_paths = pytest.mark.parametrize("path", [draw, draw_on_device], ids=["cpu", "device"])
CUT = 1e-6
"""Two sums of float32 probabilities can differ by this much, so that a cut this near to top_p may move."""


def logits(rows: int, vocab: int, seed: int = 0, spread: float = 3.0) -> torch.Tensor:
    return (torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed)) * spread).log_softmax(-1)


def keys_of(rows: int, seed: int = 0) -> torch.Tensor:
    return position_keys(torch.arange(rows) + 1000 * seed, torch.zeros(rows, dtype=torch.long))


def survivors(scores: torch.Tensor, sampling: Sampling, more: float = 0.0) -> list[int]:
    """The ids that truncation keeps, likeliest first: one row, by a stable sort and in float64.

    `more` is added to top_p.
    """
    ids = torch.sort(scores, descending=True, stable=True).indices[: sampling.top_k or None]
    probs = scores[ids].double().softmax(-1)
    kept = torch.ones(len(ids), dtype=torch.bool)
    if sampling.top_p < 1:
        kept &= probs.cumsum(-1) - probs < float(np.float32(sampling.top_p)) + more
    if sampling.min_p:
        kept &= scores[ids] >= scores[ids[0]] + np.float32(math.log(np.float32(sampling.min_p)))
    kept[0] = True
    return ids[kept].tolist()


def plain_draws(scores: torch.Tensor, key: torch.Tensor, sampling: Sampling) -> set[int]:
    """The tokens that the formula allows for one row: one, or more if the cut of top-p is within rounding."""
    tokens: set[int] = set()
    for more in (-CUT, 0, CUT) if sampling.top_p < 1 else (0,):
        ids = torch.tensor(survivors(scores, sampling, more))
        if sampling == Sampling(temperature=sampling.temperature):
            ids = ids.sort().values  # nothing is truncated: of equal sums the lowest id
        tokens.add(int(ids[(scores[ids] + gumbel(key[None], ids)[0]).argmax()]))
    return tokens


def distributions(vocab: int) -> dict[str, torch.Tensor]:
    """Two rows [2, vocab] of each kind of distribution."""
    random = logits(2, vocab, seed=vocab)
    padded, rare = random.clone(), random.clone()
    padded[:, vocab - vocab // 3 :] = -math.inf
    rare[torch.rand(2, vocab, generator=torch.Generator().manual_seed(1)) < 0.9] = -math.inf
    rare[:, vocab // 2] = 0.0
    only = torch.full((2, vocab), -math.inf)
    only[:, vocab // 2] = 0.0
    kinds = {
        "random": random,
        "peaked": logits(2, vocab, spread=12.0),
        "nearly flat": logits(2, vocab, spread=0.1),
        "flat": torch.zeros(2, vocab),
        "tied": (random * 2).round() / 2,
        "two values": (random > random.median()).float(),
        "padded": padded,
        "rare": rare,
        "one token": only,
    }
    return {name: log_probs(values) for name, values in kinds.items()}


SETTINGS = [
    Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)
    for temperature, top_k, top_p, min_p in product(
        (0.05, 1.7), (0, 1, 7, 400), (1.0, 0.95, 0.3, 1e-6), (0.0, 0.02, 1.0)
    )
]


@both_paths
@pytest.mark.parametrize("vocab", [1, 7, 1500])
def test_a_draw_is_the_plain_formula_on_the_survivors(path: Draw, vocab: int) -> None:
    """For every kind of distribution and all settings, rows with other settings in one call."""
    ambiguous = 0
    for seed, (_, rows) in enumerate(distributions(vocab).items()):
        samplings = [sampling for sampling in SETTINGS for _ in range(len(rows))]
        repeated = rows.repeat(len(SETTINGS), 1)
        keys = keys_of(len(repeated), seed)
        tokens = path(repeated, keys, SamplingSettings.of(samplings, CPU)).tolist()
        for row, key, sampling, token in zip(repeated, keys, samplings, tokens, strict=True):
            scores = (row / sampling.temperature).masked_fill(row <= FLOOR, -math.inf)
            allowed = plain_draws(scores, key, sampling)
            ambiguous += len(allowed) > 1
            assert token in allowed, sampling
    assert ambiguous < 0.02 * len(SETTINGS) * 18


@both_paths
@pytest.mark.parametrize("settings", [{}, {"top_p": 0.9}, {"top_k": 900}])
@pytest.mark.parametrize("height", [0.0, -30.0, -9_000.0])
@pytest.mark.parametrize(("vocab", "least_noise"), [(1000, -9.0), (60_000, 8.0)])
def test_near_ties_of_noisy_scores_are_decided_by_the_plain_formula(
    path: Draw, settings: dict[str, Any], height: float, vocab: int, least_noise: float
) -> None:
    """The scores are made so that the sums of all tokens are equal or differ in their last bits.

    With `least_noise` only the sums of the tokens with the largest noise, whose noise is bounded best.
    """
    count = 40_000 // vocab + 5
    keys = keys_of(count)
    ulps = torch.randint(-2, 3, (count, vocab), generator=torch.Generator().manual_seed(2))
    noise = gumbel(keys, torch.arange(vocab))
    scores = height - noise
    scores = scores + ulps * (torch.nextafter(scores, torch.tensor(math.inf)) - scores)
    scores[noise < least_noise] -= 20.0
    sampling = Sampling(**settings)
    tokens = path(scores, keys, SamplingSettings.of([sampling] * count, CPU)).tolist()
    for row, key, token in zip(scores, keys, tokens, strict=True):
        assert token in plain_draws(row, key, sampling)


def test_a_draw_does_not_depend_on_the_other_rows_or_on_the_number_of_threads() -> None:
    rows, keys = logits(30, 500), keys_of(30)
    samplings = [SETTINGS[7 * number % len(SETTINGS)] for number in range(30)]
    together = draw(rows, keys, SamplingSettings.of(samplings, CPU))
    threads = torch.get_num_threads()
    try:
        torch.set_num_threads(3)
        assert torch.equal(draw(rows, keys, SamplingSettings.of(samplings, CPU)), together)
    finally:
        torch.set_num_threads(threads)
    for number, sampling in enumerate(samplings):
        row = slice(number, number + 1)
        assert sampling.choose(rows[row], keys[row]).equal(together[row])
    assert draw(rows[:0], keys[:0], SamplingSettings.of([], CPU)).shape == (0,)


@pytest.mark.parametrize("vocab", [1, 7, 1500])
def test_truncation_keeps_the_lower_ids_of_equally_likely_tokens(vocab: int) -> None:
    for rows in distributions(vocab).values():
        rows = rows.masked_fill(rows <= FLOOR, -math.inf)
        for sampling in SETTINGS:
            settings = SamplingSettings.of([sampling] * len(rows), CPU)
            kept = truncate(rows, settings.top_k, settings.top_p, settings.min_p)
            for scores, row in zip(rows, kept, strict=True):
                at_least, at_most = (set(survivors(scores, sampling, more)) for more in (-CUT, CUT))
                impossible = set(scores.isneginf().nonzero()[:, 0].tolist())
                result = set((~row.isneginf()).nonzero()[:, 0].tolist())
                assert at_least - impossible <= result <= at_most
                assert torch.equal(row[list(result)], scores[list(result)])


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
    settings_of_rows = SamplingSettings.of([Sampling(**settings)] * 6, CPU)
    kept = truncate(scores / settings_of_rows.temperature[:, None], *settings_of_rows[1:4])
    assert torch.equal(~kept.isneginf(), expected)


@both_paths
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(top_k=3), Sampling(temperature=2.0, top_p=0.8)])
def test_draws_follow_the_truncated_distribution(path: Draw, sampling: Sampling) -> None:
    row = logits(1, 6, seed=3, spread=1.0)
    draws = 20_000 if path is draw else 4_000
    chosen = path(row.expand(draws, -1), keys_of(draws), SamplingSettings.of([sampling] * draws, CPU))
    scores = row[0] / sampling.temperature
    kept = survivors(scores, sampling)
    expected = torch.zeros(6, dtype=torch.double)
    expected[kept] = scores[kept].double().softmax(-1) * draws
    counts = chosen.bincount(minlength=6)
    possible = expected > 0
    assert counts[~possible].sum() == 0
    assert chisquare(counts[possible].double(), expected[possible]).pvalue > 0.001


def test_the_fast_bounds_of_the_noise_hold() -> None:
    """Also where u is nearest to 0 and 1."""
    noise, ids = FastNoise(5000), torch.arange(5000)
    for key in (*keys_of(200).tolist(), 0, -1, 2**63 - 1, -(2**63)):
        # 1 - u = 1 - exp(-exp(-gumbel)), as exact as the float32 noise is
        complements = -(-(-gumbel(torch.tensor([key]), ids)[0].double()).exp()).expm1() * 2.0**32
        bounds = torch.from_numpy(noise.least_complements(key, None)).double()
        assert (bounds <= complements * (1 + 1e-5)).all()
        assert (complements <= (bounds + 6) * (1 + 1e-5) + 1e-5 * complements).all()
        some = np.array([0, 17, 4999])
        assert noise.least_complements(key, some).tolist() == bounds[some].tolist()


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


@both_paths
@pytest.mark.parametrize("settings", [{}, {"top_k": 5}, {"top_p": 0.9999}, {"min_p": 1e-9}])
@pytest.mark.parametrize("temperature", [1e6, 1e300])
def test_an_impossible_token_is_never_drawn(path: Draw, settings: dict[str, Any], temperature: float) -> None:
    scores = logits(1, 6).expand(2000, -1).clone()
    scores[:, [1, 4]] = FLOOR
    sampling = Sampling(temperature=temperature, **settings)
    tokens = path(scores, torch.arange(2000), SamplingSettings.of([sampling] * 2000, CPU))
    assert set(tokens.tolist()) == {0, 2, 3, 5}


@both_paths
def test_a_distribution_of_nan_gives_a_token_that_the_decoder_can_refuse(path: Draw) -> None:
    scores = logits(3, 6)
    scores[1] = math.nan
    tokens = path(scores, keys_of(3), SamplingSettings.of([Sampling(top_p=0.9)] * 3, CPU))
    assert 0 <= int(tokens[1]) < 6
    assert tokens[::2].equal(Sampling(top_p=0.9).choose(scores[::2], keys_of(3)[::2]))


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
    assert torch.equal(Sampling(temperature=1e-45).choose(scores, keys), greedy)


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

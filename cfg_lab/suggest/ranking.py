"""Ranks negatives without sampling: how much more likely does guidance make good texts than bad ones?

1. Plain texts of each prompt are scored. Those above the median reward of their prompt are good, those below
   it bad. So the prompt, which moves rewards more than anything else, is the same on both sides.
2. Every text is read once after each negative context (teacher forcing). This gives log π_γ of the text under
   each scale γ of a grid.
3. The gain of a negative is

       mean over prompts of  mean_good(v) - mean_bad(v),   v = (log π_γ(text) - log π_1(text)) / tokens

   where π_1 is plain decoding. It is 0 for a negative whose context equals the prompt's.
4. The divergence of a negative is the mean of -v over all texts. It estimates KL(plain || guided) per token,
   without bias if the texts were drawn from the model's distribution itself.
5. Negatives push differently far at the same scale. So each has its own scale, at which its divergence has
   the wanted level, and its gain is that at this scale.

Values are per token. The log-likelihood of a whole text grows with its length, and a negative that makes
everything less likely would seem to prefer short texts.
"""

from __future__ import annotations

import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path
from typing import Any, cast

import numpy as np

from cfg_lab.analysis.stats.clustered_means import Floats
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.identity import canonical
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError
from cfg_lab.guidance.rule import Rule
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative
from cfg_lab.prompts import Prompt
from cfg_lab.study.parquet_files import write_file
from cfg_lab.suggest.halving import never


@dataclass(frozen=True, kw_only=True)
class ScoredText:
    """A plain text with its reward.

    Attributes:
        prompt: the prompt.
        tokens: the new tokens, at least one.
        reward: higher is better; NaN if the text has no score.
    """

    prompt: Prompt
    tokens: tuple[int, ...]
    reward: float


@dataclass(frozen=True, kw_only=True)
class Likelihoods:
    """What guidance away from a negative does to the likelihood of given texts.

    Attributes:
        scales: the scales of the grid, rising, all above 1.
        changes: (log π_γ - log π_1) / tokens of each text, nats, [scales, texts].
    """

    scales: tuple[float, ...]
    changes: Floats


@dataclass(frozen=True, kw_only=True)
class Rank:
    """A negative as the ranking sees it.

    Attributes:
        scale: the scale at which its divergence has the wanted level; the largest of the grid if it does not
            come so far.
        gain: how much more guidance raises good texts than bad ones at this scale, nats per token.
        divergence: estimate of KL(plain || guided) at this scale, nats per token.
    """

    scale: float
    gain: float
    divergence: float


@dataclass(kw_only=True)
class RankingCost:
    """What ranking cost. `forwards` is the number of pairs of a text and a negative that were read."""

    forwards: int = 0
    tokens: int = 0
    seconds: float = 0.0

    @property
    def forwards_per_second(self) -> float:
        """Pairs of a text and a negative per second, under all scales; NaN if nothing was read."""
        return self.forwards / self.seconds if self.seconds else math.nan


def check_scales(scales: object, key: str = "scales") -> tuple[float, ...]:
    """Check a grid of scales: at least one number, all above 1. The result is sorted."""
    if not isinstance(scales, list | tuple) or not scales:
        raise InputError(f"{key} must be a list of scales above 1, such as [1.5,2,3], got {scales!r}")
    numbers = cast("Sequence[Any]", scales)
    for scale in numbers:
        if not isinstance(scale, int | float) or isinstance(scale, bool) or not 1 < scale <= 100:
            raise InputError(f"{key} must be numbers above 1 and at most 100, got {scale!r}")
    return tuple(sorted({float(scale) for scale in numbers}))


def read_likelihoods(
    model: LanguageModel,
    texts: Sequence[ScoredText],
    negatives: Mapping[str, Negative],
    rule: Rule,
    scales: Sequence[float],
    *,
    folder: Path | None = None,
    cost: RankingCost | None = None,
    advance: Callable[[int], None] = lambda _: None,
    stop: Callable[[], bool] = never,
) -> dict[str, Likelihoods]:
    """The likelihoods of all texts under every negative and scale, by the names of the negatives.

    The negatives of a prompt are read together: their forwards share the prompt's own branch and the contexts
    of the prompt's texts, and a scale costs next to nothing.

    Args:
        rule: the guidance rule. Its scale is replaced by each of `scales`.
        folder: where the numbers of each prompt are kept, so that they are read only once.
        cost: counts what is read.
        advance: called with the number of finished pairs of a text and a negative.
        stop: asked before each prompt but the first; True leaves out the texts of the other prompts, which
            are NaN in all results.
    """
    guidances = [replace(rule, scale=scale) for scale in scales]
    changes = {name: np.full((len(scales), len(texts)), np.nan) for name in negatives}
    decoder = Decoder(model, other_models={})
    numbers_by_prompt: dict[Prompt, list[int]] = {}
    for number, text in enumerate(texts):
        numbers_by_prompt.setdefault(text.prompt, []).append(number)
    for position, (prompt, numbers) in enumerate(numbers_by_prompt.items()):
        if position and stop():
            break
        positive = model.encode(prompt.text, prompt.system)
        branches = {name: negative.branches(prompt, model) for name, negative in negatives.items()}
        requests = [
            Request(positive=positive, negatives=branches[name]) for name in negatives for _ in numbers
        ]
        tokens = [texts[number].tokens for _ in negatives for number in numbers]
        values = _scores(decoder, model, requests, tokens, guidances, folder, cost, advance)
        for row, (name, number) in enumerate((name, number) for name in negatives for number in numbers):
            changes[name][:, number] = values[row]
    return {name: Likelihoods(scales=tuple(scales), changes=values) for name, values in changes.items()}


def _scores(
    decoder: Decoder,
    model: LanguageModel,
    requests: Sequence[Request],
    tokens: Sequence[tuple[int, ...]],
    guidances: Sequence[Rule],
    folder: Path | None,
    cost: RankingCost | None,
    advance: Callable[[int], None],
) -> list[list[float]]:
    """The changes of the log-likelihood per token, [requests][scales]; read from `folder` if it has them."""
    identity = [model.fingerprint, [(r.positive, r.negatives) for r in requests], tokens, guidances]
    name = blake2b(json.dumps(canonical(identity)).encode(), digest_size=12).hexdigest()
    path = None if folder is None else folder / f"{name}.json"
    if path is not None and path.is_file():
        stored: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        advance(len(requests))
        _count(cost, stored)
        return stored["changes"]
    began, done = time.monotonic(), 0

    def finished(count: int) -> None:
        nonlocal done
        advance(count - done)
        done = count

    scores = decoder.score(requests, tokens, guidances, on_item=finished)
    changes = [
        [(guided - score.positive) / len(text) for guided in score.guided]
        for score, text in zip(scores, tokens, strict=True)
    ]
    numbers = {
        "changes": changes,
        "forwards": len(requests),
        "tokens": sum(map(len, tokens)),
        "seconds": round(time.monotonic() - began, 3),
    }
    if path is not None:
        write_file(path, json.dumps(numbers).encode())
    _count(cost, numbers)
    return changes


def _count(cost: RankingCost | None, numbers: Mapping[str, Any]) -> None:
    if cost is not None:
        cost.forwards += numbers["forwards"]
        cost.tokens += numbers["tokens"]
        cost.seconds += numbers["seconds"]


def sides(texts: Sequence[ScoredText]) -> Floats:
    """1 for good texts, -1 for bad ones, 0 for others, [texts].

    Good is above the median reward of the prompt's scored texts, bad is below it.
    """
    rewards = np.array([text.reward for text in texts], np.float64)
    prompts = [text.prompt for text in texts]
    result = np.zeros(len(texts))
    for prompt in dict.fromkeys(prompts):
        of_prompt = np.array([other == prompt for other in prompts])
        scored = of_prompt & ~np.isnan(rewards)
        if scored.any():
            result[scored] = np.sign(rewards[scored] - np.median(rewards[scored]))
    return result


def contrast(values: Floats, texts: Sequence[ScoredText]) -> float:
    """Mean over prompts of the mean of good texts minus the mean of bad texts.

    Prompts without a good or without a bad text are left out; NaN if no prompt has both.

    Args:
        values: one per text, [texts]. NaN is left out.
    """
    side, differences = sides(texts), list[float]()
    prompts = [text.prompt for text in texts]
    for prompt in dict.fromkeys(prompts):
        of_prompt = np.array([other == prompt for other in prompts]) & ~np.isnan(values)
        good, bad = values[of_prompt & (side > 0)], values[of_prompt & (side < 0)]
        if len(good) and len(bad):
            differences.append(float(good.mean() - bad.mean()))
    return float(np.mean(differences)) if differences else math.nan


def rank(likelihoods: Likelihoods, texts: Sequence[ScoredText], divergence: float) -> Rank:
    """The rank of a negative at the scale at which its divergence has a given level.

    Between two scales of the grid, and between 1 and the first of them, the square root of the divergence and
    the gain are taken to be linear in the scale.

    Args:
        divergence: the level, nats per token, above 0.
    """
    estimates = [-_mean(row) for row in likelihoods.changes]
    # The true divergence grows with the scale; an estimate need not.
    roots = np.maximum.accumulate(np.sqrt(np.maximum([0.0, *estimates], 0)))
    scales = np.array([1.0, *likelihoods.scales])
    gains = np.array([0.0, *(contrast(row, texts) for row in likelihoods.changes)])
    level = math.sqrt(divergence)
    above = np.flatnonzero(roots >= level)
    if len(above):
        last = int(above[0])
        share = (level - roots[last - 1]) / (roots[last] - roots[last - 1])
        scale = float(scales[last - 1] + share * (scales[last] - scales[last - 1]))
    else:
        scale = float(scales[-1])
    scale = round(scale, 3)
    return Rank(
        scale=scale,
        gain=float(np.interp(scale, scales, gains)),
        divergence=float(np.interp(scale, scales, roots)) ** 2,
    )


def _mean(values: Floats) -> float:
    """The mean without NaN; 0 if there is nothing else."""
    scored = values[~np.isnan(values)]
    return float(scored.mean()) if len(scored) else 0.0

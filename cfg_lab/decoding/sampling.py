"""How a token is chosen from the guided distribution, and the noise it is chosen with.

Noise is a function, not a stream: the Gumbel noise of a token is a hash of (seed, prompt, sample, position,
token). Batching, order and resuming change nothing, and no generator has to be kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance.log_probs import FLOOR


class Sampler(Protocol):
    """Chooses one token a row. Frozen: its repr is part of a completion's id."""

    @property
    def random(self) -> bool:
        """Whether the noise keys matter; where they do not, one sample is all there is."""
        ...

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        """log_probs [rows, vocab] float32 normalised, keys [rows] int64 noise keys -> tokens [rows] int64."""
        ...


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """The likeliest token; of equals the lowest id."""

    random = False

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        return log_probs.argmax(-1)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Draw from the distribution after temperature, top-k, top-p and min-p, in transformers' order.

    Args:
        temperature: above 0; divides the log-probs.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: in (0, 1]; keep the smallest set of likeliest tokens with at least this mass
            (nucleus sampling, arXiv:1904.09751).
        min_p: in [0, 1]; keep tokens at least this likely relative to the likeliest (arXiv:2407.01082).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    random = True

    def __post_init__(self) -> None:
        _check("temperature", self.temperature, 0 < _number(self.temperature) < math.inf, "a number above 0")
        whole = isinstance(self.top_k, int) and not isinstance(self.top_k, bool)
        _check("top_k", self.top_k, whole and self.top_k >= 0, "a whole number, 0 keeps all")
        _check("top_p", self.top_p, 0 < _number(self.top_p) <= 1, "a number in (0, 1]")
        _check("min_p", self.min_p, 0 <= _number(self.min_p) <= 1, "a number in [0, 1]")

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        # What a rule has made impossible stays so at any temperature.
        scores = log_probs.masked_fill(log_probs <= FLOOR, -math.inf) / self.temperature
        if not self.top_k and self.top_p == 1 and not self.min_p:
            return (scores + gumbel(keys, torch.arange(scores.shape[-1], device=scores.device))).argmax(-1)
        candidates, tokens = self._survivors(scores)  # [rows, width] each
        best = (candidates + gumbel(keys, tokens)).argmax(-1, keepdim=True)
        return tokens.gather(-1, best)[:, 0]

    def _survivors(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        """The tokens left after truncation: scores (-inf where cut) and ids, [rows, width].

        On a CPU a sort of the whole vocabulary costs more than a small model's forward, so only the likeliest
        are taken, and more of them where they turn out too few. A GPU sorts sooner than it answers whether
        they are.
        """
        vocab = scores.shape[-1]
        width = min(self.top_k or (256 if scores.device.type == "cpu" else vocab), vocab)
        while True:
            kept, tokens = scores.topk(width)  # descending
            total = (kept if self.top_k else scores).logsumexp(-1, keepdim=True)
            probs = (kept - total).exp()
            before = probs.cumsum(-1) - probs  # mass of the likelier ones
            cut = (before >= self.top_p) | (probs < self.min_p * probs[:, :1])
            cut[:, 0] = False
            if self.top_k or width == vocab or bool(cut[:, -1].all()):
                return kept.masked_fill(cut, -math.inf), tokens
            width = min(8 * width, vocab)


@dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """Search for the likeliest whole text instead of drawing one.

    Args:
        width: hypotheses that are followed at once, at least 1; each has rows of its own where it differs.
        n_best: texts to return, at most width.
        length_penalty: a text's score is the sum of its log-probs / length ** length_penalty: above 0 favours
            long texts.
        early_stopping: end once `width` texts have ended; else once no hypothesis looks better than those.
    """

    width: int = 4
    n_best: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False

    random = False

    def __post_init__(self) -> None:
        whole = isinstance(self.width, int) and not isinstance(self.width, bool)
        _check("width", self.width, whole and self.width >= 1, "a whole number of at least 1")
        whole = isinstance(self.n_best, int) and not isinstance(self.n_best, bool)
        _check("n_best", self.n_best, whole and 1 <= self.n_best <= self.width, "from 1 to sampling.width")
        usual = -10 <= _number(self.length_penalty) <= 10
        _check("length_penalty", self.length_penalty, usual, "a number from -10 to 10; 0 sums log-probs")
        _check("early_stopping", self.early_stopping, isinstance(self.early_stopping, bool), "true or false")


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise as a hash: keys [rows] int64, tokens [rows, n] or [n] int64 -> [rows, n] float32.

    argmax(log_prob + gumbel) draws from the distribution (Gumbel-max), whatever subset survives truncation.
    """
    bits = _mix(keys[:, None] + tokens * _GOLDEN)
    uniform = (_shift(bits, 11).double() + 0.5) * 2.0**-53  # inside (0, 1), never at its ends
    return -(-uniform.log()).log().float()


def position_keys(keys: Tensor, positions: Tensor) -> Tensor:
    """The keys [rows] of requests at their token positions [rows], all int64."""
    return _mix(keys + (positions + 1) * _GOLDEN)


# splitmix64 (Steele, Lea and Flood 2014), in int64 arithmetic that wraps.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _mix(x: Tensor) -> Tensor:
    x = (x ^ _shift(x, 30)) * _FIRST
    x = (x ^ _shift(x, 27)) * _SECOND
    return x ^ _shift(x, 31)


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical right shift; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _check(name: str, value: object, right: bool, wanted: str) -> None:
    if not right:
        raise InputError(f"sampling.{name} must be {wanted}, got {value!r}")

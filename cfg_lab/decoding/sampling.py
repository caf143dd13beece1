"""How a token is chosen from the guided distribution, and the noise of that choice.

No random number generator is used: the Gumbel noise of a token is a hash of (seed, positive context, sample,
position, token). So batching, the order of requests and resuming do not change the noise, and no generator
state has to be stored.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance.log_probs import FLOOR


class Sampler(Protocol):
    """Chooses one token per row. A sampler is a frozen dataclass, because it is part of a completion's id."""

    @property
    def random(self) -> bool:
        """Whether the choice of a token is random, that is, depends on the noise keys.

        If it is not random, all samples of a prompt are equal.
        """
        ...

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        """Choose one token per row. Return the tokens [rows], int64.

        Args:
            log_probs: [rows, vocab], float32, normalised.
            keys: [rows], int64, the noise key of each row at this position (see `position_keys`).
        """
        ...


@dataclass(frozen=True, kw_only=True)
class Greedy:
    """Choose the likeliest token; of equally likely tokens the one with the lowest id."""

    random = False

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        """See `Sampler.choose`. The noise keys have no effect."""
        return log_probs.argmax(-1)


@dataclass(frozen=True, kw_only=True)
class Sampling:
    """Draw a token after temperature, top-k, top-p and min-p, applied in this order as in transformers.

    The defaults draw from the unchanged guided distribution. `nucleus_sampling` has the defaults that studies
    use.

    Args:
        temperature: above 0; the log-probs are divided by it.
        top_k: keep the k likeliest tokens; 0 keeps all.
        top_p: in (0, 1]; keep the smallest set of likeliest tokens with at least this total probability
            (nucleus sampling, arXiv:1904.09751).
        min_p: in [0, 1]; keep the tokens with at least this share of the largest probability
            (arXiv:2407.01082).

    Raises:
        InputError: an argument is out of its range.
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0

    random = True

    def __post_init__(self) -> None:
        temperature, top_p, min_p = map(_as_number, (self.temperature, self.top_p, self.min_p))
        _check("temperature", self.temperature, 0 < temperature < math.inf, "a number above 0")
        _check("top_k", self.top_k, _is_whole(self.top_k) and self.top_k >= 0, "a whole number, 0 keeps all")
        _check("top_p", self.top_p, 0 < top_p <= 1, "a number in (0, 1]")
        _check("min_p", self.min_p, 0 <= min_p <= 1, "a number in [0, 1]")

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        """See `Sampler.choose`."""
        return draw(log_probs, keys, SamplingSettings.of([self] * len(keys), log_probs.device))


class SamplingSettings(NamedTuple):
    """The settings of `Sampling` for each row of a batch, as tensors, so that one call draws for all rows.

    The booleans say which truncations some row uses. They are plain numbers of Python: a truncation that no
    row uses costs nothing, and a CUDA graph can be captured.
    """

    temperature: Tensor  # [rows], float32
    top_k: Tensor  # [rows], int64; 0 keeps all tokens
    top_p: Tensor  # [rows], float32
    min_p: Tensor  # [rows], float32
    any_top_k: bool
    any_top_p: bool
    any_min_p: bool

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The settings without the booleans."""
        return self[:4]

    def first(self, rows: int) -> SamplingSettings:
        """The settings of the first rows, as views."""
        return self._replace(
            temperature=self.temperature[:rows],
            top_k=self.top_k[:rows],
            top_p=self.top_p[:rows],
            min_p=self.min_p[:rows],
        )

    @classmethod
    def of(cls, samplers: Sequence[Sampling], device: torch.device) -> SamplingSettings:
        """The settings of these samplers, one row for each, on a device."""

        def floats(values: list[float]) -> Tensor:
            return torch.tensor(values, dtype=torch.float32, device=device)

        return cls(
            temperature=floats([sampler.temperature for sampler in samplers]),
            top_k=torch.tensor([sampler.top_k for sampler in samplers], dtype=torch.int64, device=device),
            top_p=floats([sampler.top_p for sampler in samplers]),
            min_p=floats([sampler.min_p for sampler in samplers]),
            any_top_k=any(sampler.top_k for sampler in samplers),
            any_top_p=any(sampler.top_p < 1 for sampler in samplers),
            any_min_p=any(sampler.min_p > 0 for sampler in samplers),
        )


def draw(log_probs: Tensor, keys: Tensor, settings: SamplingSettings) -> Tensor:
    """Draw one token per row, each row with its own settings. Return the tokens [rows], int64.

    Args:
        log_probs: [rows, vocab], float32, normalised.
        keys: [rows], int64, the noise key of each row at this position (see `position_keys`).
        settings: the settings of each row.
    """
    # A token that a rule has made impossible stays impossible at any temperature.
    scores = log_probs.masked_fill(log_probs <= FLOOR, -math.inf) / settings.temperature[:, None]
    if not (settings.any_top_k or settings.any_top_p or settings.any_min_p):
        return (scores + gumbel(keys, torch.arange(scores.shape[-1], device=scores.device))).argmax(-1)
    candidates, tokens = _truncate(scores, settings)  # [rows, width] each
    best = (candidates + gumbel(keys, tokens)).argmax(-1, keepdim=True)
    return tokens.gather(-1, best)[:, 0]


def _truncate(scores: Tensor, settings: SamplingSettings) -> tuple[Tensor, Tensor]:
    """The likeliest tokens, and which of them top-k, top-p and min-p keep.

    On a CPU a sort of the whole vocabulary costs more than a forward of a small model. So only the 256
    likeliest tokens are sorted. More tokens are sorted if some row keeps all 256. On a GPU the whole
    vocabulary is sorted, which is faster than waiting until the GPU reports whether a row keeps all 256.

    Args:
        scores: [rows, vocab], log-probs divided by the temperature.
        settings: the settings of each row.

    Returns:
        Scores and token ids, both [rows, width], likeliest token first. `width` is the number of sorted
        tokens. The score of a token that is not kept is -inf.
    """
    vocab = scores.shape[-1]
    on_cpu = scores.device.type == "cpu"
    top_k = torch.where(settings.top_k > 0, settings.top_k.clamp(max=vocab), vocab)[:, None]
    width = min(256, vocab) if on_cpu else vocab
    while True:
        likeliest, tokens = scores.topk(width)  # in descending order
        beyond = torch.arange(width, device=scores.device) >= top_k  # [rows, width]
        likeliest = likeliest.masked_fill(beyond, -math.inf)
        total = torch.where(top_k < vocab, likeliest.logsumexp(-1, True), scores.logsumexp(-1, True))
        probs = (likeliest - total).exp()
        mass_before = probs.cumsum(-1) - probs  # total probability of all likelier tokens
        cut = (mass_before >= settings.top_p[:, None]) | (probs < settings.min_p[:, None] * probs[:, :1])
        cut[:, 0] = False
        if width == vocab or bool((cut | beyond)[:, -1].all()):
            return likeliest.masked_fill(cut, -math.inf), tokens
        width = min(8 * width, vocab)


def nucleus_sampling(
    *, temperature: float = 0.8, top_k: int = 0, top_p: float = 0.95, min_p: float = 0.0
) -> Sampling:
    """Make a `Sampling` with the defaults of studies: a temperature below 1, and least likely tokens cut."""
    return Sampling(temperature=temperature, top_k=top_k, top_p=top_p, min_p=min_p)


@dataclass(frozen=True, kw_only=True)
class BeamSearch:
    """Search for the likeliest whole text instead of drawing one.

    Args:
        width: number of hypotheses that are followed at once, at least 1. Each hypothesis needs one row per
            branch.
        n_best: number of texts to return, from 1 to `width`.
        length_penalty: from -10 to 10. The score of a text is the sum of its log-probs divided by
            length ** length_penalty, so a value above 0 favours long texts.
        early_stopping: when the search ends. True: as soon as `width` texts have ended. False: only when, in
            addition, no hypothesis has a better score than the worst of these texts.

    Raises:
        InputError: an argument is out of its range.
    """

    width: int = 4
    n_best: int = 1
    length_penalty: float = 1.0
    early_stopping: bool = False

    random = False

    def __post_init__(self) -> None:
        _check("width", self.width, _is_whole(self.width) and self.width >= 1, "a whole number of at least 1")
        in_range = _is_whole(self.n_best) and 1 <= self.n_best <= self.width
        _check("n_best", self.n_best, in_range, "a whole number from 1 to sampling.width")
        in_range = -10 <= _as_number(self.length_penalty) <= 10
        _check("length_penalty", self.length_penalty, in_range, "a number from -10 to 10; 0 sums log-probs")
        _check("early_stopping", self.early_stopping, isinstance(self.early_stopping, bool), "true or false")


def gumbel(keys: Tensor, tokens: Tensor) -> Tensor:
    """Standard Gumbel noise as a hash of key and token.

    argmax(log_probs + noise) is a draw from the distribution (the Gumbel-max trick). This also holds for a
    truncated distribution, where some log-probs are -inf.

    Args:
        keys: [rows], int64, the noise key of each row (see `position_keys`).
        tokens: [rows, n] or [n], int64, the ids of the tokens that get noise.

    Returns:
        Noise [rows, n], float32.
    """
    bits = _mix(keys[:, None] + tokens * _GOLDEN)
    uniform = (_logical_shift(bits, 11).double() + 0.5) * 2.0**-53  # in (0, 1), without its ends
    return -(-uniform.log()).log().float()


def position_keys(keys: Tensor, positions: Tensor) -> Tensor:
    """One noise key per row, [rows], int64: a hash of the request's noise key and the token's position."""
    return _mix(keys + (positions + 1) * _GOLDEN)


# splitmix64 (Steele, Lea and Flood 2014), in int64 arithmetic that wraps around.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_FIRST = 0xBF58476D1CE4E5B9 - (1 << 64)
_SECOND = 0x94D049BB133111EB - (1 << 64)


def _mix(x: Tensor) -> Tensor:
    """Mix the bits of x: every bit of the input changes about half of the bits of the output.

    This is the finalizer of splitmix64.
    """
    x = (x ^ _logical_shift(x, 30)) * _FIRST
    x = (x ^ _logical_shift(x, 27)) * _SECOND
    return x ^ _logical_shift(x, 31)


def _logical_shift(x: Tensor, bits: int) -> Tensor:
    """Right shift that fills the free bits with zeros. The shift of torch fills them with the sign bit."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _as_number(value: object) -> float:
    """The value as a float, or NaN if it is not a number. NaN fails every check of a range."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else math.nan


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _check(name: str, value: object, is_valid: bool, requirement: str) -> None:
    """If `is_valid` is False, raise InputError. Its message has the name, the requirement and the value."""
    if not is_valid:
        raise InputError(f"sampling.{name} must be {requirement}, got {value!r}")

"""A request to the decoder: one text to decode, as token ids."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b

from cfg_lab.decoding.identity import canonical
from cfg_lab.decoding.sampling import BeamSearch, Sampler
from cfg_lab.errors import InputError
from cfg_lab.guidance.rule import Guidance, is_off

NamedContext = tuple[str | None, tuple[int, ...]]
"""Name of a model and the token ids of a context. None stands for the model of the positive contexts."""


@dataclass(frozen=True)
class Branch:
    """One negative context, with its weight and the model that reads it.

    Attributes:
        ids: token ids of the context.
        weight: how strongly this branch counts among the request's negatives; finite. With a weight below 0,
            guidance steers towards the context instead of away from it.
        model: fingerprint of the model that runs the branch. None means the model that runs the positive
            context.
    """

    ids: tuple[int, ...]
    weight: float = 1.0
    model: str | None = None


@dataclass(frozen=True, kw_only=True)
class Request:
    """One text to decode, as token ids.

    Attributes:
        positive: the context to continue; at least one token.
        negatives: the contexts to steer away from, one branch each.
        guidance: the rule that combines the branches. None means no guidance: only the positive context is
            used.
        sampling: how a token is chosen from the guided distribution. None means the likeliest token.
        max_new_tokens: the text ends at this number of new tokens; at least 1.
        stop_ids: the text ends at any of these tokens. The stop token is kept as the last token.
        stop_when: a function of the new tokens so far. The text ends when the function returns True. None
            means no such function. The function is part of the request's id, so it must be a dataclass, or
            have a repr that names what it does.
        seed, sample: two numbers that determine the sampling noise together with the positive context.
        top: number of likeliest tokens that the trace keeps for each step and distribution.
    """

    positive: tuple[int, ...]
    negatives: tuple[Branch, ...] = ()
    guidance: Guidance | None = None
    sampling: Sampler | BeamSearch | None = None
    max_new_tokens: int = 64
    stop_ids: frozenset[int] = frozenset()
    stop_when: Callable[[Sequence[int]], bool] | None = field(default=None, compare=False)
    seed: int = 0
    sample: int = 0
    top: int = 0

    def __post_init__(self) -> None:
        contexts = [("positive", self.positive), *(("negative", branch.ids) for branch in self.negatives)]
        for name, ids in contexts:
            if not ids:
                raise InputError(
                    f"the {name} context is empty; a context has at least one token (BOS will do)"
                )
        if self.max_new_tokens < 1:
            raise InputError(f"max_new_tokens must be at least 1, got {self.max_new_tokens}")
        if self.top < 0:
            raise InputError(f"top must be at least 0 (keeps none), got {self.top}")
        weights = [branch.weight for branch in self.negatives]
        if weights and not (all(map(math.isfinite, weights)) and any(weights)):
            raise InputError(f"weights of negatives must be finite and not all 0, got {weights}")

    @cached_property
    def branches(self) -> tuple[Branch, ...]:
        """The negative branches; empty if guidance is off at every step."""
        guidance = self.guidance
        if guidance is None or all(is_off(guidance.scale_at(step)) for step in range(self.max_new_tokens)):
            return ()
        return self.negatives

    @cached_property
    def contexts(self) -> tuple[NamedContext, ...]:
        """The contexts of the positive branch and of those in `branches`."""
        return self.contexts_with(self.branches)

    def contexts_with(self, negatives: Sequence[Branch]) -> tuple[NamedContext, ...]:
        """The context of each branch: the positive first, then the negatives."""
        return ((None, self.positive), *((branch.model, branch.ids) for branch in negatives))

    @property
    def beams(self) -> int:
        """Number of hypotheses that a beam search follows at once; 1 without beam search."""
        return getattr(self.sampling, "width", 1)

    def id(self, model_fingerprint: str) -> str:
        """Content address of the completion: a hash of the request and the model, 32 hex digits.

        Requests with equal ids have equal texts. If guidance is off at every step, the guidance rule and the
        negatives are left out of the id. If the sampler uses no noise, seed and sample are left out. When the
        format of the id changes, its version must change. It is "v3" for a request with `stop_when`, because
        the tokens of its stop string were part of the completion in "v2".

        Args:
            model_fingerprint: text that identifies the weights of the model that runs the positive context.
        """
        random = self.sampling is not None and self.sampling.random
        parts = [
            "v2" if self.stop_when is None else "v3",
            model_fingerprint,
            self.positive,
            self.branches,
            self.guidance if self.branches else None,
            self.sampling,
            self.max_new_tokens,
            self.stop_ids,
            self.stop_when,
            (self.seed, self.sample) if random else None,
            self.top,
        ]
        return blake2b(json.dumps(canonical(parts)).encode(), digest_size=16).hexdigest()

    @cached_property
    def noise_key(self) -> int:
        """A 63-bit hash of (seed, positive context, sample).

        Guidance is not part of the hash. So requests that differ only in guidance have the same noise, and
        paired comparisons have less variance (common random numbers).
        """
        text = f"{self.seed}|{self.sample}|{','.join(map(str, self.positive))}"
        return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") >> 1

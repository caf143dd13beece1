"""The settings of the training of a learned scale, checked."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, cast, get_args

from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError
from cfg_lab.guidance import NotAdaptive, Rule
from cfg_lab.guidance.policy import check_shares
from cfg_lab.learning.policy_rollouts import Penalty


@dataclass(frozen=True, kw_only=True)
class PolicySettings:
    """The numbers of a training; conf/learn_policy.yaml says what each means."""

    penalty: Penalty
    strength: float
    shares: tuple[float, ...]
    hidden: int
    updates: int
    prompts_per_update: int
    rollouts: int
    learning_rate: float
    entropy_bonus: float
    seed: int

    @classmethod
    def of(cls, config: Mapping[str, Any]) -> PolicySettings:
        """Read the settings from a config, as dicts and plain values.

        Raises:
            InputError: a value is wrong. The message names its key.
        """
        penalty, shares = config.get("penalty"), config.get("shares")
        if penalty not in get_args(Penalty):
            raise InputError(f"penalty must be kl or perplexity, got {penalty!r}")
        check_shares(shares, "shares")
        return cls(
            penalty=cast("Penalty", penalty),
            shares=tuple(map(float, cast("list[float]", shares))),
            strength=_number(config, "strength", 0),
            learning_rate=_number(config, "learning_rate", 1e-9),
            entropy_bonus=_number(config, "entropy_bonus", 0),
            hidden=_whole(config, "hidden", 1, 1000),
            updates=_whole(config, "updates", 1),
            prompts_per_update=_whole(config, "prompts_per_update", 1),
            rollouts=_whole(config, "rollouts", 2),
            seed=_whole(config, "seed", 0),
        )


def check_guidance(guidance: object, sampling: object) -> None:
    """Check that a learned scale can be trained for a rule and a sampler.

    Raises:
        InputError: the rule has an adaptive strength of its own or no guidance, or the sampler is a search.
    """
    if not isinstance(guidance, Rule):
        raise InputError(f"guidance must be a rule of this package to train a policy, got {guidance!r}")
    if not isinstance(guidance.adaptive, NotAdaptive):
        raise InputError(
            "guidance/adaptive must be none to train a policy, which takes its place, "
            f"got {guidance.adaptive!r}"
        )
    if guidance.scale == 1:
        raise InputError(
            "guidance.scale is 1, so every share would be without guidance; set the largest scale that the "
            "policy may choose, such as guidance.scale=4"
        )
    if isinstance(sampling, BeamSearch):
        raise InputError("sampling must not be beam to train a policy; choose sampling=nucleus or greedy")


def _number(config: Mapping[str, Any], key: str, least: float) -> float:
    value = config.get(key)
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    if not is_number or cast("float", value) < least:
        raise InputError(f"{key} must be a number of at least {least:g}, got {value!r}")
    return float(cast("float", value))


def _whole(config: Mapping[str, Any], key: str, least: int, most: int = 2**31) -> int:
    value = config.get(key)
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise InputError(f"{key} must be a whole number from {least} to {most:,}, got {value!r}")
    return value

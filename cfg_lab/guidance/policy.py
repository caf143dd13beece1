"""A learned scale: a small network chooses the share of guidance at each step.

`python -m cfg_lab.learn policy` trains the network and writes it to a file; `load_policy` reads the file.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance.adaptive import Branches, weighted_mean
from cfg_lab.guidance.divergences import entropy, kl_divergence

FEATURES = ("log(1 + entropy)", "log(1 + divergence)", "margin", "share of length")
"""What the network reads at each step, in this order.

The entropy of the positive branch and KL(positive || negative) are in nats. The margin is the probability of
the likeliest token of the positive branch minus that of the second. The share of length is the number of new
tokens so far divided by `LearnedScale.length`, at most 1.
"""

Matrix = tuple[tuple[float, ...], ...]


@dataclass(frozen=True, kw_only=True)
class LearnedScale:
    """A network with one hidden layer chooses the share of guidance at each step.

        scale_t = 1 + (scale - 1) * shares[argmax(output(tanh(hidden(features))))]

    The negatives run at every step, also at steps with share 0. The network and its shares are a part of
    every request's id. The name of the file that they were read from is not.

    Args:
        shares: the shares of guidance to choose from, in [0, 1]; 0 is no guidance, 1 is full guidance.
        hidden: for each hidden unit its bias and the weights of FEATURES, [units][1 + features].
        output: for each share its bias and the weights of the hidden units, [shares][1 + units].
        length: number of tokens at which the share of length is 1, at least 1.
        rule: the rule that the network was trained for, see `describe`.
        trained_scale: the rule's scale in training.
        any_scale: True allows other scales than 1 and `trained_scale`. The shares are then shares of the
            other scale.

    Raises:
        InputError: the numbers do not fit together.
    """

    shares: tuple[float, ...]
    hidden: Matrix
    output: Matrix
    length: int
    rule: str = field(compare=False)
    trained_scale: float = field(compare=False)
    any_scale: bool = field(default=False, compare=False)

    def __post_init__(self) -> None:
        check_shares(self.shares, "guidance.adaptive.shares")
        numbers = [number for row in (*self.hidden, *self.output) for number in row]
        if (
            not self.hidden
            or {len(row) for row in self.hidden} != {1 + len(FEATURES)}
            or len(self.output) != len(self.shares)
            or {len(row) for row in self.output} != {1 + len(self.hidden)}
            or not all(map(math.isfinite, numbers))
            or self.length < 1
        ):
            raise InputError(
                f"guidance.adaptive: a network for {len(FEATURES)} features and {len(self.shares)} shares "
                f"has finite weights [units][{1 + len(FEATURES)}] and [{len(self.shares)}][1 + units], and a "
                f"length of at least 1; got hidden={self.hidden!r}, output={self.output!r}, "
                f"length={self.length!r}"
            )

    def check_rule(self, rule: Any) -> None:
        """Check that a rule is the one that the network was trained for.

        Raises:
            InputError: the formula, the modifiers or the scale differ.
        """
        if self.rule != describe(rule):
            raise InputError(
                f"guidance is {describe(rule)}, but the policy of guidance/adaptive was trained for "
                f"{self.rule}; choose this rule, or train a policy for yours: python -m cfg_lab.learn policy"
            )
        if not self.any_scale and rule.scale not in (1, self.trained_scale):
            raise InputError(
                f"guidance.scale must be {self.trained_scale:g}, the scale that the policy of "
                f"guidance/adaptive was trained with, or 1, got {rule.scale!r}; "
                "guidance.adaptive.any_scale=true takes the policy's shares of any scale"
            )

    def scale_in_force(self, scale: Tensor, branches: Branches, guided: Callable[[Tensor], Tensor]) -> Tensor:
        share = self.share_of(features(branches, self.length))[:, None]
        return share * scale + (1 - share)  # exact at share 0 and share 1

    def share_of(self, features: Tensor) -> Tensor:
        """The share of guidance [rows] for features [rows, features]."""
        shares = self._tensors(features.device)[0]
        return shares[self.scores(features).argmax(1)]

    def scores(self, features: Tensor) -> Tensor:
        """The network's scores [rows, shares] for features [rows, features]. The highest is chosen."""
        _, hidden, output = self._tensors(features.device)
        units = torch.tanh(torch.addmm(hidden[:, 0], features, hidden[:, 1:].T))
        return torch.addmm(output[:, 0], units, output[:, 1:].T)

    def _tensors(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
        """Shares and weights on a device, float32. They stay at their addresses, as recorded steps need."""
        if device not in self._by_device:
            parts = (self.shares, self.hidden, self.output)
            first, second, third = (torch.tensor(part, device=device) for part in parts)
            self._by_device[device] = (first, second, third)
        return self._by_device[device]

    @cached_property
    def _by_device(self) -> dict[torch.device, tuple[Tensor, Tensor, Tensor]]:
        return {}


def features(branches: Branches, length: int) -> Tensor:
    """What the network reads of a step, [rows, features], in the order of FEATURES.

    Args:
        branches: the distributions at this step, with the numbers of new tokens so far.
        length: number of tokens at which the share of length is 1.
    """
    if branches.steps is None:
        raise ValueError("a learned scale needs the number of each row's new tokens: pass steps to guide")
    divergence = weighted_mean(
        kl_divergence(branches.positive[:, None], branches.negatives), branches.weights
    )
    likeliest = branches.positive.topk(2, dim=1).values.exp()  # [rows, 2]
    return torch.stack(
        [
            entropy(branches.positive).log1p(),
            divergence[:, 0].clamp(min=0).log1p(),
            likeliest[:, 0] - likeliest[:, 1],
            (branches.steps / length).clamp(max=1),
        ],
        dim=1,
    ).float()


def describe(rule: Any) -> str:
    """A rule's formula in words: its class, its modifiers and its own arguments.

    Scale, schedule, adaptive strength and stopping are left out.
    """
    parts = ("scale", "schedule", "adaptive", "stopping")
    arguments = [
        f"{part.name}={getattr(rule, part.name)!r}" for part in fields(rule) if part.name not in parts
    ]
    return f"{type(rule).__name__}({', '.join(arguments)})"


def check_shares(shares: object, key: str) -> None:
    """Raise InputError if a value is not a sequence of at least two different shares in [0, 1]."""
    values = cast("Sequence[Any]", shares) if isinstance(shares, list | tuple) else ()
    numbers = [x for x in values if isinstance(x, int | float) and not isinstance(x, bool) and 0 <= x <= 1]
    if len(numbers) < 2 or len(numbers) < len(values) or len(set(numbers)) < len(numbers):
        raise InputError(
            f"{key} must be at least two different shares of guidance in [0, 1], such as [0, 0.5, 1], "
            f"got {shares!r}"
        )


def load_policy(path: str, *, any_scale: bool = False) -> LearnedScale:
    """Read a policy that `python -m cfg_lab.learn policy` has written.

    Args:
        path: the file policy.json.
        any_scale: see `LearnedScale`.

    Raises:
        InputError: the file is missing or is not a policy.
    """
    if not isinstance(path, str) or not path.strip():  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"guidance.adaptive.path must be the path of a policy.json, got {path!r}")
    if not isinstance(any_scale, bool):  # pyright: ignore[reportUnnecessaryIsInstance]
        raise InputError(f"guidance.adaptive.any_scale must be true or false, got {any_scale!r}")
    try:
        content = Path(path).expanduser().read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise InputError(
            f"guidance.adaptive.path must be the path of a policy.json, which python -m cfg_lab.learn policy "
            f"writes; got {path!r} ({reason})"
        ) from error
    try:
        values = cast("Mapping[str, Any]", json.loads(content))
        if tuple(values["features"]) != FEATURES:
            raise InputError(f"its features are {values['features']!r}, not {list(FEATURES)!r}")
        return LearnedScale(
            shares=tuple(map(float, values["shares"])),
            hidden=tuple(tuple(map(float, row)) for row in values["hidden"]),
            output=tuple(tuple(map(float, row)) for row in values["output"]),
            length=int(values["length"]),
            rule=str(values["rule"]),
            trained_scale=float(values["scale"]),
            any_scale=any_scale,
        )
    except (InputError, ValueError, KeyError, TypeError) as error:
        raise InputError(f"guidance.adaptive.path is {path!r}, which is not a policy: {error}") from error


def policy_as_json(policy: LearnedScale, notes: Mapping[str, Any]) -> str:
    """The content of a file that `load_policy` reads.

    Args:
        policy: the policy.
        notes: how it was trained. `load_policy` does not read them.
    """
    values = {
        "rule": policy.rule,
        "scale": policy.trained_scale,
        "features": FEATURES,
        "shares": policy.shares,
        "length": policy.length,
        "hidden": policy.hidden,
        "output": policy.output,
        "notes": dict(notes),
    }
    return json.dumps(values, indent=1) + "\n"

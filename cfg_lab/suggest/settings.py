"""The settings of a suggestion, checked."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from cfg_lab.errors import InputError
from cfg_lab.study.arguments import check_count
from cfg_lab.suggest.candidates import user_phrases
from cfg_lab.suggest.ranking import check_scales

Origin = Literal["model", "opposite", "contrast"]


@dataclass(frozen=True, kw_only=True)
class Settings:
    """How a negative is chosen. The keys of conf/suggest.yaml have the same names, apart from dots.

    Attributes:
        opposite: phrases that are the opposite of the aim, such as "sad, bleak". None takes those that the
            lab knows for the aim.
        wanted: what texts should be, for the instruction that the found negative is compared with.
        candidates: the user's phrases.
        origins: further origins of candidates.
        per_origin: largest number of candidates of each origin; the user's are all taken.
        scales: grid of scales at which candidates are read, all above 1.
        divergence: the strength at which everything is compared: nats per token from plain decoding.
        ranking_prompts, ranking_samples: plain texts that rank the candidates: prompts, and texts of each.
        finalists: number of candidates that halving begins with.
        first_prompts, most_prompts: number of prompts of the first round, and largest number.
        survivors: number of candidates whose sets are searched.
        trials, batch: number of sets to measure, and how many together.
        draws: number of random sets of phrases to compare with.
        seed: seed of the search of sets.

    Raises:
        InputError: a value is wrong.
    """

    opposite: str | None = None
    wanted: str | None = None
    candidates: tuple[str, ...] = ()
    origins: tuple[str, ...] = get_args(Origin)
    per_origin: int = 12
    scales: tuple[float, ...] = (1.5, 2.0, 3.0, 5.0, 8.0)
    divergence: float = 0.15
    ranking_prompts: int = 16
    ranking_samples: int = 4
    finalists: int = 8
    first_prompts: int = 8
    most_prompts: int = 32
    survivors: int = 3
    trials: int = 8
    batch: int = 4
    draws: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("opposite", "wanted"):
            value = getattr(self, name)
            if value is not None and (not isinstance(value, str) or not value.strip()):
                raise InputError(f"{name} must be a text such as {_EXAMPLES[name]}, or null, got {value!r}")
        object.__setattr__(self, "candidates", tuple(user_phrases(self.candidates)))
        object.__setattr__(self, "scales", check_scales(self.scales))
        if not isinstance(self.origins, list | tuple) or not {*self.origins} <= {*get_args(Origin)}:
            raise InputError(f"origins must be a list of {', '.join(get_args(Origin))}, got {self.origins!r}")
        object.__setattr__(self, "origins", tuple(self.origins))
        divergence: Any = self.divergence
        if not isinstance(divergence, int | float) or not 0 < divergence < 100 or divergence is True:
            raise InputError(f"divergence must be a number of nats above 0 such as 0.15, got {divergence!r}")
        least = {"ranking_samples": 2, "draws": 0, "seed": 0}
        for name in _WHOLE:
            check_count(_key(name), getattr(self, name), least.get(name, 1))


_EXAMPLES = {"opposite": "'\"sad, bleak\"'", "wanted": "positive"}

_WHOLE = (
    *("per_origin", "ranking_prompts", "ranking_samples", "finalists", "first_prompts", "most_prompts"),
    *("survivors", "trials", "batch", "draws", "seed"),
)

GROUPED = {
    "ranking": {"prompts": "ranking_prompts", "samples": "ranking_samples"},
    "halving": {
        "candidates": "finalists",
        "prompts": "first_prompts",
        "most_prompts": "most_prompts",
        "survivors": "survivors",
    },
    "subsets": {"trials": "trials", "batch": "batch"},
}
"""Key of conf/suggest.yaml -> its keys -> attributes of `Settings`."""

PLAIN_KEYS = ("opposite", "wanted", "candidates", "origins", "per_origin", "scales", "divergence", "draws")
"""Keys of conf/suggest.yaml that are attributes of `Settings`."""


def settings_of(values: Mapping[str, Any], seed: int) -> Settings:
    """The settings in the values of conf/suggest.yaml.

    Raises:
        InputError: a value is wrong, or a key is unknown.
    """
    arguments: dict[str, Any] = {key: values[key] for key in PLAIN_KEYS}
    for group, names in GROUPED.items():
        node: Any = values[group]
        if not isinstance(node, Mapping):
            raise InputError(f"{group} must be a mapping with the keys {', '.join(names)}, got {node!r}")
        for key, value in node.items():  # pyright: ignore[reportUnknownVariableType]
            if key not in names:
                raise InputError(
                    f"{group}.{key} is not a config key; {group} has the keys {', '.join(names)}"
                )
            arguments[names[key]] = value
    return Settings(**arguments, seed=seed)


def _key(name: str) -> str:
    """The config key of an attribute."""
    for group, names in GROUPED.items():
        for key, attribute in names.items():
            if attribute == name:
                return f"{group}.{key}"
    return name

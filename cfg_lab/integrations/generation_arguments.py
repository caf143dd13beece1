"""The arguments of a generation in a task of lm-eval (`generation_kwargs`)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self, cast

from lm_eval.models import utils

from cfg_lab.decoding.sampling import Greedy, Sampling
from cfg_lab.errors import InputError
from cfg_lab.study.config import nearest

_LENGTHS = ("max_gen_toks", "max_new_tokens", "max_tokens", "max_completion_tokens")
_SAMPLING = ("temperature", "top_k", "top_p", "min_p")
_NAMES = ("until", "do_sample", *_SAMPLING, *_LENGTHS)


@dataclass(frozen=True, kw_only=True)
class GenerationArguments:
    """How a text is generated.

    Attributes:
        until: the strings that end the text.
        max_gen_toks: largest number of new tokens.
        sampling: how tokens are chosen. Greedy, unless the task sets `do_sample` or a temperature above 0.
    """

    until: tuple[str, ...]
    max_gen_toks: int
    sampling: Greedy | Sampling

    @classmethod
    def of(cls, arguments: Mapping[str, Any], default_max_gen_toks: int) -> Self:
        """Make them from the arguments of a task.

        Raises:
            InputError: an argument is unknown or wrong.
        """
        for name, value in arguments.items():
            if name not in _NAMES:
                raise InputError(
                    f"generation_kwargs has {name!r} (got {value!r}), which the lab does not apply"
                    f"{nearest(name, _NAMES)}; it applies {', '.join(_NAMES)}"
                )
        try:
            normalised: dict[str, Any] = cast("Any", utils).normalize_gen_kwargs(
                dict(arguments), default_max_gen_toks
            )
        except (TypeError, ValueError) as error:
            raise InputError(f"generation_kwargs cannot be read: {error}; got {dict(arguments)}") from error
        until, max_gen_toks = normalised["until"], normalised["max_gen_toks"]
        if not all(isinstance(string, str) and string for string in until):
            raise InputError(
                f"generation_kwargs.until must be texts, none of them empty, got {arguments['until']!r}"
            )
        if max_gen_toks < 1:
            raise InputError(f"generation_kwargs.max_gen_toks must be at least 1, got {max_gen_toks}")
        sampling: Greedy | Sampling = Greedy()
        if normalised["do_sample"]:
            values: dict[str, Any] = {name: normalised[name] for name in _SAMPLING if name in normalised}
            values.setdefault("temperature", 0.0)  # as in HFLM: a task with do_sample names a temperature
            try:
                sampling = Sampling(**values)
            except InputError as error:
                raise InputError(f"generation_kwargs with do_sample=true: {error}") from error
        return cls(until=tuple(until), max_gen_toks=max_gen_toks, sampling=sampling)

"""What a study is: cells that are run together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from cfg_lab.decoding.sampling import BeamSearch, Sampler
from cfg_lab.errors import InputError
from cfg_lab.guidance import Guidance
from cfg_lab.metrics import Metric
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative
from cfg_lab.prompts import Prompt
from cfg_lab.study.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One point of the grid: everything that is held fixed while prompts and samples vary.

    Attributes:
        identity: a text that names what decides the cell's texts. Cells with equal identities are the same.
        settings: the plain values of the config, {"guidance.scale": 1.5, …}; columns of the results.
        label: the settings that tell the cell from the other cells of its study.
        model: loads the model. Cells of one study with equal `model_key` share it.
        stop: strings that end a text.
        top: number of likeliest tokens to keep for each step and distribution.
    """

    identity: str
    settings: Mapping[str, Any]
    label: Mapping[str, Any]
    model_key: str
    model: Callable[[], LanguageModel]
    prompts: Sequence[Prompt]
    negatives: Negative
    guidance: Guidance
    sampling: Sampler | BeamSearch
    seed: int
    samples: int
    max_new_tokens: int
    stop: tuple[str, ...] = ()
    top: int = 0

    def __post_init__(self) -> None:
        for name, least in (("samples", 1), ("max_new_tokens", 1), ("seed", 0), ("top", 0)):
            _check_whole(name, getattr(self, name), least)
        if not all(isinstance(string, str) and string for string in self.stop):
            raise InputError(f"stop must be a list of texts that are not empty, got {list(self.stop)!r}")

    @cached_property
    def id(self) -> str:
        """Hash of the identity, 16 hex digits."""
        return blake2b(self.identity.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Cells that are run together, and where their texts and scores go.

    Attributes:
        name: name of the study; trackers group its runs under it.
        cells: in the order of the table.
        max_rows: number of rows of the decoder's batch.
        record: files to keep with the results, name -> content.
        command: the command line that runs the study.
    """

    name: str
    cells: Sequence[Cell]
    metrics: Sequence[Metric]
    store: Store
    max_rows: int = 128
    record: Mapping[str, str] = field(default_factory=dict[str, str])
    command: str = ""

    def __post_init__(self) -> None:
        _check_whole("max_rows", self.max_rows, 1)


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")

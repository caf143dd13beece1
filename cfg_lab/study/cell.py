"""The classes `Study` and `Cell`, and what they share with those of a benchmark.

A cell is one combination of settings. A study is a set of cells, with the metrics that score their texts and
the folder of their results.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from cfg_lab.decoding.decoder import CudaGraphs, check_cuda_graphs
from cfg_lab.decoding.row_limit import MaxRows, check_max_rows
from cfg_lab.decoding.sampling import BeamSearch, Sampler
from cfg_lab.errors import InputError
from cfg_lab.guidance import Guidance
from cfg_lab.metrics import Metric
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative
from cfg_lab.prompts import Prompt
from cfg_lab.study.store import Store


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredCell:
    """What the cells of a sweep and of a benchmark have in common.

    Attributes:
        identity: a text that names everything that the cell's texts depend on. Cells with equal identities
            have equal texts.
        settings: the config's plain values under dotted keys, {"guidance.scale": 1.5, …}. They become
            columns of the results.
        label: the settings in which the cell differs from other cells of its study.
        model_key: a text that names the model. Cells of a study that have equal keys share one model.
        model: function that loads the model.
        negatives: object that makes the negative branches of each prompt. A negative branch is a context that
            guidance steers away from.
        guidance: the rule that combines the distributions of the prompt and of the negative branches.
    """

    identity: str
    settings: Mapping[str, Any]
    label: Mapping[str, Any]
    model_key: str
    model: Callable[[], LanguageModel]
    negatives: Negative
    guidance: Guidance

    @cached_property
    def id(self) -> str:
        """The id of the cell: a hash of its identity, 16 hex digits."""
        return blake2b(self.identity.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell(StoredCell):
    """One cell of a study: one combination of settings, for every prompt and sample.

    Attributes:
        prompts: the prompts of the cell.
        sampling: how tokens are chosen.
        seed: seed of the sampling noise, at least 0.
        samples: number of texts per prompt, at least 1. Greedy decoding and beam search always make one text.
        max_new_tokens: largest number of new tokens of a text, at least 1.
        stop: strings that end a text.
        top: number of likeliest tokens to store, at least 0. They are stored for each step and for each
            distribution (guided, positive, negative).

    Raises:
        InputError: a value is out of range.
    """

    prompts: Sequence[Prompt]
    sampling: Sampler | BeamSearch
    seed: int = 0
    samples: int = 2
    max_new_tokens: int = 64
    stop: tuple[str, ...] = ()
    top: int = 5

    def __post_init__(self) -> None:
        _check_whole("samples", self.samples, 1, _MOST_SAMPLES)
        _check_whole("max_new_tokens", self.max_new_tokens, 1)
        _check_whole("seed", self.seed, 0)
        _check_whole("top", self.top, 0)


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredStudy:
    """What a sweep and a benchmark have in common: cells, metrics, and the folder of the results.

    Attributes:
        name: name of the study. Trackers group the runs of the study under this name.
        cells: the cells, in the order in which the printed table shows them.
        metrics: the metrics that score each text.
        store: the results folder.
        provenance: files to write to the results folder, {name: content}: config.yaml, environment.json.
        command: the command line that runs the study.
    """

    name: str
    cells: Sequence[StoredCell]
    metrics: Sequence[Metric]
    store: Store
    provenance: Mapping[str, str] = field(default_factory=dict[str, str])
    command: str = ""


@dataclass(frozen=True, kw_only=True, eq=False)
class Study(StoredStudy):
    """Cells that are decoded as one batch, the metrics that score them, and the folder of their results.

    Attributes:
        max_rows: largest number of rows of the decoder's batch, at least 1; or "auto", see
            `cfg_lab.decoding.row_limit`.
        cuda_graphs: "auto" or "off", see `cfg_lab.decoding.decoder.Decoder`.

    Raises:
        InputError: max_rows is out of range, or cuda_graphs is no option.
    """

    cells: Sequence[Cell]
    max_rows: MaxRows = "auto"
    cuda_graphs: CudaGraphs = "auto"

    def __post_init__(self) -> None:
        check_max_rows(self.max_rows)
        check_cuda_graphs(self.cuda_graphs)


_MOST_SAMPLES = 100_000
"""Largest number of samples with which a study can be planned."""

_MOST = 2**63 - 1
"""Largest number in a column of 64 bits."""


def _check_whole(name: str, value: object, least: int, most: int = _MOST) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        limits = f"of at least {least}" if most == _MOST else f"from {least} to {most:,}"
        if isinstance(value, int) and value > _MOST:
            limits += " and at most 64 bits"
        raise InputError(f"{name} must be a whole number {limits}, got {value!r}")

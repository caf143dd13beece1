"""What a study is, and every text it asks for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

from cfg_lab.decoding import Decoder
from cfg_lab.guidance import Guidance
from cfg_lab.metrics import Metric
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative, PhraseNegative
from cfg_lab.records import InputError, Prompt, Request
from cfg_lab.sampling import BeamSearch, Sampler
from cfg_lab.store import Store
from cfg_lab.tracking import Tracker


@dataclass(frozen=True, kw_only=True, eq=False)
class Cell:
    """One point of the grid: what is held fixed while prompts and samples vary.

    Attributes:
        identity: all of it as text; equal ones are the same cell.
        settings: what of it is plain values, {"guidance.scale": 1.5, …}; columns of the results.
        label: those settings that tell it from the study's other cells.
        model: loads the model; cells of one study with an equal `model_key` share it.
        stop: strings that end a text.
        top: how many of the likeliest tokens are kept of each step.
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
        """Content address."""
        return blake2b(self.identity.encode(), digest_size=8).hexdigest()


@dataclass(frozen=True, kw_only=True, eq=False)
class Study:
    """Cells that are run together, and what is done with their texts.

    Attributes:
        name: the W&B group.
        cells: in the order of the table.
        max_rows: of the decoder.
        record: files to keep with the results, name -> content.
        command: the line that asked for it.
    """

    name: str
    cells: Sequence[Cell]
    metrics: Sequence[Metric]
    store: Store
    tracker: Tracker
    max_rows: int = 128
    record: Mapping[str, str] = field(default_factory=dict[str, str])
    command: str = ""

    def __post_init__(self) -> None:
        _check_whole("max_rows", self.max_rows, 1)


@dataclass(frozen=True, kw_only=True, eq=False)
class Planned:
    """A text of a cell: its prompt, the request that makes it, and the completion's id.

    The prompt's `negative` is what is steered away from: the cell's phrases where it has some of its own.
    """

    prompt: Prompt
    request: Request
    completion: str

    @property
    def score_id(self) -> str:
        """What scores are kept under: the same text beside another reference or negative is another."""
        beside = (self.prompt.reference, self.prompt.negative)
        if beside == (None, None):
            return self.completion
        return f"{self.completion}-{blake2b(repr(beside).encode(), digest_size=6).hexdigest()}"


@dataclass(frozen=True)
class StopStrings:
    """Ends a text once it holds one of the strings."""

    strings: tuple[str, ...]
    decode: Callable[[Sequence[int]], str] = field(repr=False, compare=False)

    def __call__(self, tokens: Sequence[int]) -> bool:
        # A token is at least a byte in nearly every vocabulary: a window is enough, and keeps it linear.
        window = max(len(string.encode()) for string in self.strings) + 8
        text = self.decode(tokens[-window:])
        return any(string in text for string in self.strings)

    def cut(self, text: str) -> str:
        """The text before the first of the strings."""
        return text[: min((text.index(string) for string in self.strings if string in text), default=None)]


def plan(cell: Cell, model: LanguageModel, max_rows: int) -> Iterator[Planned]:
    """Every text of a cell, checked against the model.

    Raises:
        InputError: a prompt does not fit, or its negative cannot be made; names the prompt.
    """
    # Texts that do not depend on noise have one sample, whatever was asked for: copies are no evidence.
    samples = cell.samples if cell.sampling.random else 1
    decoder = Decoder(model, max_rows, cell.negatives.others())
    for asked in cell.prompts:
        prompt = _with_phrases(asked, cell.negatives)
        try:
            positive = model.encode(prompt.text, prompt.system)
            negatives = cell.negatives.branches(prompt, model)
            for sample in range(samples):
                request = Request(
                    positive=positive,
                    negatives=negatives,
                    guidance=cell.guidance,
                    sampling=cell.sampling,
                    max_new_tokens=cell.max_new_tokens,
                    stop_ids=model.stop_ids,
                    stop_when=StopStrings(cell.stop, model.decode) if cell.stop else None,
                    seed=cell.seed,
                    sample=sample,
                    top=cell.top,
                )
                decoder.check(request)
                yield Planned(prompt=prompt, request=request, completion=request.id(model.fingerprint))
        except InputError as error:
            raise InputError(f"prompt {prompt.id!r}: {error}") from error


def _with_phrases(prompt: Prompt, negatives: Negative) -> Prompt:
    if isinstance(negatives, PhraseNegative) and negatives.phrases is not None:
        return replace(prompt, negative=negatives.phrases)
    return prompt


def _check_whole(name: str, value: object, least: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool) or value < least:
        raise InputError(f"{name} must be a whole number of at least {least}, got {value!r}")

"""Students of guidance: a LoRA whose strength is set by the guidance scale.

One forward of a student gives what guidance gives with two. `python -m cfg_lab.learn distil` trains them. A
student's folder has the LoRA in the format of peft, and the file student.json, which says what the LoRA was
trained for. At scale 1 the student is its base.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch

from cfg_lab.errors import InputError
from cfg_lab.models.checkpoint import Checkpoint
from cfg_lab.models.checkpoint.adapter import adapter_files
from cfg_lab.models.language_model import LanguageModel
from cfg_lab.models.load import load_model

STUDENT_FILE = "student.json"
"""Name of the file that says what a student was trained for."""

_VERSION = 1

Strength = Literal["linear", "log"]
"""How the strength of a LoRA follows from the guidance scale, see `strength_at`."""


def strength_at(scale: float, strength: Strength) -> float:
    """The factor of the LoRA's output at a guidance scale. It is 0 at scale 1, where guidance is off.

    Args:
        scale: the guidance scale, above 0.
        strength: "linear" is scale - 1, by which guidance changes log-probs. "log" is log(scale), which grows
            more slowly.
    """
    return scale - 1 if strength == "linear" else math.log(scale)


@dataclass(frozen=True, kw_only=True)
class StudentCard:
    """What a student was trained for: the content of student.json.

    Attributes:
        base: arguments of `load_model` for the model that the LoRA was added to.
        base_fingerprint: hash of the base's weights and config in float32.
        negatives: the option of conf/negatives with its values.
        guidance: the option of conf/guidance with its values; the scale is not used.
        scales: the smallest and the largest scale of training.
        strength: see `strength_at`.
        training: all keys of the training command, as plain values.
        command: the training command.
    """

    base: Mapping[str, Any]
    base_fingerprint: str
    negatives: Mapping[str, Any]
    guidance: Mapping[str, Any]
    scales: tuple[float, float]
    strength: Strength
    training: Mapping[str, Any]
    command: str

    def text(self) -> str:
        """The content of student.json."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=2)

    @classmethod
    def read(cls, folder: Path, key: str = "model.path") -> StudentCard:
        """Read student.json in a student's folder.

        Raises:
            InputError: the folder has no such file, or the file is broken or of another version.
        """
        file = folder / STUDENT_FILE
        if not file.is_file():
            raise InputError(
                f"{key} is {str(folder)!r}, which is no folder with a student: it has no {STUDENT_FILE}; "
                "python -m cfg_lab.learn distil makes one in results_root/name/student"
            )
        try:
            values = cast("dict[str, Any]", json.loads(file.read_text(encoding="utf-8")))
            if values.pop("version") != _VERSION:
                raise InputError(f"{key} is {str(folder)!r}, a student of another version of the lab")
            low, high = map(float, values.pop("scales"))
            card = cls(**values, scales=(low, high))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            if isinstance(error, InputError):
                raise
            raise InputError(f"{key} is {str(folder)!r}, whose file {STUDENT_FILE} is broken") from error
        if card.strength not in get_args(Strength):
            raise InputError(f"{key} is {str(folder)!r}, whose file {STUDENT_FILE} is broken")
        return card

    @property
    def usable_scales(self) -> tuple[float, float]:
        """The scales at which the student can be used: those of training, and those between them and 1."""
        return min(1.0, self.scales[0]), max(1.0, self.scales[1])


def load_student(
    path: str,
    *,
    name: str = "student",
    scale: float = 2.0,
    base: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
) -> LanguageModel:
    """Return a student as a language model: one forward per token gives what guidance gives with two.

    The LoRA is merged into the weights, so the student is as fast as its base.

    Args:
        path: the folder of the student, such as results/student/student.
        name: name of the student in results; the scale is added.
        scale: the guidance scale that the student imitates, from 1 (the base itself) to the largest scale of
            its training. Also scales between trained ones can be used.
        base: the base model, if it now has another name or folder than at the training. None is the name in
            student.json.
        dtype, device: as for `load_model`.

    Raises:
        InputError: there is no student in the folder, its base is not the model that it was trained with, or
            the scale is beyond the scales of training.
    """
    card = StudentCard.read(Path(path))
    low, high = card.usable_scales
    is_number = isinstance(scale, int | float) and not isinstance(scale, bool)
    if not is_number or not low <= scale <= high:
        raise InputError(
            f"model.scale must be a number from {low:g} to {high:g}, because the student in {path!r} was "
            f"trained for the scales from {card.scales[0]:g} to {card.scales[1]:g}, got {scale!r}"
        )
    arguments = {**card.base, **({} if base is None else {"name": base})}
    try:
        load: Any = load_model
        model: LanguageModel = load(**{**arguments, "dtype": dtype, "device": device})
        source = as_base(model)
    except InputError as error:
        raise InputError(f"the base of the student in {path!r}: {error}") from error
    if base_fingerprint(source) != card.base_fingerprint:
        raise InputError(
            f"the student in {path!r} was trained with other weights than those of {arguments['name']!r}; "
            "name its base with model.base=…"
        )
    strength = strength_at(scale, card.strength)
    if strength:
        adapter_files(path)  # checks them
        source = replace(source, adapter=path, adapter_strength=strength)
    return replace(model, name=f"{name} at scale {scale:g}", source=source)


def as_base(model: LanguageModel) -> Checkpoint:
    """The checkpoint of a model that a student can be trained on.

    Raises:
        InputError: the model is of a kind that a student's LoRA cannot be added to.
    """
    source = model.source
    if not isinstance(source, Checkpoint):
        raise InputError(f"model {model.name!r} is not in files, as the base of a student must be")
    problems = {
        "model.adapter is set": source.adapter is not None,
        "model.skip_layers is set": source.skip_layers is not None,
        "it is quantized": source.quantized,
        "it has an encoder": bool(source.config.is_encoder_decoder),
        "it is spread over several devices": source.device_map is not None,
    }
    for problem, is_present in problems.items():
        if is_present:
            raise InputError(
                f"model {model.name!r} cannot be the base of a student: {problem}; use a whole causal model "
                "on one device"
            )
    return source


def base_fingerprint(source: Checkpoint) -> str:
    """Hash of the weights of a base, the same for every dtype in which it runs."""
    return replace(source, dtype=torch.float32, adapter=None).fingerprint()

"""A student in files, made without a training."""

from __future__ import annotations

from pathlib import Path

from cfg_lab.learning.lora import TrainedLora
from cfg_lab.models import load_model
from cfg_lab.models.student import STUDENT_FILE, StudentCard, as_base, base_fingerprint


def write_student(folder: Path, model: Path) -> None:
    """Write a student of a model, for the scales from 1 to 3. It has learned nothing: it equals its base."""
    source = as_base(load_model(str(model)))
    card = StudentCard(
        base={"name": str(model)},
        base_fingerprint=base_fingerprint(source),
        negatives={},
        guidance={},
        scales=(1.0, 3.0),
        strength="linear",
        training={},
        command="",
    )
    TrainedLora(source.load(), rank=1, seed=0).save(folder, {STUDENT_FILE: card.text()})

"""A model in files: a local folder, or a repository of the Hugging Face hub."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM, GenerationConfig
from transformers.utils import (
    CONFIG_NAME,
    SAFE_WEIGHTS_INDEX_NAME,
    SAFE_WEIGHTS_NAME,
    WEIGHTS_INDEX_NAME,
    WEIGHTS_NAME,
    hub,
)

from cfg_lab.errors import InputError
from cfg_lab.models.fingerprint import fingerprint_of_files, fingerprint_of_parameters
from cfg_lab.models.layer_skipping import without_layers

_WEIGHT_FILES = (SAFE_WEIGHTS_NAME, SAFE_WEIGHTS_INDEX_NAME, WEIGHTS_NAME, WEIGHTS_INDEX_NAME)
"""In the order in which transformers looks for them. An index lists the files of weights in several files."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in files, loaded with a given dtype to a given device.

    Attributes:
        location: a local folder or a hub id.
        config: the transformers config of the checkpoint.
        dtype: the dtype of the loaded weights, whatever the dtype in the files.
        skip_layers: (first, end): the layers from `first` up to but not including `end` are left out, see
            `without_layers`. None keeps all layers.
    """

    location: str
    config: Any
    device: torch.device
    dtype: torch.dtype
    skip_layers: tuple[int, int] | None = None

    @cached_property
    def generation_config(self) -> Any:
        """The GenerationConfig that transformers gives the loaded model."""
        try:
            return GenerationConfig.from_pretrained(self.location)
        except OSError:  # old checkpoints have generation settings in the model's config
            return cast("Any", GenerationConfig).from_pretrained(
                self.location, config_file_name=CONFIG_NAME, _from_model_config=True
            )

    def fingerprint(self) -> str:
        """Hash of the weight files, the config, the dtype and the skipped layers.

        No weights are loaded if it is known which files transformers would load. Otherwise the weights are
        loaded, and the fingerprint is the hash of the loaded parameters.
        """
        files = self._weight_files()
        if files is None:
            return fingerprint_of_parameters(self.load())
        settings = {"dtype": str(self.dtype), "skip_layers": self.skip_layers}
        return fingerprint_of_files(files, self.config, settings)

    def load(self) -> Any:
        """The transformers model with its weights.

        Raises:
            InputError: there are no weight files, or transformers cannot read them.
        """
        auto: Any = AutoModelForSeq2SeqLM if self.config.is_encoder_decoder else AutoModelForCausalLM
        try:
            model = auto.from_pretrained(self.location, config=self.config, dtype=self.dtype)
        except (OSError, ValueError) as error:
            reason = str(error).splitlines()[0]
            raise InputError(f"the weights of model {self.location!r} cannot be loaded: {reason}") from error
        if self.skip_layers is not None:
            model = without_layers(model, self.skip_layers)
        return model.to(self.device)

    def _weight_files(self) -> list[Path] | None:
        """The files that `load` reads weights from; None if these files are not known.

        Files of a hub repository are downloaded. The files are not known in three cases: for an adapter,
        which refers to another checkpoint; for a config that names its own weight file; and if a file is
        missing.
        """
        if self._file("adapter_config.json") or getattr(self.config, "transformers_weights", None):
            return None
        for name in _WEIGHT_FILES:
            path = self._file(name)
            if path is None:
                continue
            if not name.endswith(".index.json"):
                return [path]
            shards = sorted(set(json.loads(path.read_text())["weight_map"].values()))
            files = [self._file(shard) for shard in shards]
            return None if None in files else cast("list[Path]", files)
        return None

    def _file(self, name: str) -> Path | None:
        """The path of the checkpoint's file with this name; None if the checkpoint has no such file."""
        if Path(self.location).is_dir():
            path = Path(self.location, name)
            return path if path.is_file() else None
        path = cast("Any", hub).cached_file(self.location, name, _raise_exceptions_for_missing_entries=False)
        return None if path is None else Path(path)

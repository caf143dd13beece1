"""Sources of a language model. A source gives the configs, the weights and a fingerprint of the weights."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import torch

from cfg_lab.models.checkpoint.fingerprint import fingerprint_of_parameters
from cfg_lab.models.checkpoint.placement import input_device


class ModelSource(Protocol):
    """Gives a transformers model to `LanguageModel`.

    Only `load` may load weights, so that a sweep can be planned without them.
    """

    @property
    def config(self) -> Any:
        """The transformers config of the model."""
        ...

    @property
    def generation_config(self) -> Any:
        """The transformers GenerationConfig of the model."""
        ...

    @property
    def device(self) -> torch.device:
        """The device that the loaded model is on; of a model on several devices, where its inputs enter."""
        ...

    def fingerprint(self) -> str:
        """Hash that identifies the weights, their dtype and the config.

        Two models with equal fingerprints give equal texts for equal requests.
        """
        ...

    def load(self) -> Any:
        """The transformers model with its weights, on `device`."""
        ...


@dataclass(frozen=True)
class LoadedModel:
    """A transformers model that is in memory already. It keeps its devices and its dtype."""

    model: Any

    @property
    def config(self) -> Any:
        return self.model.config

    @property
    def generation_config(self) -> Any:
        return self.model.generation_config

    @property
    def device(self) -> torch.device:
        return input_device(self.model)

    def fingerprint(self) -> str:
        """Hash of the config and of every parameter."""
        return fingerprint_of_parameters(self.model)

    def load(self) -> Any:
        return self.model

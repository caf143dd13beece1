"""The class `Checkpoint`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    AutoModelForCausalLM,
    AutoModelForSeq2SeqLM,
    GenerationConfig,
    GgufConfig,
)
from transformers.utils import CONFIG_NAME, GENERATION_CONFIG_NAME

from cfg_lab.errors import errors_of_libraries
from cfg_lab.models.checkpoint.adapter import ADAPTER_CONFIG, adapter_files, with_adapter
from cfg_lab.models.checkpoint.fingerprint import (
    content_hash,
    fingerprint_of_files,
    fingerprint_of_parameters,
    hash_of_remote_code,
)
from cfg_lab.models.checkpoint.layer_skipping import without_layers
from cfg_lab.models.checkpoint.placement import placed
from cfg_lab.models.checkpoint.quantization import quantization_config, stored_quantization
from cfg_lab.models.checkpoint.weights import check_whole, file_of, load_pretrained, weight_files


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """A model in files, loaded with a given dtype to a given device.

    Attributes:
        location: a local folder or a hub id.
        config: the transformers config of the checkpoint.
        device: the device of the loaded weights. If the model is spread, the device that the decoder uses.
        dtype: the dtype of the loaded weights, whatever the dtype in the files.
        device_map: how the model is spread over several devices, as `from_pretrained` of transformers takes
            it: "balanced", or the device of each part by its name. None means that it is not spread.
        skip_layers: (first, end): the layers from `first` up to but not including `end` are left out, see
            `without_layers`. None keeps all layers.
        revision: branch, tag or commit of a hub id; None is the main branch.
        gguf_file: name of a GGUF file in the folder or repository, which has the weights.
        adapter: folder or hub id of an adapter, see `with_adapter`.
        adapter_strength: factor of what the adapter adds to the weights.
        quantization: the result of `quantization_settings`; None leaves the weights as they are.
        attn_implementation: transformers' name of the attention function; None is its own choice.
        trust_remote_code: whether the checkpoint's Python code may run.
    """

    location: str
    config: Any
    device: torch.device
    dtype: torch.dtype
    device_map: str | Mapping[str, Any] | None = None
    skip_layers: tuple[int, int] | None = None
    revision: str | None = None
    gguf_file: str | None = None
    adapter: str | None = None
    adapter_strength: float = 1.0
    quantization: Mapping[str, Any] | None = None
    attn_implementation: str | None = None
    trust_remote_code: bool = False

    @property
    def quantized(self) -> bool:
        """Whether the loaded weights are quantized: by `quantization`, or in the files already."""
        return self.quantization is not None or stored_quantization(self.config) is not None

    @cached_property
    def generation_config(self) -> Any:
        """The GenerationConfig that transformers gives the loaded model.

        Raises:
            InputError: its file cannot be read.
        """
        if self.gguf_file is not None:
            return GenerationConfig.from_model_config(self.config)
        arguments: dict[str, Any] = {}
        if file_of(self.location, GENERATION_CONFIG_NAME, self.revision) is None:
            # Old checkpoints have generation settings in the model's config.
            arguments = {"config_file_name": CONFIG_NAME, "_from_model_config": True}
        with errors_of_libraries(f"the generation settings of model {self.location!r} cannot be read"):
            return cast("Any", GenerationConfig).from_pretrained(
                self.location, revision=self.revision, **arguments
            )

    def fingerprint(self) -> str:
        """Hash of the weight files, the config, and everything else that changes what the model computes.

        No weights are loaded if it is known which files transformers would load. Otherwise the weights are
        loaded, and the fingerprint is the hash of the loaded parameters.

        Raises:
            InputError: a weight file is broken or missing, or the weights do not fit the model.
        """
        files = self._weight_files()
        if files is None:
            return fingerprint_of_parameters(self.load())
        if self.gguf_file is None:
            for file in files:
                check_whole(file, f"model {self.location!r}")
            self._check_without_weights()
        settings = {
            "dtype": str(self.dtype),
            "skip_layers": self.skip_layers,
            **self._optional_settings(),
        }
        return fingerprint_of_files(files, self.config, settings)

    def load(self) -> Any:
        """The transformers model with its weights.

        Raises:
            InputError: there are no weight files, transformers cannot read them, or they do not fit the
                model; or the memory of the devices over which the model is spread does not suffice.
        """
        arguments: dict[str, Any] = {}
        if self.gguf_file is not None:
            arguments |= {"gguf_file": self.gguf_file, "quantization_config": GgufConfig(dequantize=True)}
        if self.quantization is not None:
            arguments["quantization_config"] = quantization_config(self.quantization)
        if self.device_map is not None:
            arguments["device_map"] = self.device_map
        elif self.quantized:
            arguments["device_map"] = {"": self.device}  # quantized weights cannot move to a device later
        model = self._from_pretrained(**arguments)
        if self.device_map is not None:
            model = placed(model, self.device, f"model {self.location!r}")
        if self.adapter is not None:
            model = with_adapter(
                model, self.adapter, merge=not self.quantized, strength=self.adapter_strength
            )
        if self.skip_layers is not None:
            model = without_layers(model, self.skip_layers)
        return model if "device_map" in arguments else model.to(self.device)

    def _from_pretrained(self, **arguments: Any) -> Any:
        auto: Any = AutoModelForSeq2SeqLM if self.config.is_encoder_decoder else AutoModelForCausalLM
        subject = f"model {self.location!r}"
        if self.attn_implementation is not None:
            arguments["attn_implementation"] = self.attn_implementation
            subject += f" with model.attn_implementation={self.attn_implementation!r}"
        return load_pretrained(
            auto,
            self.location,
            subject,
            config=self.config,
            revision=self.revision,
            dtype=self.dtype,
            trust_remote_code=self.trust_remote_code,
            **arguments,
        )

    def _check_without_weights(self) -> None:
        """Raise InputError if the weights do not fit, in the cases in which this is likely.

        The likely cases are a checkpoint that was saved from a model of another class, an adapter of another
        model, and an attention function that does not exist. transformers compares names and shapes in the
        files with the model, but reads no values (20 ms for a small model).
        """
        if stored_quantization(self.config) is not None:
            return
        expected: Any = cast("Any", MODEL_FOR_CAUSAL_LM_MAPPING).get(type(self.config), None)
        saved_from_another_class = expected is not None and self.config.architectures != [
            getattr(expected, "__name__", None)
        ]
        if saved_from_another_class or self.attn_implementation is not None or self.adapter is not None:
            model = self._from_pretrained(device_map="meta")
            if self.adapter is not None:
                with_adapter(model, self.adapter, merge=False)

    def _optional_settings(self) -> dict[str, Any]:
        """The settings that are set and change what the model computes, as name -> JSON data.

        Settings that are not set are left out: so an older model keeps the fingerprint that it had before
        these settings existed.
        """
        settings: dict[str, Any] = {}
        if self.adapter is not None:
            settings["adapter"] = [content_hash(file) for file in adapter_files(self.adapter)]
            if self.adapter_strength != 1:
                settings["adapter_strength"] = self.adapter_strength
        if self.quantization is not None:
            settings["quantization"] = dict(self.quantization)
        if self.attn_implementation is not None:
            settings["attn_implementation"] = self.attn_implementation
        if self.trust_remote_code:
            code = hash_of_remote_code(self.config, self.location, self.revision)
            if code is not None:
                settings["code"] = code
        return settings

    def _weight_files(self) -> list[Path] | None:
        """The files that `load` reads weights from; None if these files are not known.

        Files of a hub repository are downloaded. The files are not known if the folder has an adapter, which
        refers to another checkpoint; if the config names its own weight file; or if a file is missing.
        """
        if self.gguf_file is not None:
            file = file_of(self.location, self.gguf_file, self.revision)
            return None if file is None else [file]
        if getattr(self.config, "transformers_weights", None) is not None:
            return None
        if file_of(self.location, ADAPTER_CONFIG, self.revision) is not None:
            return None
        return weight_files(self.location, self.revision)

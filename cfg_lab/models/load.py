"""Loading a language model by name: an option of conf/model, a local folder, or a Hugging Face hub id."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
    AutoTokenizer,
)
from transformers.utils import logging

from cfg_lab.errors import InputError
from cfg_lab.models.checkpoint import Checkpoint
from cfg_lab.models.encoder_decoder import EncoderDecoder
from cfg_lab.models.language_model import LanguageModel, PromptFormat
from cfg_lab.models.layer_skipping import check_skip
from cfg_lab.models.option import with_option_defaults
from cfg_lab.models.packaged import PACKAGED, packaged_model
from cfg_lab.models.source import LoadedModel
from cfg_lab.options import option_names

logging.disable_progress_bar()


@with_option_defaults
def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    prompt_format: PromptFormat = "auto",
    skip_layers: Sequence[int] | None = None,
) -> LanguageModel:
    """Return a language model with its tokenizer. Its weights are loaded when they are first needed.

    Args:
        name: an option of conf/model ("smollm2"), a local folder, or a hub id ("openai-community/gpt2").
            The values in an option's YAML file are the defaults of the other arguments.
        dtype: a torch dtype ("float32", "bfloat16"); "auto" is bfloat16 on CUDA and float32 on CPU.
        device: a torch device ("cpu", "cuda:1"); "auto" is CUDA if the machine has it, else the CPU.
        prompt_format: "chat", "plain", or "auto": chat if the tokenizer has a chat template, else plain.
        skip_layers: [first, end]: leave out the layers from `first` up to but not including `end`. This
            makes a weaker model of the same family, for guidance between models. None keeps all layers.

    Raises:
        InputError: there is no such model, dtype or device, or the model is not a language model.
    """
    torch_device = _device(device)
    location = str(packaged_model(name)) if name in PACKAGED else name
    try:
        tokenizer = cast("Any", AutoTokenizer).from_pretrained(location)
        config = cast("Any", AutoConfig).from_pretrained(location)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.name is {name!r}, which is neither an option of conf/model "
            f"({', '.join(option_names('model'))}), nor a folder with a model, nor a reachable hub id: "
            f"{str(error).splitlines()[0]}"
        ) from error
    _check_kind(name, config)
    if skip_layers is not None:
        check_skip(config, skip_layers)
        name = f"{name} without layers {skip_layers[0]} to {skip_layers[1] - 1}"
    source = Checkpoint(
        location=location,
        config=config,
        device=torch_device,
        dtype=_dtype(dtype, torch_device),
        skip_layers=None if skip_layers is None else (skip_layers[0], skip_layers[1]),
    )
    kind = EncoderDecoder if config.is_encoder_decoder else LanguageModel
    return kind(name, source, tokenizer, prompt_format, pack=True)


def from_transformers(
    model: Any, tokenizer: Any = None, *, prompt_format: PromptFormat = "auto"
) -> LanguageModel:
    """Wrap a transformers model that is in memory already. It keeps its device and its dtype."""
    name = model.config.name_or_path or type(model).__name__
    kind = EncoderDecoder if model.config.is_encoder_decoder else LanguageModel
    return kind(name, LoadedModel(model), tokenizer, prompt_format)


def _check_kind(name: str, config: Any) -> None:
    """Raise InputError unless transformers has a language model for the config.

    `Checkpoint.load` would fail as well, but only after a sweep has been planned and its cells written.
    """
    encoder_decoder = bool(config.is_encoder_decoder)
    mapping: Any = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    if type(config) not in mapping:
        raise InputError(
            f"model.name is {name!r}, a model of type {config.model_type!r}, which is not a language model"
        )


def _device(name: str) -> torch.device:
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    try:
        # The device of a tensor has its number: "cuda" becomes "cuda:0".
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"model.device is {name!r}, which this machine does not have; use auto or cpu"
        ) from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"model.dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return dtype

"""Finding a model by name: a config of the lab, a folder, or a Hugging Face hub id."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, cast

import torch
import yaml
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM, AutoTokenizer
from transformers.utils import logging

from cfg_lab.errors import InputError
from cfg_lab.models.encoder_decoder import EncoderDecoder
from cfg_lab.models.language_model import LanguageModel, PromptFormat
from cfg_lab.models.layer_skipping import check_skip, without_layers
from cfg_lab.models.packaged import PACKAGED, packaged_model
from cfg_lab.options import CONFIG, option_names

logging.disable_progress_bar()


def load_model(
    name: str,
    *,
    dtype: str = "auto",
    device: str = "auto",
    prompt_format: PromptFormat = "auto",
    skip_layers: Sequence[int] | None = None,
) -> LanguageModel:
    """A language model with its tokenizer: one that continues texts, or an encoder-decoder.

    Args:
        name: an option of conf/model ("smollm2"), a local folder, or a hub id ("openai-community/gpt2").
        dtype: a torch dtype ("float32", "bfloat16"); "auto" is bfloat16 on CUDA and float32 on CPU.
        device: a torch device ("cpu", "cuda:1"); "auto" is CUDA where there is one.
        prompt_format: "chat", "plain", or "auto": chat where the tokenizer has a template.
        skip_layers: [first, end], layers from `first` up to but not including `end` are left out: a weaker
            model of the same family, for guidance between models. None keeps all.

    Raises:
        InputError: there is no such model, dtype or device, or it is not a language model.
    """
    where, torch_dtype = _device(device), _dtype(dtype, device)
    source = _source(name)
    try:
        tokenizer = cast("Any", AutoTokenizer).from_pretrained(source)
        config = cast("Any", AutoConfig).from_pretrained(source)
    except (OSError, ValueError) as error:
        raise InputError(
            f"model.name is {name!r}, which is neither an option of conf/model "
            f"({', '.join(option_names('model'))}), nor a folder with a model, nor a reachable hub id: "
            f"{str(error).splitlines()[0]}"
        ) from error
    if skip_layers is not None:
        check_skip(config, skip_layers)
        name = f"{name} without layers {skip_layers[0]} to {skip_layers[1] - 1}"
    load = partial(_weights, source, config, where, torch_dtype, skip_layers)
    kind = EncoderDecoder if config.is_encoder_decoder else LanguageModel
    return kind(name, load, tokenizer, config, prompt_format, pack=True)


def from_transformers(
    model: Any, tokenizer: Any = None, *, prompt_format: PromptFormat = "auto"
) -> LanguageModel:
    """Wrap a model that is in memory already; it is used as it is, on its device and in its dtype."""
    name = model.config.name_or_path or type(model).__name__
    kind = EncoderDecoder if model.config.is_encoder_decoder else LanguageModel
    return kind(name, lambda: model, tokenizer, model.config, prompt_format)


def _source(name: str) -> str:
    """The folder or hub id a name stands for."""
    if name in PACKAGED:
        return str(packaged_model(name))
    if Path(name).is_dir():
        return name
    option = CONFIG / "model" / f"{name}.yaml"
    if option.is_file():
        return yaml.safe_load(option.read_text())["name"]
    return name


def _weights(
    source: str, config: Any, device: torch.device, dtype: torch.dtype, skip: Sequence[int] | None
) -> Any:
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    model = auto.from_pretrained(source, config=config, dtype=dtype)
    return (model if skip is None else without_layers(model, skip)).to(device)


def _device(name: str) -> torch.device:
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        raise InputError(
            f"model.device is {name!r}, which this machine does not have; use auto or cpu"
        ) from error
    return device


def _dtype(name: str, device: str) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if _device(device).type == "cuda" else torch.float32
    dtype = getattr(torch, name, None)
    if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
        raise InputError(f"model.dtype must be auto, float32, bfloat16 or float16, got {name!r}")
    return dtype

"""Loading a language model by name: an option of conf/model, a local folder, or a Hugging Face hub id."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, cast

import torch
from transformers import (
    MODEL_FOR_CAUSAL_LM_MAPPING,
    MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING,
    AutoConfig,
)
from transformers.utils import logging

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.models.checkpoint import Checkpoint
from cfg_lab.models.checkpoint.adapter import ADAPTER_CONFIG, adapter_files, check_peft
from cfg_lab.models.checkpoint.layer_skipping import check_skip
from cfg_lab.models.checkpoint.quantization import check_stored_quantization, quantization_settings
from cfg_lab.models.default_device import default_device
from cfg_lab.models.encoder_decoder import EncoderDecoder
from cfg_lab.models.kept import keep_packaged
from cfg_lab.models.language_model import LanguageModel, PromptFormat
from cfg_lab.models.option import with_option_defaults
from cfg_lab.models.packaged import PACKAGED, packaged_model
from cfg_lab.models.source import LoadedModel
from cfg_lab.models.tokenization.tokenizer import load_tokenizer
from cfg_lab.options import option_names

logging.disable_progress_bar()

DTYPES = ("float32", "bfloat16", "float16", "float64")
"""The dtypes in which a model can run."""

_BALANCED = "balanced"
"""The value of model.device that spreads a model over all visible GPUs."""

_CLASSIFIERS = (
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForQuestionAnswering",
    "ForMultipleChoice",
)
"""Ends of the names of transformers classes for models that classify."""


@with_option_defaults
@keep_packaged
def load_model(
    name: str,
    *,
    revision: str | None = None,
    gguf_file: str | None = None,
    adapter: str | None = None,
    dtype: str = "auto",
    device: str = "auto",
    quantization: str | Mapping[str, Any] | None = None,
    attn_implementation: str | None = None,
    trust_remote_code: bool = False,
    prompt_format: PromptFormat = "auto",
    chat_template: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
    skip_layers: Sequence[int] | None = None,
) -> LanguageModel:
    """Return a language model with its tokenizer. Its weights are loaded when they are first needed.

    Args:
        name: an option of conf/model ("smollm2"), a local folder, or a hub id ("openai-community/gpt2").
            The values in an option's YAML file are the defaults of the other arguments.
        revision: branch, tag or commit of a hub id; None is the main branch.
        gguf_file: name of a GGUF file in the folder or hub repository, with weights, config and tokenizer.
            Its weights are converted to `dtype`. None reads the usual files.
        adapter: folder or hub id of a PEFT adapter, such as a LoRA, that was trained for the model. It is
            added to the weights. Needs the package peft.
        dtype: a torch dtype ("float32", "bfloat16"); "auto" is bfloat16 on CUDA and float32 on CPU.
        device: a torch device ("cpu", "cuda:1"); "auto" is CUDA if the machine has it, else the CPU.
            "balanced" spreads the layers over all visible GPUs, for a model that is too large for one. With
            fewer than two GPUs it is the same as "auto". It was tried on CPUs only: with the hooks of
            accelerate, and with two pretended GPUs (but for quantized weights).
        quantization: a quantization method of transformers: by its name ("bitsandbytes_4bit", "quanto") with
            default arguments, or with arguments ({"quant_method": "bitsandbytes", "load_in_4bit": True}).
            Most methods need a package of their own. None leaves the weights as they are.
        attn_implementation: how transformers computes attention ("eager", "sdpa"); None is its own choice.
            The name of a kernel on the hub ("org/kernel") needs `trust_remote_code`.
        trust_remote_code: run Python code that comes with the checkpoint, if the model needs it. The code
            can do anything that you can do on this machine, so read it first.
        prompt_format: "chat", "plain", or "auto": chat if the tokenizer has a chat template, else plain.
        chat_template: name of one of the tokenizer's chat templates, or path of a file with a template in
            Jinja; None is the tokenizer's default template. Every template is told that today is 26 July
            2024, because a study with the real date would have other texts every day.
        template_arguments: values for variables that the chat template reads ({"enable_thinking": False}).
        skip_layers: [first, end]: leave out the layers from `first` up to but not including `end`. This
            makes a weaker model of the same family, for guidance between models. None keeps all layers.

    Raises:
        InputError: there is no such model, dtype or device; the model is not a language model; a file of the
            checkpoint is broken or missing; or an argument does not fit the model.
    """
    if not isinstance(trust_remote_code, bool):  # the text "false" would count as true
        raise InputError(f"model.trust_remote_code must be true or false, got {trust_remote_code!r}")
    if attn_implementation is not None and "/" in attn_implementation and not trust_remote_code:
        raise InputError(
            f"model.attn_implementation is {attn_implementation!r}, a kernel that would be downloaded and "
            "run; name a function of transformers such as sdpa, or allow it with model.trust_remote_code=true"
        )
    # The decoder uses the first GPU. accelerate moves tensors to the GPU of each layer, and the logits back.
    spread = device == _BALANCED and torch.accelerator.device_count() > 1
    torch_device = torch.device(0) if spread else _device("auto" if device == _BALANCED else device)
    torch_dtype = _dtype(dtype, torch_device)
    location = str(packaged_model(name)) if name in PACKAGED else name
    _check_files(name, location, revision, gguf_file)
    if quantization is not None and gguf_file is not None:
        raise InputError("model.quantization and model.gguf_file cannot be combined; set one of them to null")
    arguments = {"revision": revision, "gguf_file": gguf_file, "trust_remote_code": trust_remote_code}
    with _permission_to_run_code(name):
        with errors_of_libraries(_unreadable(name, location, gguf_file)):
            config = cast("Any", AutoConfig).from_pretrained(location, **arguments)
        _check_kind(name, config, trust_remote_code)
        check_stored_quantization(config, name, quantization)
        tokenizer = load_tokenizer(name, location, arguments)
    settings = None if quantization is None else quantization_settings(quantization)
    if adapter is not None:
        adapter_files(adapter)  # checks them
        name = f"{name} with adapter {adapter}"
    if skip_layers is not None:
        check_skip(config, skip_layers)
        name = f"{name} without layers {skip_layers[0]} to {skip_layers[1] - 1}"
    source = Checkpoint(
        location=location,
        config=config,
        device=torch_device,
        dtype=torch_dtype,
        device_map="balanced" if spread else None,
        skip_layers=None if skip_layers is None else (skip_layers[0], skip_layers[1]),
        revision=revision,
        gguf_file=gguf_file,
        adapter=adapter,
        quantization=settings,
        attn_implementation=attn_implementation,
        trust_remote_code=trust_remote_code,
    )
    kind = EncoderDecoder if config.is_encoder_decoder else LanguageModel
    return kind(
        name,
        source,
        tokenizer,
        prompt_format,
        # Packed layers compute attention in a way of their own, with weights that are not quantized.
        pack=not source.quantized and attn_implementation is None,
        chat_template=chat_template,
        template_arguments=template_arguments,
    )


def from_transformers(
    model: Any,
    tokenizer: Any = None,
    *,
    prompt_format: PromptFormat = "auto",
    chat_template: str | None = None,
    template_arguments: Mapping[str, Any] | None = None,
) -> LanguageModel:
    """Wrap a transformers model that is in memory already. It keeps its device and its dtype.

    Args:
        model: the transformers model.
        tokenizer: its transformers tokenizer; None if the model is only given token ids.
        prompt_format, chat_template, template_arguments: as for `load_model`.
    """
    name = model.config.name_or_path or type(model).__name__
    kind = EncoderDecoder if model.config.is_encoder_decoder else LanguageModel
    return kind(
        name,
        LoadedModel(model),
        tokenizer,
        prompt_format,
        chat_template=chat_template,
        template_arguments=template_arguments,
    )


def _check_files(name: str, location: str, revision: str | None, gguf_file: str | None) -> None:
    """Raise InputError if `name` is a file or an adapter, or has no such revision or GGUF file."""
    path = Path(location)
    if path.is_file():
        folder, file = path.parent, path.name
        hint = f"; use model.name={folder} model.gguf_file={file}" if path.suffix == ".gguf" else ""
        raise InputError(f"model.name is {name!r}, which is a file and not a folder with a model{hint}")
    if not path.is_dir():
        return
    if revision is not None:
        raise InputError(
            f"model.revision is {revision!r}, but model {name!r} is a folder, which has no revisions; "
            "set model.revision=null"
        )
    if gguf_file is not None and not (path / gguf_file).is_file():
        files = ", ".join(sorted(file.name for file in path.glob("*.gguf"))) or "none"
        raise InputError(
            f"model.gguf_file is {gguf_file!r}, which is not in the folder {name!r}; its GGUF files: {files}"
        )
    if (path / ADAPTER_CONFIG).is_file():
        if not (path / "config.json").is_file():
            raise InputError(
                f"model.name is {name!r}, which is an adapter; use model.adapter={location}, and as "
                "model.name the model that it was trained for"
            )
        check_peft()  # without it, transformers would load the model and leave out the adapter


def _unreadable(name: str, location: str, gguf_file: str | None) -> str:
    """The beginning of the message if a model's config cannot be read."""
    if gguf_file is not None:
        return f"model.gguf_file is {gguf_file!r}, which cannot be read in {name!r}"
    if Path(location, "config.json").is_file():
        return f"the config of model {name!r} cannot be read"
    return (
        f"model.name is {name!r}, which is neither an option of conf/model "
        f"({', '.join(option_names('model'))}), nor a folder with a model, nor a reachable hub id"
    )


def _check_kind(name: str, config: Any, trust_remote_code: bool) -> None:
    """Raise InputError if a checkpoint is not that of a language model.

    `Checkpoint.load` would fail as well, but only after a sweep has been planned and its cells written.
    """
    encoder_decoder = bool(config.is_encoder_decoder)
    mapping: Any = MODEL_FOR_SEQ_TO_SEQ_CAUSAL_LM_MAPPING if encoder_decoder else MODEL_FOR_CAUSAL_LM_MAPPING
    auto_class = "AutoModelForSeq2SeqLM" if encoder_decoder else "AutoModelForCausalLM"
    code: Mapping[str, str] = getattr(config, "auto_map", None) or {}
    if type(config) not in mapping and not (trust_remote_code and auto_class in code):
        raise InputError(
            f"model.name is {name!r}, a model of type {config.model_type!r}, which is not a language model"
        )
    architectures: Sequence[str] = config.architectures or ()
    if any(architecture.endswith(_CLASSIFIERS) for architecture in architectures):
        raise InputError(
            f"model.name is {name!r}, whose checkpoint is a {', '.join(architectures)}: it classifies texts, "
            "and is not a language model"
        )


@contextmanager
def _permission_to_run_code(name: str) -> Generator[None]:
    """If transformers asks for permission to run code in a `with` block, say how to give it."""
    try:
        yield
    except InputError as error:
        if "trust_remote_code" not in str(error.__cause__):
            raise
        raise InputError(
            f"model {name!r} needs Python code that comes with its checkpoint; read the code, then allow it "
            "with model.trust_remote_code=true"
        ) from error


def _device(name: str) -> torch.device:
    if name == "auto":
        return default_device()
    try:
        # The device of a tensor has its number: "cuda" becomes "cuda:0".
        return torch.empty(0, device=name).device
    except (RuntimeError, AssertionError, TypeError) as error:
        raise InputError(
            f"model.device is {name!r}, which this machine does not have; use auto, balanced or cpu"
        ) from error


def _dtype(name: str, device: torch.device) -> torch.dtype:
    if name == "auto":
        return torch.bfloat16 if device.type == "cuda" else torch.float32
    if name not in DTYPES:
        raise InputError(f"model.dtype must be auto, {', '.join(DTYPES)}, got {name!r}")
    return getattr(torch, name)

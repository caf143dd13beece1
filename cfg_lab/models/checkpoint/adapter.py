"""Adapters: small sets of weights that change a model, such as LoRA. The package peft loads them."""

from __future__ import annotations

import warnings
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from cfg_lab.errors import InputError, errors_of_libraries
from cfg_lab.models.checkpoint.weights import check_whole, file_of

ADAPTER_CONFIG = "adapter_config.json"
"""Name of the file with the settings of an adapter."""

_ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""In the order in which peft looks for them."""


def check_peft() -> None:
    """Raise InputError if the package peft is not installed."""
    if find_spec("peft") is None:
        raise InputError("an adapter needs the package peft; install it with pip install 'cfg-lab[peft]'")


def adapter_files(adapter: str) -> list[Path]:
    """Find the files of an adapter, its settings and its weights, and check them.

    Args:
        adapter: a local folder or a hub id.

    Raises:
        InputError: there is no such adapter, its weights are broken, or peft is not installed.
    """
    check_peft()
    described = f"model.adapter is {adapter!r}, which is neither a folder with an adapter nor a hub id"
    with errors_of_libraries(described):
        config = file_of(adapter, ADAPTER_CONFIG)
        weights = next((file for name in _ADAPTER_WEIGHTS if (file := file_of(adapter, name))), None)
    if config is None or weights is None:
        missing = ADAPTER_CONFIG if config is None else _ADAPTER_WEIGHTS[0]
        raise InputError(f"{described}: it has no {missing}")
    check_whole(weights, f"adapter {adapter!r}")
    return [config, weights]


def with_adapter(model: Any, adapter: str, *, merge: bool, strength: float = 1.0) -> Any:
    """The transformers model with an adapter.

    Args:
        model: a transformers model without adapters. It is changed.
        adapter: a local folder or a hub id.
        merge: add the adapter to the model's weights, so that the result is as fast as the model alone.
            Nothing can be added to quantized weights: for them the adapter stays in separate layers.
        strength: factor of what the adapter adds to the weights; only 1 for adapters other than LoRA.

    Raises:
        InputError: the adapter does not fit the model, or is of a kind that does not change weights.
    """
    peft: Any = import_module("peft")  # optional, and slow to import
    with (
        errors_of_libraries(f"model.adapter is {adapter!r}, which cannot be loaded"),
        warnings.catch_warnings(),
    ):
        warnings.simplefilter("ignore")  # peft warns of weights that do not fit; here they are an error
        adapted = peft.PeftModel.from_pretrained(model, adapter)
        if adapted.active_peft_config.is_prompt_learning:
            raise InputError(
                f"model.adapter is {adapter!r}, which adds tokens to prompts "
                f"({adapted.active_peft_config.peft_type.value}); use one that changes weights"
            )
        stored = peft.load_peft_weights(adapter, device="cpu")
        loaded = peft.get_peft_model_state_dict(adapted, save_embedding_layers=False)
        missing = loaded.keys() - stored.keys()
        unused = stored.keys() - loaded.keys() - adapted.state_dict().keys()
        if missing or unused:
            example = min(missing or unused)
            raise InputError(
                f"model.adapter is {adapter!r}, which was trained for another model: {example} "
                f"{'is not in the adapter' if missing else 'has no place in the model'}"
            )
        if strength != 1:
            set_strength(adapted, strength)
        return adapted.merge_and_unload(safe_merge=True) if merge else adapted.get_base_model()


def set_strength(adapted: Any, strength: float) -> None:
    """Set the factor of what a LoRA adds to the weights of a model. 1 is the LoRA as it was trained.

    Args:
        adapted: a model of peft with a LoRA. It is changed.
        strength: the factor; 0 gives the model without the LoRA, exactly.
    """
    lora: Any = import_module("peft.tuners.lora")
    for layer in adapted.modules():
        if isinstance(layer, lora.LoraLayer):
            for name in layer.active_adapters:
                layer.set_scale(name, strength)

"""Quantization: weights of fewer bits, by one of the methods that transformers supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from transformers.quantizers import auto

from cfg_lab.errors import InputError, errors_of_libraries

_NAMED_SETTINGS: dict[str, dict[str, Any]] = {
    "bitsandbytes_4bit": {"quant_method": "bitsandbytes", "load_in_4bit": True},
    "bitsandbytes_8bit": {"quant_method": "bitsandbytes", "load_in_8bit": True},
}
"""Names of transformers for two methods that share one config class."""


def quantization_settings(quantization: str | Mapping[str, Any]) -> dict[str, Any]:
    """The method and arguments that `model.quantization` describes, checked.

    Args:
        quantization: the name of a method, for its default arguments ("bitsandbytes_4bit", "quanto"); or
            its arguments, with the method's name as "quant_method".

    Raises:
        InputError: transformers has no such method, the method has no such argument, a value is wrong, or a
            package is missing that the method needs.
    """
    methods = sorted(cast("dict[str, Any]", auto.AUTO_QUANTIZATION_CONFIG_MAPPING).keys() - {"gguf"})
    described = f"model.quantization is {quantization!r}"
    if isinstance(quantization, str):
        settings = _NAMED_SETTINGS.get(quantization, {"quant_method": quantization})
    elif isinstance(cast("Any", quantization), Mapping):
        settings = dict(quantization)
    else:
        raise InputError(f"{described}; it must be the name of a method or a mapping with quant_method")
    method = settings.get("quant_method")
    if method not in {*methods, "bitsandbytes"}:
        raise InputError(f"{described}, but quant_method must be one of {', '.join(methods)}")
    with errors_of_libraries(described):
        config: Any = quantization_config(settings)
        if unknown := [key for key in settings if not hasattr(config, key)]:
            raise InputError(f"{described}, but {type(config).__name__} has no argument {', '.join(unknown)}")
        _check_environment(config, pre_quantized=False)
    return settings


def stored_quantization(config: Any) -> Any:
    """The quantization config of a checkpoint whose weights are quantized in its files; None for others.

    Args:
        config: the transformers config of the checkpoint.
    """
    stored = getattr(config, "quantization_config", None)
    return stored or getattr(config.get_text_config(), "quantization_config", None)


def check_stored_quantization(config: Any, model: str, quantization: object) -> None:
    """Raise InputError if the weights in a checkpoint's files are quantized, and cannot be used here.

    Args:
        config: the transformers config of the checkpoint.
        model: name of the model, for messages of errors.
        quantization: the value of `model.quantization`, which must be None for quantized files.
    """
    stored = stored_quantization(config)
    if stored is not None:
        if quantization is not None:
            raise InputError(
                f"model.quantization is {quantization!r}, but the weights of model {model!r} are quantized "
                "already; set model.quantization=null"
            )
        with errors_of_libraries(f"model {model!r} has quantized weights, which cannot be used here"):
            _check_environment(stored, pre_quantized=True)


def _check_environment(config: Any, *, pre_quantized: bool) -> None:
    """Raise an error if a package or a device is missing that a quantization method needs."""
    quantizer: Any = auto.AutoHfQuantizer.from_config(config, pre_quantized=pre_quantized)
    quantizer.validate_environment(device_map=None, weights_only=True)


def quantization_config(settings: Mapping[str, Any]) -> Any:
    """A new transformers quantization config, made from the result of `quantization_settings`."""
    return cast("Any", auto.AutoQuantizationConfig).from_dict(dict(settings))

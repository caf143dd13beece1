"""Quantization: weights of fewer bits, by one of the methods that transformers supports."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

from transformers.quantizers import auto

from cfg_lab.errors import InputError
from cfg_lab.models.library_errors import errors_of_libraries

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
        quantizer: Any = auto.AutoHfQuantizer.from_config(config, pre_quantized=False)
        quantizer.validate_environment(device_map=None, weights_only=True)
    return settings


def quantization_config(settings: Mapping[str, Any]) -> Any:
    """A new transformers quantization config, made from the result of `quantization_settings`."""
    return cast("Any", auto.AutoQuantizationConfig).from_dict(dict(settings))

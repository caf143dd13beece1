"""Models that are spread over several devices by a device map of accelerate.

accelerate gives each part of such a model a hook, which moves the inputs of the part to its device. The hook
of the whole model moves the logits back to the device of the inputs. A part can also be kept on the CPU or on
the disk ("offloaded"). Then the hook brings its weights to a device for each forward, and between two
forwards its parameters are on the device `meta`, without values.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

import accelerate
import torch
from accelerate.utils import modeling

from cfg_lab.errors import InputError


def is_spread(model: Any) -> bool:
    """Whether a transformers model has hooks of accelerate, which move tensors between devices."""
    return next(_execution_devices(model), None) is not None


def input_device(model: Any) -> torch.device:
    """The device that the decoder should use with a transformers model: its own, or the first one of several.

    The parameters do not tell this device, because those of an offloaded part are on the device `meta`.
    """
    return next(_execution_devices(model), model.device)


def state_of(model: Any) -> Mapping[str, Any]:
    """The state dict of a transformers model (name -> tensor), with the values of its offloaded parts too."""
    state: dict[str, Any] = model.state_dict()
    if any(tensor.is_meta for tensor in state.values()):
        with_values: Mapping[str, Any] = cast("Any", modeling).get_state_dict_offloaded_model(model)
        return {name: with_values[name] for name in state}
    return state


def placed(model: Any, device: torch.device, subject: str) -> Any:
    """Check a model that transformers has placed on GPUs by a device map, and let inputs enter on `device`.

    Args:
        device: the device that the decoder uses.
        subject: begins the message of the error, such as "model 'x'".

    Raises:
        InputError: a part of the model found no place on a GPU, so that it would decode extremely slowly; or
            transformers may have cut the model inside a layer.
    """
    # A model that found place on a single device has no map and no hooks.
    places: Mapping[str, Any] = getattr(model, "hf_device_map", {"the whole model": model.device})
    outside = [part for part, place in places.items() if str(place) in ("cpu", "disk")]
    if outside:
        raise InputError(
            f"{subject} does not fit into the free memory of all visible GPUs: {len(outside)} of "
            f"{len(places)} parts found no place, from {outside[0]} on; use more GPUs, or make the model "
            "smaller with model.quantization"
        )
    if is_spread(model) and not model._no_split_modules:
        raise InputError(
            f"model.device is balanced, but transformers does not say where a model of type "
            f"{model.config.model_type!r} may be cut, such as {subject}; use model.device=auto"
        )
    if not is_spread(model) and model.device != device:
        skip = model._skip_keys_device_placement
        dispatch = cast("Any", accelerate).dispatch_model
        dispatch(model, {"": model.device}, skip_keys=skip, force_hooks=True)
    return model


def _execution_devices(model: Any) -> Iterator[torch.device]:
    """The devices on which the parts of a model run, that of the whole model first, as its hooks say."""
    for module in model.modules():
        hook = getattr(module, "_hf_hook", None)
        for single in getattr(hook, "hooks", (hook,)):
            device = getattr(single, "execution_device", None)
            if device is not None:
                yield torch.device(device)

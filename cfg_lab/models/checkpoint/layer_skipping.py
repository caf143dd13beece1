"""A weaker model of the same family: the same weights without some layers.

A weaker model serves as the amateur (the model to steer away from) in guidance between models, if there is no
smaller checkpoint. A residual network still works when a few of its layers are skipped, but less well
(ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from cfg_lab.errors import InputError


def check_skip(config: Any, skip: Sequence[int]) -> None:
    """Raise InputError unless `skip` is [first, end] and leaves at least one layer of a causal model."""
    layers = config.get_text_config().num_hidden_layers
    numbers = [number for number in skip if isinstance(number, int) and not isinstance(number, bool)]
    if not (
        len(skip) == len(numbers) == 2
        and 0 <= numbers[0] < numbers[1] <= layers
        and numbers[1] - numbers[0] < layers
        and not config.is_encoder_decoder
    ):
        raise InputError(
            f"model.skip_layers must be [first, end] of some but not all of the {layers} layers (from 0, end "
            f"not included) of a model without an encoder, got {list(skip)!r}"
        )


def without_layers(model: Any, skip: Sequence[int]) -> Any:
    """Remove the layers from skip[0] up to but not including skip[1], and return the transformers model.

    The remaining layers are numbered again from 0, because a cache is indexed by these numbers.
    """
    config = model.config.get_text_config()
    count = config.num_hidden_layers
    name, layers = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    )
    remaining = [number for number in range(count) if not skip[0] <= number < skip[1]]
    for new_number, old_number in enumerate(remaining):
        for module in cast("list[Any]", list(layers[old_number].modules())):
            if hasattr(module, "layer_idx"):
                module.layer_idx = new_number
    model.set_submodule(name, nn.ModuleList([layers[number] for number in remaining]))
    layer_types: list[str] | None = getattr(config, "layer_types", None)
    config.num_hidden_layers = len(remaining)
    if layer_types:
        remaining_types = [layer_types[number] for number in remaining]
        try:
            config.layer_types = remaining_types
        except AttributeError:  # a model that computes the types from the numbers of the layers
            if config.layer_types != remaining_types:
                raise InputError(
                    f"skip_layers is {list(skip)!r}, but the layers of a model of type {config.model_type!r} "
                    "have types that follow from their numbers; leave skip_layers unset"
                ) from None
    return model

"""A weaker model of the same family: the same weights with some layers left out.

For guidance between models where no smaller checkpoint is at hand (GUIDANCE calls it the amateur). A residual
network goes on working, worse, when a few of its layers are skipped (ShortGPT, arXiv:2403.03853).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

from torch import nn

from cfg_lab.errors import InputError


def check_skip(config: Any, skip: Sequence[int]) -> None:
    """Raise InputError unless skip is [first, end] with layers before or after it."""
    layers = config.get_text_config().num_hidden_layers
    numbers = [one for one in skip if isinstance(one, int) and not isinstance(one, bool)]
    if not (
        len(skip) == len(numbers) == 2
        and 0 <= numbers[0] < numbers[1] <= layers
        and numbers[1] - numbers[0] < layers
        and not config.is_encoder_decoder
    ):
        raise InputError(
            f"skip_layers must be [first, end] of some but not all of the {layers} layers (from 0, end not "
            f"included) of a model without an encoder, got {list(skip)!r}"
        )


def without_layers(model: Any, skip: Sequence[int]) -> Any:
    """The model without layers [skip[0], skip[1]); the others are numbered anew, for caches go by it."""
    config = model.config.get_text_config()
    count = config.num_hidden_layers
    name, layers = next(
        (name, module)
        for name, module in model.named_modules()
        if isinstance(module, nn.ModuleList) and len(module) == count
    )
    kept = [number for number in range(count) if not skip[0] <= number < skip[1]]
    for number, layer in enumerate(layers[old] for old in kept):
        for module in cast("list[Any]", list(layer.modules())):
            if hasattr(module, "layer_idx"):
                module.layer_idx = number
    model.set_submodule(name, nn.ModuleList([layers[old] for old in kept]))
    config.num_hidden_layers = len(kept)
    if kinds := getattr(config, "layer_types", None):
        config.layer_types = [kinds[old] for old in kept]
    return model

"""The arguments with which a causal model of transformers runs on the decoder's KV buffer."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.static_buffer import StaticKVBuffer
from cfg_lab.models.kv_cache import AttentionLayer, KVBufferCache, cache_layers


class ForwardArguments:
    """Makes the arguments of a model's forward that depend on its architecture.

    Args:
        module: a causal model of transformers.

    Raises:
        InputError: a layer keeps something that the KV buffer does not have.
    """

    def __init__(self, module: Any) -> None:
        self._dtype: torch.dtype = module.dtype
        self._layers = cache_layers(module.config.get_text_config(decoder=True))
        no_rows = KVBuffer(0, 0, torch.device("cpu"))
        # Recurrent layers cannot leave tokens out. Without attention, a mask is only misunderstood.
        self._takes_mask = any(isinstance(make(no_rows, 0), AttentionLayer) for make in self._layers)
        parameters = inspect.signature(module.forward).parameters
        self._takes_positions = "position_ids" in parameters
        self._cache_name = "cache_params" if "cache_params" in parameters else "past_key_values"
        self._cache_class = KVBufferCache
        if module.config.model_type == "minimax":
            from cfg_lab.models.minimax_cache import MiniMaxKVBufferCache  # slow to import

            self._cache_class = MiniMaxKVBufferCache

    def __call__(self, positions: Tensor, mask: Tensor | None, buffer: KVBuffer) -> dict[str, Any]:
        """The arguments of one forward; see `cfg_lab.decoding.model.CausalModel.forward`."""
        arguments: dict[str, Any] = {self._cache_name: self._cache_class(buffer, self._layers)}
        if self._takes_mask:
            if mask is not None and isinstance(buffer, StaticKVBuffer):
                mask = _added_mask(mask, self._dtype)
            arguments["attention_mask"] = mask
        if self._takes_positions:
            arguments["position_ids"] = positions
        return arguments


def _added_mask(mask: Tensor, dtype: torch.dtype) -> Tensor:
    """A mask [rows, columns] as numbers that are added to attention scores, [rows, 1, 1, columns].

    transformers uses a mask with four dimensions as it is. From one with two dimensions it would make such a
    mask, and would wait for the device to find out whether the mask is true everywhere.
    """
    masked = torch.finfo(dtype).min
    return torch.zeros_like(mask, dtype=dtype).masked_fill_(~mask, masked)[:, None, None]

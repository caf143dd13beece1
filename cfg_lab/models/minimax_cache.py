"""The KV buffer behind the cache interface of MiniMax, which is not that of other models.

This module imports a model of transformers, which takes time. So it is imported only for MiniMax.
"""

from __future__ import annotations

from typing import cast

from torch import Tensor
from transformers.models.minimax.modeling_minimax import MiniMaxCache

from cfg_lab.models.kv_cache import KVBufferCache, RecurrentLayer


class MiniMaxKVBufferCache(KVBufferCache, MiniMaxCache):
    """A KVBufferCache for MiniMax, which reads and writes the states of linear attention in its own way."""

    def get_linear_cache(self, layer_idx: int) -> Tensor | None:
        """The state [rows, heads, head_dim, head_dim] of a layer; None before the first token."""
        layer = cast("RecurrentLayer", self.layers[layer_idx])
        return layer.recurrent_states[0]

    def set_linear_cache(self, layer_idx: int, linear_cache: Tensor) -> None:
        """Store the state of a layer."""
        cast("RecurrentLayer", self.layers[layer_idx]).update_recurrent_state(linear_cache)

    def __len__(self) -> int:
        return len(self.layers)

"""Implements the cache interface of transformers with the KV buffer of this lab's decoder.

With this cache, any causal model of transformers runs in the decoder without changes.
"""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from cfg_lab.decoding.kv_buffer import KVBuffer


class KVBufferLayer(CacheLayerMixin):
    """One layer of the decoder's KV buffer, as a cache layer of transformers.

    For q new tokens the model makes a mask of the columns [low, now + q) of the buffer.
    """

    is_sliding = False

    def __init__(self, buffer: KVBuffer, layer: int) -> None:
        super().__init__()
        self.buffer, self.layer = buffer, layer
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """Do nothing, because the buffer allocates its memory itself."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        """Store keys and values [rows, heads, q, head_dim] of q new tokens, and return all visible columns.

        The visible columns begin at `buffer.low`.
        """
        return self.buffer.write(self.layer, key_states, value_states)

    def get_seq_length(self) -> int:
        """Number of visible columns before the columns of the new tokens."""
        return self.buffer.now - self.buffer.low

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Size of the attention mask as (number of columns, index of the first column).

        The columns of the new tokens are included in the number of columns. The index is always 0.
        """
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Largest number of tokens; -1 means that there is no limit."""
        return -1


class KVBufferCache(Cache):
    """The `past_key_values` of a transformers model: one KVBufferLayer for each layer of the model."""

    def __init__(self, buffer: KVBuffer, layers: int) -> None:
        super().__init__(layers=[KVBufferLayer(buffer, layer) for layer in range(layers)])

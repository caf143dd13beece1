"""transformers' cache interface over the decoder's buffer, so that any causal model runs unchanged."""

from __future__ import annotations

from torch import Tensor
from transformers.cache_utils import Cache, CacheLayerMixin

from cfg_lab.decoding.kv_buffer import KVBuffer


class KVBufferLayer(CacheLayerMixin):
    """One layer's view of the buffer. A model's mask is built for columns [low, now + q)."""

    is_sliding = False

    def __init__(self, buffer: KVBuffer, layer: int) -> None:
        super().__init__()
        self.buffer, self.layer = buffer, layer
        self.is_initialized = True

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The buffer allocates itself."""

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        return self.buffer.write(self.layer, key_states, value_states)

    def get_seq_length(self) -> int:
        return self.buffer.now - self.buffer.low

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        return -1


class KVBufferCache(Cache):
    """What a transformers model is given as `past_key_values`."""

    def __init__(self, buffer: KVBuffer, layers: int) -> None:
        super().__init__(layers=[KVBufferLayer(buffer, layer) for layer in range(layers)])

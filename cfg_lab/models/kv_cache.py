"""Implements the cache interface of transformers with the KV buffer of this lab's decoder.

With this cache, causal models of transformers run in the decoder without changes. The config of a model says
what each of its layers keeps: keys and values (attention), states (recurrent layers), both, or nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import (
    DYNAMIC_LAYER_TYPE_MAPPING,
    Cache,
    CacheLayerMixin,
    DummyLayer,
    DynamicIndexedLayer,
    DynamicLayer,
    DynamicSlidingWindowLayer,
    LinearAttentionAndFullAttentionLayer,
    LinearAttentionAndSlidingWindowAttentionLayer,
    LinearAttentionLayer,
)

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.errors import InputError

MakeLayer = Callable[[KVBuffer, int], Any]
"""Makes the cache layer of one layer of a model: (buffer, number of the layer) -> cache layer."""


class AttentionLayer(CacheLayerMixin):
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
        return self.buffer.columns_before

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        """Size of the attention mask as (number of columns, index of the first column).

        The columns of the new tokens are included in the number of columns. The index is always 0.
        """
        return self.get_seq_length() + query_length, 0

    def get_max_length(self) -> int:
        """Largest number of tokens; -1 means that there is no limit."""
        return -1


class IndexedLayer(AttentionLayer):
    """A layer of sparse attention. It has one more key per token, by which it selects the tokens to read."""

    def update_indexer(self, indexer_key_states: Tensor) -> Tensor:
        """Store selection keys [rows, q, dim] of q new tokens, and return those of all visible columns."""
        keys = indexer_key_states[:, None]
        return self.buffer.write(("indexer", self.layer), keys, keys[..., :1])[0][:, 0]


class RecurrentLayer(LinearAttentionLayer):
    """The states of one recurrent layer. They are views of the decoder's KV buffer, changed in place.

    A row that has read no token has states of 0, as transformers starts with.
    """

    def __init__(self, buffer: KVBuffer, layer: int, number_of_states: int = 1) -> None:
        LinearAttentionLayer.__init__(self, number_of_states)
        self.buffer, self.layer = buffer, layer
        for index in range(number_of_states):
            conv = buffer.states.get((layer, "conv", index))
            if conv is not None:
                self.conv_states[index] = conv[: buffer.live]
                self.conv_kernel_size[index] = conv.shape[-1]
                self.is_conv_states_initialized[index] = True
                self.has_previous_state[index] = True
            recurrent = buffer.states.get((layer, "recurrent", index))
            if recurrent is not None:
                self.recurrent_states[index] = recurrent[: buffer.live]
                self.is_recurrent_states_initialized[index] = True

    def lazy_initialization(
        self,
        conv_states: Tensor | None = None,
        recurrent_states: Tensor | None = None,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
    ) -> None:
        """Allocate a state in the KV buffer, with the shape of the tensor that is given."""
        if conv_states is not None:
            size = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
            shape = (*conv_states.shape[1:-1], size)
            key = self.layer, "conv", state_idx
            self.conv_states[state_idx] = self.buffer.allocate_state(key, shape, conv_states)
            self.conv_kernel_size[state_idx] = size
            self.is_conv_states_initialized[state_idx] = True
        if recurrent_states is not None:
            key = self.layer, "recurrent", state_idx
            shape = tuple(recurrent_states.shape[1:])
            self.recurrent_states[state_idx] = self.buffer.allocate_state(key, shape, recurrent_states)
            self.is_recurrent_states_initialized[state_idx] = True


class HybridLayer(  # pyright: ignore[reportIncompatibleMethodOverride]
    RecurrentLayer, AttentionLayer, LinearAttentionAndFullAttentionLayer
):
    """A layer with attention and with recurrent states."""

    def __init__(self, buffer: KVBuffer, layer: int, number_of_states: int = 1) -> None:
        AttentionLayer.__init__(self, buffer, layer)
        RecurrentLayer.__init__(self, buffer, layer, number_of_states)


class KVBufferCache(Cache):
    """The `past_key_values` of a transformers model: one cache layer for each layer of the model.

    Args:
        buffer: the decoder's KV buffer.
        layers: makes the cache layer of each layer, see `cache_layers`.
    """

    def __init__(self, buffer: KVBuffer, layers: Sequence[MakeLayer]) -> None:
        Cache.__init__(self, layers=[make(buffer, number) for number, make in enumerate(layers)])


def is_recurrent(config: Any) -> bool:
    """Whether any layer of a model has a state that each token changes, from its text config."""
    return any(
        issubclass(DYNAMIC_LAYER_TYPE_MAPPING.get(layer_type, DynamicLayer), LinearAttentionLayer)
        for layer_type, _ in _layer_types(config)
    )


def full_attention_length(config: Any) -> int:
    """The largest number of tokens with which every layer attends to all of them, from the text config.

    It is the smallest window of the layers, 2**30 without windows, and 0 if a layer is not plain attention.
    """
    layer_types, arguments = cast("Any", cache_utils).get_layer_types_and_kwargs(config)
    kinds = {DYNAMIC_LAYER_TYPE_MAPPING.get(layer_type) for layer_type in layer_types}
    if not kinds <= {DynamicLayer, DynamicSlidingWindowLayer}:
        return 0
    windows = [of_layer["sliding_window"] for of_layer in arguments if of_layer.get("sliding_window")]
    return min(windows, default=2**30)


def cache_layers(config: Any) -> list[MakeLayer]:
    """What each layer of a model keeps, from its text config: one function for each layer.

    Raises:
        InputError: a layer keeps something that the KV buffer does not have.
    """
    return [_make_layer(layer_type, states) for layer_type, states in _layer_types(config)]


def _layer_types(config: Any) -> list[tuple[str, int]]:
    """The type of each layer, and the number of its states if it is recurrent."""
    layer_types, arguments = cast("Any", cache_utils).get_layer_types_and_kwargs(config)
    return [
        (layer_type, of_layer.get("number_of_states", 1))
        for layer_type, of_layer in zip(layer_types, arguments, strict=True)
    ]


def _make_layer(layer_type: str, states: int) -> MakeLayer:
    """The function that makes the cache layer for a layer of this type.

    Args:
        states: number of states of a recurrent layer.
    """
    kind = DYNAMIC_LAYER_TYPE_MAPPING.get(layer_type)
    if kind in {DynamicLayer, DynamicSlidingWindowLayer}:
        return AttentionLayer
    if kind is DynamicIndexedLayer:
        return IndexedLayer
    if kind is LinearAttentionLayer:
        return lambda buffer, layer: RecurrentLayer(buffer, layer, states)
    if kind in {LinearAttentionAndFullAttentionLayer, LinearAttentionAndSlidingWindowAttentionLayer}:
        return lambda buffer, layer: HybridLayer(buffer, layer, states)
    if kind is DummyLayer:
        return lambda buffer, layer: DummyLayer()
    raise InputError(f"layers of type {layer_type!r} keep a cache of their own, which the lab does not have")

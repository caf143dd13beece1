"""What a row of the KV cache has before its first step: the prefilled beginning of its context."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field

from torch import Tensor

EncoderMemory = list[tuple[Tensor, Tensor]]
"""Cross-attention keys and values of one source: for each decoder layer a pair [heads, length, head_dim]."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Prefix:
    """A prefilled beginning of a context: what a row has when it becomes live.

    Attributes:
        length: number of prefilled tokens.
        layers: a pair (keys, values) for each layer with attention, by number of the layer. Both have the
            shape [heads, length, head_dim]. Empty if no token is prefilled.
        states: the states of the recurrent layers after the last prefilled token, without the dimension of
            rows. Empty if no token is prefilled, or for a model without recurrent layers.
        memory: cross-attention keys and values of an encoder-decoder model. Empty for other models.
    """

    length: int = 0
    layers: Mapping[Hashable, tuple[Tensor, Tensor]] = field(
        default_factory=dict[Hashable, tuple[Tensor, Tensor]]
    )
    states: Mapping[Hashable, Tensor] = field(default_factory=dict[Hashable, Tensor])
    memory: EncoderMemory = field(default_factory=EncoderMemory)

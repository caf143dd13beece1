"""The KV cache of one model's batch: rows × columns, allocated once and written in place.

Every live row writes the same column at a step. So a step is one dense forward, even if the rows started at
different steps:

              column  0 1 2 3 4 5 6 7            rows     the live rows are 0..live-1, without gaps
    row 0             . . a b c d e|             low      first column that any live row uses
    row 1             . . . . p q r|             now      column that is written next
    row 2             . x y z u v w|             start    first column of each row

If a row starts later than others, the columns before its start are masked, and its positions count from its
start. All live rows can be moved left or right by the same number of columns. Such a move leaves positions
and distances as they are, so nothing is computed again.

Recurrent layers (state space, linear attention, short convolutions) have no columns. Such a layer has states
of a fixed size for each row, which every token changes. They stand beside the columns: admit, fork and free
copy them with the row, and a move leaves them as they are.
"""

from __future__ import annotations

import math
from collections.abc import Hashable
from itertools import groupby

import numpy as np
import torch
from torch import Tensor

from cfg_lab.decoding.prefix import EncoderMemory, Prefix
from cfg_lab.decoding.transfer import to_device


class KVBuffer:
    """Keys and values of all layers, each [rows, heads, columns, head_dim], and states of recurrent layers.

    A layer is allocated when it is first written to, with the shapes of the keys and values that are written.
    So layers may have different shapes.

    Args:
        rows: largest number of live rows.
        columns: number of token positions. If `advance` is called, `columns` must be larger than the number
            of tokens in the longest row, because `advance` needs a free column.
        device: the device of the tensors.
        live: number of rows that are live (in use) from the beginning, without prefilled tokens.

    Attributes:
        live, low, now, start: see the picture at the top of this module.
        layers: a pair (keys, values) for each layer that has been written, by number of the layer.
        states: the states of the recurrent layers, each [rows, ...], by a key that the model chooses.
    """

    def __init__(self, rows: int, columns: int, device: torch.device, live: int = 0) -> None:
        self.rows, self.columns = rows, columns
        self.live: int = live
        self.low: int = 0
        self.now: int = 0
        self.start = torch.zeros(rows, dtype=torch.long, device=device)  # [rows]
        # A second copy of the starts of the live rows: reading `start` from a GPU would wait for the GPU.
        self._starts = [0] * live
        self.layers: dict[Hashable, tuple[Tensor, Tensor]] = {}
        self.states: dict[Hashable, Tensor] = {}
        self._memories: list[EncoderMemory] = [[] for _ in range(live)]  # of the live rows; never copied
        self._padded_memory: tuple[EncoderMemory, Tensor] | None = None
        self._column_numbers = torch.arange(columns, device=device)  # [columns]

    @property
    def columns_before(self) -> int:
        """Number of visible columns before those of the new tokens."""
        return self.now - self.low

    def write(self, layer: Hashable, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of q new tokens in columns [now, now + q), and return all visible columns.

        Args:
            layer: number of the layer, or any other key.
            keys, values: [live, heads, q, head_dim], the keys and values of the new tokens.

        Returns:
            Keys and values of the columns [low, now + q), as views [live, heads, now + q - low, head_dim].
        """
        self._allocate(layer, keys, values)
        end = self.now + keys.shape[2]
        visible: list[Tensor] = []
        for buffer, new in zip(self.layers[layer], (keys, values), strict=True):
            buffer[: self.live, :, self.now : end] = new
            visible.append(buffer[: self.live, :, self.low : end])
        return visible[0], visible[1]

    def allocate_state(self, key: Hashable, shape: tuple[int, ...], like: Tensor) -> Tensor:
        """Allocate a state of a recurrent layer for all rows, and return the part of the live rows.

        All states are 0, as before the first token.

        Args:
            key: names the layer and the state.
            shape: shape of the state of one row.
            like: a tensor with the dtype and the device of the state.

        Returns:
            A view [live, *shape]. The caller changes it in place.
        """
        self.states[key] = _zeros((self.rows, *shape), like)
        return self.states[key][: self.live]

    def positions(self) -> Tensor:
        """Position of the next token in each live row, [live, 1]."""
        return self.now - self.start[: self.live, None]

    def mask(self) -> Tensor:
        """Mask [live, now + 1 - low] bool: which of the columns [low, now] each live row may attend to."""
        return self._column_numbers[self.low : self.now + 1] >= self.start[: self.live, None]

    def memory(self) -> tuple[EncoderMemory, Tensor]:
        """Cross-attention keys and values of the live rows, for an encoder-decoder model.

        Returns:
            1. A pair (keys, values) for each layer. Both are [live, heads, longest, head_dim], padded on the
               right.
            2. A mask [live, longest] bool, which is False where a row is padded.
        """
        if self._padded_memory is None:
            lengths = torch.tensor([memory[0][0].shape[1] for memory in self._memories])
            layers = [
                (_padded([keys for keys, _ in layer]), _padded([values for _, values in layer]))
                for layer in zip(*self._memories, strict=True)
            ]
            mask = torch.arange(int(lengths.max())) < lengths[:, None]
            self._padded_memory = layers, mask.to(self.start.device)
        return self._padded_memory

    def admit(self, prefixes: list[Prefix]) -> range:
        """Make one row live for each prefix. The prefix ends just before the column that is written next.

        Returns:
            The numbers of the new rows.
        """
        lengths = [prefix.length for prefix in prefixes]
        if not self.live:
            self.low = self.now = max(lengths)
        elif self.now < max(lengths):
            self._move(max(lengths) - self.now)
        rows = range(self.live, self.live + len(prefixes))
        self._starts += [self.now - length for length in lengths]
        starts = torch.tensor(self._starts[rows.start :], dtype=torch.long)
        self.start[rows.start : rows.stop] = to_device(starts, self.start.device)
        first = rows.start
        for _, run in groupby(prefixes, key=lambda prefix: prefix.length):
            equally_long = list(run)
            self._fill(slice(first, first + len(equally_long)), equally_long)
            first += len(equally_long)
        self._memories += [prefix.memory for prefix in prefixes]
        self._padded_memory = None
        self.live = rows.stop
        self.low = min(self._starts)
        return rows

    def advance(self, tokens: int = 1) -> None:
        """Go on to the next column after new tokens: `now` grows by their number.

        If no column is left after that, the columns in use are moved to the left end of the buffer.
        """
        self.now += tokens
        if self.now == self.columns:
            self._move(-self.low)

    def fork(self, sources: list[int]) -> range:
        """Copy the rows with the numbers `sources`, and return the numbers of the copies.

        A row whose number is listed twice is copied twice.
        """
        rows = range(self.live, self.live + len(sources))
        for state in self.states.values():
            state[rows.start : rows.stop] = state[sources]
        for buffer in self._key_and_value_buffers():
            buffer[rows.start : rows.stop, :, self.low : self.now] = buffer[sources, :, self.low : self.now]
        self.start[rows.start : rows.stop] = self.start[sources]
        self._starts += [self._starts[source] for source in sources]
        self._memories += [self._memories[source] for source in sources]
        self._padded_memory = None
        self.live = rows.stop
        return rows

    def free(self, row: int) -> None:
        """Free one row. The last live row gets the number of the freed row, so that there is no gap."""
        last = self.live - 1
        start, memory = self._starts.pop(), self._memories.pop()
        self._padded_memory = None
        if row != last:
            for state in self.states.values():
                state[row] = state[last]
            for buffer in self._key_and_value_buffers():
                buffer[row, :, start : self.now] = buffer[last, :, start : self.now]
            self._starts[row], self._memories[row] = start, memory
            self.start[row] = self.start[last]
        self.live = last
        self.low = min(self._starts, default=self.now)

    def prefix(self, row: int, length: int) -> Prefix:
        """The first `length` tokens of a row, as a prefix.

        The returned tensors are views of the buffer: if the row changes, they change too.

        The states of recurrent layers are those after all tokens of the row. So for a model with such layers
        `length` must be the number of all tokens that the row has read.
        """
        columns = slice(self._starts[row], self._starts[row] + length)
        return Prefix(
            length=length,
            layers={
                layer: (keys[row, :, columns], values[row, :, columns])
                for layer, (keys, values) in self.layers.items()
            },
            states={key: state[row] for key, state in self.states.items()},
            memory=self._memories[row],
        )

    def _fill(self, rows: slice, prefixes: list[Prefix]) -> None:
        """Copy prefixes of equal length to these rows, into the columns that end before the next one."""
        columns = slice(self.now - prefixes[0].length, self.now)
        for layer, first in prefixes[0].layers.items():
            self._allocate(layer, first[0][None], first[1][None])
            for part, buffer in enumerate(self.layers[layer]):
                buffer[rows, :, columns] = _stacked([prefix.layers[layer][part] for prefix in prefixes])
        for key, first_state in prefixes[0].states.items():
            if key not in self.states:
                self.allocate_state(key, tuple(first_state.shape), first_state)
            self.states[key][rows] = _stacked([prefix.states[key] for prefix in prefixes])
        if not prefixes[0].states:
            for state in self.states.values():
                state[rows] = 0  # as before the first token

    def _move(self, by: int) -> None:
        """Move all live rows by `by` columns: to the right if `by` is positive, else to the left."""
        for buffer in self._key_and_value_buffers():
            # A copy, because the columns before and after the move may overlap.
            moved = buffer[: self.live, :, self.low : self.now].clone()
            buffer[: self.live, :, self.low + by : self.now + by] = moved
        self.start[: self.live] += by
        self._starts = [start + by for start in self._starts]
        self.low += by
        self.now += by

    def _key_and_value_buffers(self) -> list[Tensor]:
        return [buffer for layer in self.layers.values() for buffer in layer]

    def _allocate(self, layer: Hashable, keys: Tensor, values: Tensor) -> None:
        """Allocate memory for a layer's keys and values, if the buffer does not have this layer yet.

        Args:
            layer: number of the layer, or any other key.
            keys, values: tensors [·, heads, ·, head_dim] whose heads, head_dim, dtype and device are used.
        """
        if layer not in self.layers:
            # Zeros, because a masked column still contributes 0 × value, and 0 × NaN is NaN.
            allocated = [
                _zeros((self.rows, new.shape[1], self.columns, new.shape[3]), new) for new in (keys, values)
            ]
            self.layers[layer] = allocated[0], allocated[1]


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros with the dtype and on the device of another tensor."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # Zeros of numpy use memory only for the pages that are written. torch would write all of them at once.
    return (
        torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8))
        .view(like.dtype)
        .view(shape)
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Stack tensors. Of one tensor that is repeated, only one is stacked, which can be broadcast."""
    distinct = tensors[:1] if all(tensor is tensors[0] for tensor in tensors) else tensors
    return torch.stack(distinct) if len(distinct) > 1 else distinct[0][None]


def _padded(tensors: list[Tensor]) -> Tensor:
    """Stack tensors [heads, length, head_dim], padded on the right: [tensors, heads, longest, head_dim]."""
    by_length = [tensor.transpose(0, 1) for tensor in tensors]
    return torch.nn.utils.rnn.pad_sequence(by_length, batch_first=True).transpose(1, 2)

"""The key-value buffer of a batch: rows × columns, allocated once and written in place.

Every live row writes the same column at a step, so a step is one dense forward whatever the rows' ages:

              column  0 1 2 3 4 5 6 7            rows     live rows are 0..live-1, without gaps
    row 0             . . a b c d e|             low      first column any live row uses
    row 1             . . . . p q r|             now      column written next
    row 2             . x y z u v w|             start    first column of each row

A row that started later has the columns before its start masked, and its positions count from its start.
Moving all live rows left or right keeps every distance, so nothing has to be computed again.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

EncoderMemory = list[tuple[Tensor, Tensor]]
"""Keys and values of an encoder's output, a pair a decoder layer, each [heads, length, head_dim]."""


class Prefix(NamedTuple):
    """What a row starts from: keys and values of its context, a pair a layer, each [heads, length, head_dim],
    empty for no tokens; and of an encoder-decoder model the memory."""

    layers: list[tuple[Tensor, Tensor]]
    memory: EncoderMemory

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[1] if self.layers else 0


class KVBuffer:
    """Keys and values of all layers, each [rows, heads, columns, head_dim].

    Layers are allocated when the first keys and values come, so that their shapes need not be known and
    may differ from layer to layer.
    """

    def __init__(self, rows: int, columns: int, device: torch.device, live: int = 0) -> None:
        self.rows, self.columns = rows, columns
        self.live, self.low, self.now = live, 0, 0
        self.start = torch.zeros(rows, dtype=torch.long, device=device)
        self._starts = [0] * live  # the same of the live rows; asking a GPU for its own would make it wait
        self.layers: list[tuple[Tensor, Tensor]] = []
        self.memories: list[EncoderMemory] = [
            [] for _ in range(live)
        ]  # of each live row; shared, never copied
        self._stacked: tuple[EncoderMemory, Tensor] | None = None
        self._numbers = torch.arange(columns, device=device)

    def write(self, layer: int, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store what the model computed for columns [now, now + q) and return all it may look at.

        keys and values [live, heads, q, head_dim] -> [live, heads, now + q - low, head_dim], views.
        """
        self._reserve(layer, keys, values)
        end = self.now + keys.shape[2]
        found: list[Tensor] = []
        for buffer, new in zip(self.layers[layer], (keys, values), strict=True):
            buffer[: self.live, :, self.now : end] = new
            found.append(buffer[: self.live, :, self.low : end])
        return found[0], found[1]

    def positions(self) -> Tensor:
        """Position in each live row of the column written next, [live, 1]."""
        return self.now - self.start[: self.live, None]

    def mask(self) -> Tensor:
        """Which of the columns [low, now] each live row may look at, [live, now + 1 - low] bool."""
        return self._numbers[self.low : self.now + 1] >= self.start[: self.live, None]

    def memory(self) -> tuple[EncoderMemory, Tensor]:
        """What the live rows' decoder attends to: keys and values of each layer, padded on the right,
        [live, heads, longest, head_dim], and which of them are a row's own, [live, longest] bool."""
        if self._stacked is None:
            lengths = torch.tensor([memory[0][0].shape[1] for memory in self.memories])
            layers = [
                (_stacked([one[0] for one in layer]), _stacked([one[1] for one in layer]))
                for layer in zip(*self.memories, strict=True)
            ]
            own = torch.arange(int(lengths.max())) < lengths[:, None]
            self._stacked = layers, own.to(self.start.device)
        return self._stacked

    def admit(self, prefixes: list[Prefix]) -> range:
        """Make rows live, one a prefix, each right-aligned before the column written next."""
        lengths = [prefix.length for prefix in prefixes]
        if not self.live:
            self.low = self.now = max(lengths)
        elif self.now < max(lengths):
            self._move(max(lengths) - self.now)
        rows = range(self.live, self.live + len(prefixes))
        self._starts += [self.now - length for length in lengths]
        self.start[rows.start : rows.stop] = torch.tensor(self._starts[rows.start :])
        for row, prefix, length in zip(rows, prefixes, lengths, strict=True):
            for layer, (keys, values) in enumerate(prefix.layers):
                self._reserve(layer, keys[None], values[None])
                self.layers[layer][0][row, :, self.now - length : self.now] = keys
                self.layers[layer][1][row, :, self.now - length : self.now] = values
        self.memories += [prefix.memory for prefix in prefixes]
        self._stacked = None
        self.live = rows.stop
        self.low = min(self._starts)
        return rows

    def advance(self) -> None:
        """A column has been written; where the buffer is now full, move left what is still in use."""
        self.now += 1
        if self.now == self.columns:
            self._move(-self.low)

    def fork(self, sources: list[int]) -> range:
        """Make rows live, copies of these."""
        rows = range(self.live, self.live + len(sources))
        for buffer in (buffer for layer in self.layers for buffer in layer):
            buffer[rows.start : rows.stop, :, self.low : self.now] = buffer[sources, :, self.low : self.now]
        self.start[rows.start : rows.stop] = self.start[sources]
        self._starts += [self._starts[source] for source in sources]
        self.memories += [self.memories[source] for source in sources]
        self._stacked = None
        self.live = rows.stop
        return rows

    def drop(self, row: int) -> None:
        """Free a row: the last live row takes its place."""
        last = self.live - 1
        start, memory = self._starts.pop(), self.memories.pop()
        self._stacked = None
        if row != last:
            for buffer in (buffer for layer in self.layers for buffer in layer):
                buffer[row, :, start : self.now] = buffer[last, :, start : self.now]
            self._starts[row], self.memories[row] = start, memory
            self.start[row] = self.start[last]
        self.live = last
        self.low = min(self._starts, default=self.now)

    def prefix(self, row: int, length: int) -> Prefix:
        """The first `length` tokens of a row; views, valid while the row is not written again."""
        seen = slice(self._starts[row], self._starts[row] + length)
        layers = [(keys[row, :, seen], values[row, :, seen]) for keys, values in self.layers]
        return Prefix(layers, self.memories[row])

    def _move(self, by: int) -> None:
        """Move all live rows by that many columns; distances stay, so nothing is computed again."""
        for buffer in (buffer for layer in self.layers for buffer in layer):
            moved = buffer[: self.live, :, self.low : self.now].clone()  # the two places may overlap
            buffer[: self.live, :, self.low + by : self.now + by] = moved
        self.start[: self.live] += by
        self._starts = [start + by for start in self._starts]
        self.low += by
        self.now += by

    def _reserve(self, layer: int, keys: Tensor, values: Tensor) -> None:
        """Allocate a layer like these keys and values [·, heads, ·, head_dim] unless it is there."""
        if layer == len(self.layers):
            # Zeros, not empty: a masked column still takes part as 0 × value, and 0 × NaN is NaN.
            allocated = [
                _zeros((self.rows, new.shape[1], self.columns, new.shape[3]), new) for new in (keys, values)
            ]
            self.layers.append((allocated[0], allocated[1]))


def _zeros(shape: tuple[int, ...], like: Tensor) -> Tensor:
    """Zeros of the dtype and on the device of another tensor."""
    if like.device.type != "cpu":
        return like.new_zeros(shape)
    # numpy's zeros take memory only where they are written; torch writes them all at once.
    return (
        torch.from_numpy(np.zeros(math.prod(shape) * like.element_size(), np.uint8))
        .view(like.dtype)
        .view(shape)
    )


def _stacked(tensors: list[Tensor]) -> Tensor:
    """Tensors [heads, length, head_dim] as one, [tensors, heads, longest, head_dim]."""
    by_length = [one.transpose(0, 1) for one in tensors]
    return torch.nn.utils.rnn.pad_sequence(by_length, batch_first=True).transpose(1, 2)

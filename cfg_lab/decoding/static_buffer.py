"""A KV buffer for steps whose shapes come from a small set.

A CUDA graph repeats the same operations on tensors of the same shapes at the same addresses. So a step runs
on a number of rows and columns that is rounded up (a bucket), and everything that varies is a tensor: the
column that is written, and the first column of each row.

    rows     1, 2, 4, 8, and then multiples of 16
    columns  multiples of 128
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.transfer import to_device

_ROWS = 16
_COLUMNS = 128


def row_bucket(rows: int) -> int:
    """The number of rows with which a step of so many rows runs: 1, 2, 4, 8, or a multiple of 16."""
    return 1 << max(0, rows - 1).bit_length() if rows <= _ROWS // 2 else -(-rows // _ROWS) * _ROWS


def column_bucket(columns: int) -> int:
    """The number of columns with which a step of so many columns runs: a multiple of 128."""
    return -(-columns // _COLUMNS) * _COLUMNS


class StaticKVBuffer(KVBuffer):
    """A KV buffer that is written at a column which is a tensor, and read from its first column on.

    Rows without a text, up to the number of rows of the step, are computed like all others. Nobody reads
    them.

    Args:
        rows: largest number of live rows; it becomes a bucket.
        columns: number of token positions, as for `KVBuffer`; it becomes a bucket.
        device: the device of the tensors.

    Attributes:
        column: [1], int64, the column that is written next: `now` on the device.
        width: number of columns that the running step reads, a bucket.
    """

    def __init__(self, rows: int, columns: int, device: torch.device) -> None:
        super().__init__(row_bucket(rows), column_bucket(columns), device)
        self.column = torch.zeros(1, dtype=torch.long, device=device)
        self.width = self.columns
        self._end_unused_rows()

    @property
    def columns_before(self) -> int:
        return self.width - 1

    def step_shape(self) -> tuple[int, int]:
        """Number of rows and columns of the next step, both buckets."""
        return row_bucket(self.live), column_bucket(self.now + 1)

    def write(self, layer: Hashable, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Store keys and values of one new token of each row, and return the columns of this step.

        Args:
            layer: number of the layer, or any other key.
            keys, values: [rows, heads, 1, head_dim]; `rows` is a bucket.

        Returns:
            Keys and values of the columns [0, width), as views [rows, heads, width, head_dim].
        """
        self._allocate(layer, keys, values)
        rows = keys.shape[0]
        visible: list[Tensor] = []
        for buffer, new in zip(self.layers[layer], (keys, values), strict=True):
            buffer[:rows].index_copy_(2, self.column, new)
            visible.append(buffer[:rows, :, : self.width])
        return visible[0], visible[1]

    def positions_of(self, rows: int, limit: int) -> Tensor:
        """Position of the new token in each of the first rows, [rows, 1].

        Args:
            limit: number of positions of the model. Only rows without a text could reach it.
        """
        return (self.column - self.start[:rows]).clamp(0, limit - 1)[:, None]

    def mask_of(self, rows: int, columns: int) -> Tensor:
        """Mask [rows, columns] bool: which columns each of the first rows may attend to.

        A row without a text may attend to the new column too: without any column it would be NaN, which
        would stay in the buffer.
        """
        numbers = self._column_numbers[:columns]
        is_past = (numbers >= self.start[:rows, None]) & (numbers < self.column)
        return is_past | (numbers == self.column)

    def admit(self, prefixes: list[Prefix]) -> range:
        new = slice(self.live, self.live + len(prefixes))
        for buffer in self._key_and_value_buffers():
            buffer[new].zero_()  # what a row without a text has written may not be a number
        rows = super().admit(prefixes)
        self.column.fill_(self.now)
        return rows

    def has_room(self) -> bool:
        """Whether a step can be written, if need be after moving all columns to the left end."""
        return self.now < self.columns or self.low > 0

    def advance(self, tokens: int = 1) -> None:
        """Go on to the next column, after a step has written this one and increased `column`.

        If no column is left, `make_room` must be called before the next step.
        """
        self.now += tokens

    def make_room(self) -> None:
        """Move all columns to the left end if none is left for the next step."""
        if self.now == self.columns:
            self._move(-self.low)
            self.column.fill_(self.now)

    def keep(self, rows: Sequence[int]) -> None:
        """Keep only these rows, as the first rows in this order. All other rows are freed."""
        moves = [(new, old) for new, old in enumerate(rows) if new != old]
        self._starts = [self._starts[row] for row in rows]
        self._memories = [self._memories[row] for row in rows]
        self.live = len(rows)
        self.low = min(self._starts, default=self.now)
        if moves:
            new, old = to_device(torch.tensor(moves), self.start.device).unbind(1)
            columns = slice(self.low, self.now)
            for buffer in self._key_and_value_buffers():
                buffer[new, :, columns] = buffer[old, :, columns]
            self.start[new] = self.start[old]
        self._end_unused_rows()

    def _end_unused_rows(self) -> None:
        """Let rows without a text begin behind the last column: they attend to nothing but the new column."""
        self.start[self.live :] = self.columns

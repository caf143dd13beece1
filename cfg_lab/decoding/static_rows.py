"""The rows of one model in a static batch: a row for each branch of each sequence."""

from __future__ import annotations

from collections.abc import Sequence, Set

import torch
from torch import Tensor

from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.model_rows import Owner
from cfg_lab.decoding.saved_prefixes import SavedPrefixes
from cfg_lab.decoding.static_buffer import StaticKVBuffer
from cfg_lab.decoding.step_graphs import StepGraphs
from cfg_lab.decoding.transfer import to_device


class StaticRows:
    """The rows of one model. Rows are not shared, so a row never has to be copied when tokens differ.

    Args:
        model: the model.
        rows: largest number of live rows.
        columns: number of token positions of the KV buffer.
        first_row: number of this model's first row when the rows of all models are counted one after another.

    Attributes:
        prefixes: the prefixes that waiting branches start with.
        owners: the owner of each live row.
        capacity: number of rows of the buffer, a bucket of at least `rows`.
    """

    def __init__(self, model: CausalModel, rows: int, columns: int, first_row: int) -> None:
        self.model, self.rows, self.first_row = model, rows, first_row
        self.buffer = StaticKVBuffer(rows, columns, model.device)
        self.prefixes = SavedPrefixes(model)
        self.owners: list[Owner] = []

    @property
    def capacity(self) -> int:
        return self.buffer.rows

    def admit(self, new: Sequence[tuple[Context, Owner]], next_ids: Tensor) -> None:
        """Make one row live for each branch. Equal contexts are prefilled once.

        Args:
            new: each new branch with its context.
            next_ids: [rows of all models], the token that each row reads next. Those of the new rows are set.
        """
        if not new:
            return
        # Prefixes of equal length become neighbours, which are copied together.
        new = sorted(new, key=lambda pair: (len(pair[0].ids), pair[0]))
        rows = self.buffer.admit(self.prefixes.of([context for context, _ in new]))
        for row, (context, owner) in zip(rows, new, strict=True):
            self._assign(row, owner)
            self.prefixes.release(context)
        last_ids = torch.tensor([context.ids[-1] for context, _ in new])
        new_rows = slice(self.first_row + rows.start, self.first_row + rows.stop)
        next_ids[new_rows] = to_device(last_ids, next_ids.device)

    def keep(self, kept: Set[int], next_ids: Tensor) -> None:
        """Keep only these live rows, and free all others. The last kept rows fill the gaps.

        Args:
            kept: numbers of live rows.
            next_ids: as for `admit`; those of the kept rows move with them.
        """
        last = sorted(row for row in kept if row >= len(kept))
        order = [row if row in kept else last.pop() for row in range(len(kept))]
        numbers = to_device(torch.tensor(order, dtype=torch.long), next_ids.device)
        next_ids[self.first_row : self.first_row + len(order)] = next_ids[self.first_row + numbers]
        self.buffer.keep(order)
        owners = [self.owners[row] for row in order]
        self.owners = []
        for row, owner in enumerate(owners):
            self._assign(row, owner)

    def forward(self, graphs: StepGraphs, next_ids: Tensor, logits: Tensor) -> None:
        """Run the model on one token of every live row.

        Args:
            graphs: runs the operations.
            next_ids: as for `admit`.
            logits: [rows of all models, vocab], float32; the logits of this model are written there.
        """
        if not self.buffer.live:
            return
        self.buffer.make_room()
        rows, columns = self.buffer.step_shape()

        def operations() -> None:
            step_logits(
                self.model, self.buffer, next_ids[self.first_row :], rows, columns, logits[self.first_row :]
            )

        graphs.run((self.first_row, rows, columns), operations, [self.buffer.column])
        self.buffer.advance()

    def _assign(self, row: int, owner: Owner) -> None:
        """Record that a branch runs on a row, `row` being the next number after the last recorded row."""
        self.owners.append(owner)
        sequence, branch = owner
        sequence.rows[branch] = row


def step_logits(
    model: CausalModel, buffer: StaticKVBuffer, next_ids: Tensor, rows: int, columns: int, logits: Tensor
) -> None:
    """The operations of one forward. On CUDA they are recorded, so everything that varies is a tensor.

    Args:
        next_ids: [at least rows], int64, the token that each row reads.
        rows, columns: shape of the step, both buckets.
        logits: [at least rows, at least vocab], float32; receives the logits.
    """
    buffer.width = columns
    positions = buffer.positions_of(rows, model.context_length)
    mask = buffer.mask_of(rows, columns)
    new = model.forward(next_ids[:rows, None], positions, mask, buffer)
    logits[:rows, : new.shape[-1]] = new[:, 0]
    buffer.column.add_(1)

"""The rows of one model in the batch: admit, forward, fork and free.

Branches that have read the same tokens share a row. Sharing is frequent: the cells (settings) of a study
start with the same contexts, and often choose the same tokens for a while. A row is forked (copied) when
the sequences on the row choose different tokens.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.saved_prefixes import SavedPrefixes
from cfg_lab.decoding.sequence_state import SequenceState

Owner = tuple[SequenceState, int]
"""A branch that runs on a row: its sequence, and the number of the branch, 0 for the positive context."""


class ModelRows:
    """The rows of one model in the batch, and the branches that run on each row.

    Args:
        model: the model.
        rows: largest number of live rows.
        columns: number of token positions of the KV buffer.

    Attributes:
        prefixes: the prefixes that waiting branches start with.
        owners: the owners of each live row. An owner is a branch of a sequence that runs on the row.
        first_row: number of this model's first row when the rows of all models are counted one after
            another, as in the logits of `Batch.forward`.
    """

    def __init__(self, model: CausalModel, rows: int, columns: int) -> None:
        self.model = model
        self.buffer = KVBuffer(rows, columns, model.device)
        self.owners: list[list[Owner]] = []
        self.first_row = 0
        self.prefixes = SavedPrefixes(model)
        self._next_ids = torch.zeros(rows, 1, dtype=torch.long, device=model.device)  # [rows, 1]

    def admit(self, new_owners: Mapping[Context, list[Owner]]) -> None:
        """Make one row live for each context.

        All branches that start with this context share the row. The last token of the context is not
        prefilled. The next forward reads it, so that new and old rows are treated alike.

        Args:
            new_owners: for each context the branches that start with it.
        """
        if not new_owners:
            return
        rows = self.buffer.admit(self.prefixes.of(list(new_owners)))
        for row, (context, owners) in zip(rows, new_owners.items(), strict=True):
            self._assign(row, owners)
            self._next_ids[row] = context.ids[-1]
            self.prefixes.release(context, len(owners))

    def forward(self) -> Tensor:
        """Run the model on one token of every live row. Return logits [live, vocab], float32."""
        buffer = self.buffer
        if not buffer.live:
            return torch.empty(0, self.model.vocab_size, device=self.model.device)
        logits = self.model.forward(self._next_ids[: buffer.live], buffer.positions(), buffer.mask(), buffer)
        buffer.advance()
        return logits[:, 0]

    def fork(self) -> bool:
        """Set the next token that each row reads: the newest token of the sequences on the row.

        A row can read only one token. If its sequences have chosen k different tokens, the row is first
        copied k - 1 times, so that there is one row per token.

        Returns:
            Whether any row was copied.
        """
        sources: list[int] = []
        separated: list[list[Owner]] = []
        for row, owners in enumerate(self.owners):
            by_token: dict[int, list[Owner]] = defaultdict(list)
            for owner in owners:
                by_token[owner[0].tokens[-1]].append(owner)
            self.owners[row], *others = by_token.values()
            sources += [row] * len(others)
            separated += others
        if separated:
            for row, owners in zip(self.buffer.fork(sources), separated, strict=True):
                self._assign(row, owners)
        tokens = [owners[0][0].tokens[-1] for owners in self.owners]
        self._next_ids[: len(tokens), 0] = torch.tensor(tokens, dtype=torch.long)
        return bool(separated)

    def share(self, row: int, owner: Owner) -> None:
        """Let one more branch run on a row. The branch must have read the same tokens as the row."""
        self.owners[row].append(owner)

    def release(self, owner: Owner) -> None:
        """Remove a branch from its row. The row stays live.

        If the row has no branch left, the caller must free it with `free_unowned`.
        """
        sequence, branch = owner
        self.owners[sequence.rows[branch]].remove(owner)

    def free_unowned(self) -> None:
        """Free every row on which no branch runs."""
        for row in reversed(range(self.buffer.live)):
            if not self.owners[row]:
                self.buffer.free(row)  # gives the number `row` to the last row
                owners = self.owners.pop()
                if owners:
                    self._assign(row, owners)

    def save_prefix(self, row: int, context: Context) -> None:
        """Store a copy of what a row has read.

        It is for a sequence that must wait until rows for its negatives are free. When the sequence runs
        again, it continues from the copy, so nothing is computed twice.

        Args:
            context: the context of the row. Its last token is the newest one, which the row has not read.
        """
        prefix = self.buffer.prefix(row, len(context.ids) - 1)
        copied = replace(
            prefix,
            layers={layer: (keys.clone(), values.clone()) for layer, (keys, values) in prefix.layers.items()},
            states={key: state.clone() for key, state in prefix.states.items()},
        )
        self.prefixes.save(context, copied)

    def _assign(self, row: int, owners: list[Owner]) -> None:
        """Record that the branches `owners` run on a row.

        `row` is the number of a live row, or the next number after the last live row.
        """
        self.owners[row : row + 1] = [owners]
        for sequence, branch in owners:
            sequence.rows[branch] = row

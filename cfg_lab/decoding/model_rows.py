"""The rows of one model in the batch: prefill, forward, fork and free.

Branches that have read the same tokens share a row. Sharing is frequent: the cells (settings) of a study
start with the same contexts, and often choose the same tokens for a while. A row is forked (copied) when
the sequences on the row choose different tokens.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import replace

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer, Prefix
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.sequence_state import SequenceState

Owner = tuple[SequenceState, int]
"""A branch that runs on a row: its sequence, and the number of the branch, 0 for the positive context."""


class ModelRows:
    """The rows of one model in the batch, and the branches that run on each row.

    Args:
        model: the model.
        rows: largest number of live rows.
        columns: number of token positions of the KV buffer.
        pending_prefixes: for each context that has to be prefilled, the number of waiting branches that start
            with it. Its keys and values (a prefix) are computed once and freed when this number is 0.

    Attributes:
        owners: the owners of each live row. An owner is a branch of a sequence that runs on the row.
        first_row: number of this model's first row when the rows of all models are counted one after
            another, as in the logits of `Batch.forward`.
    """

    def __init__(
        self, model: CausalModel, rows: int, columns: int, pending_prefixes: Counter[Context]
    ) -> None:
        self.model = model
        self.buffer = KVBuffer(rows, columns, model.device)
        self.owners: list[list[Owner]] = []
        self.first_row = 0
        self.pending_prefixes = pending_prefixes
        self._next_ids = torch.zeros(rows, 1, dtype=torch.long, device=model.device)  # [rows, 1]
        self._prefixes: dict[Context, Prefix] = {}
        # On a CPU the activations of one prefill should fit the CPU's cache. A GPU needs large ones.
        self._max_prefill_tokens = 2048 if model.device.type == "cpu" else 16384

    def admit(self, new_owners: Mapping[Context, list[Owner]]) -> None:
        """Make one row live for each context.

        All branches that start with this context share the row. The last token of the context is not
        prefilled. The next forward reads it, so that new and old rows are treated alike.

        Args:
            new_owners: for each context the branches that start with it.
        """
        if not new_owners:
            return
        self._prefill({context.without_last_token for context in new_owners} - self._prefixes.keys())
        rows = self.buffer.admit([self._prefixes[context.without_last_token] for context in new_owners])
        for row, (context, owners) in zip(rows, new_owners.items(), strict=True):
            self._assign(row, owners)
            self._next_ids[row] = context.ids[-1]
            prefix = context.without_last_token
            self.pending_prefixes[prefix] -= len(owners)
            if not self.pending_prefixes[prefix]:
                self._prefixes.pop(prefix, None)

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
        self._prefixes[context.without_last_token] = replace(
            prefix,
            layers={layer: (keys.clone(), values.clone()) for layer, (keys, values) in prefix.layers.items()},
            states={key: state.clone() for key, state in prefix.states.items()},
        )

    def _assign(self, row: int, owners: list[Owner]) -> None:
        """Record that the branches `owners` run on a row.

        `row` is the number of a live row, or the next number after the last live row.
        """
        self.owners[row : row + 1] = [owners]
        for sequence, branch in owners:
            sequence.rows[branch] = row

    def _prefill(self, contexts: set[Context]) -> None:
        """Compute the keys and values of contexts.

        1. The encoder, if the model has one, reads each source once.
        2. Contexts of similar length form a chunk, which is computed by one forward. If the model is
           recurrent, they have equal lengths, because padding would change the states of its layers.
        3. If all contexts of a chunk begin with the same tokens, these tokens are run only once. Then the
           rest of each context is run. Recurrent models run whole contexts, because not all of them can
           continue a state with more than one token.
        """
        for context, memory in self._encode(contexts):
            self._prefixes[context] = Prefix(memory=memory)
        recurrent = self.model.recurrent
        by_length = sorted((context for context in contexts if context.ids), key=lambda c: len(c.ids))
        for chunk in _chunks(by_length, self._max_prefill_tokens, equal_lengths=recurrent):
            shares_tokens = len(chunk) > 1 and not recurrent and not chunk[0].source
            common = _common_length(chunk) if shares_tokens else 0
            starts = [self._prefixes[context] for context in chunk]
            if common:
                (start,) = prefill(self.model, [Context(chunk[0].ids[:common])], 0, [Prefix()])
                starts = [start] * len(chunk)
            self._prefixes.update(zip(chunk, prefill(self.model, chunk, common, starts), strict=True))

    def _encode(self, contexts: set[Context]) -> Iterator[tuple[Context, EncoderMemory]]:
        """Pair each context with its encoder memory, which is empty for a model without an encoder."""
        listed = list(contexts)
        sources = list({context.source: None for context in listed if context.source})
        memories = dict(zip(sources, self.model.read(sources) if sources else [], strict=True))
        for context in listed:
            yield context, memories.get(context.source, [])


def prefill(model: CausalModel, contexts: list[Context], done: int, starts: list[Prefix]) -> list[Prefix]:
    """Run contexts through a model, from token number `done` on, counted from 0, and return their prefixes.

    Contexts are padded on the right. Causal attention never reads this padding. The contexts of a recurrent
    model must have equal lengths, and `done` must be 0.

    Args:
        starts: one prefix per context, with the first `done` tokens of the context.
    """
    width = max(len(context.ids) for context in contexts)
    padded = [[*context.ids, *[0] * (width - len(context.ids))] for context in contexts]
    ids = torch.tensor(padded)[:, done:]  # [contexts, width - done]
    positions = torch.arange(done, width).expand(len(contexts), -1)
    buffer = KVBuffer(len(contexts), width, model.device)
    buffer.admit(starts)
    model.forward(ids.to(model.device), positions.to(model.device), None, buffer)
    return [buffer.prefix(row, len(context.ids)) for row, context in enumerate(contexts)]


def _common_length(contexts: list[Context]) -> int:
    """Number of tokens with which all contexts begin. The last token of a context is never counted."""
    # Tokens at the beginning of both the first and the last context in lexicographic order begin all of them.
    low, high = min(contexts).ids, max(contexts).ids
    common = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return min(common, min(len(context.ids) for context in contexts) - 1)


def _chunks(contexts: list[Context], max_tokens: int, *, equal_lengths: bool) -> Iterator[list[Context]]:
    """Split contexts, sorted by length, into chunks of at most `max_tokens` tokens, padding included.

    A context that is longer than `max_tokens` is a chunk of its own.

    Args:
        equal_lengths: whether all contexts of a chunk must have the same length, so that there is no padding.
    """
    chunk: list[Context] = []
    for context in contexts:
        length = len(context.ids)
        too_many = length * (len(chunk) + 1) > max_tokens
        if chunk and (too_many or (equal_lengths and length != len(chunk[0].ids))):
            yield chunk
            chunk = []
        chunk.append(context)
    if chunk:
        yield chunk

"""One model's rows in a batch: contexts are prefilled once, rows come, part and go.

Branches that have seen the same tokens share a row: the cells of a grid begin alike, and where they choose
alike (greedily, or with the same noise) stay so for a while. A row is forked when its owners choose
differently.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer, Prefix
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.sequence import Sequence

Owner = tuple[Sequence, int]
"""A sequence, and which of its contexts: 0 is the positive, then its negatives."""


class Lane:
    """A model and its rows.

    Attributes:
        owners: of each live row, whose context it is.
        offset: of its rows among those of all lanes.
        wanted: how many waiting branches need a prefix.
    """

    def __init__(self, model: CausalModel, rows: int, columns: int, wanted: Counter[Context]) -> None:
        self.model = model
        self.columns = KVBuffer(rows, columns, model.device)
        self.owners: list[list[Owner]] = []
        self.offset = 0
        self.wanted = wanted
        self.next_ids = torch.zeros(rows, 1, dtype=torch.long, device=model.device)
        self.prefixes: dict[Context, Prefix] = {}
        # On a CPU what a forward works on should stay in its cache; a GPU wants much at once.
        self.prefill_tokens = 2048 if model.device.type == "cpu" else 16384

    def admit(self, newcomers: Mapping[Context, list[Owner]]) -> None:
        """Make rows live, one a context.

        A context's last token is not prefilled but fed at the next step, so that the step treats new and
        old rows alike.
        """
        if not newcomers:
            return
        self._prefill({context.before for context in newcomers} - self.prefixes.keys())
        rows = self.columns.admit([self.prefixes[context.before] for context in newcomers])
        for row, (context, owning) in zip(rows, newcomers.items(), strict=True):
            self._own(row, owning)
            self.next_ids[row] = context.ids[-1]
            self.wanted[context.before] -= len(owning)
            if not self.wanted[context.before]:
                self.prefixes.pop(context.before, None)

    def forward(self) -> Tensor:
        """Run the model on every live row: logits [rows, vocab] float32."""
        columns = self.columns
        if not columns.live:
            return torch.empty(0, self.model.vocab_size, device=self.model.device)
        logits = self.model.forward(
            self.next_ids[: columns.live], columns.positions(), columns.mask(), columns
        )
        columns.advance()
        return logits[:, 0]

    def disown(self, owner: Owner) -> None:
        """The sequence has no more need of this row; `sweep` frees it if nobody has."""
        sequence, branch = owner
        self.owners[sequence.rows[branch]].remove(owner)

    def sweep(self) -> None:
        """Free the rows that nobody owns; live rows stay without gaps."""
        for row in reversed(range(self.columns.live)):
            if not self.owners[row]:
                self.columns.drop(row)  # the last row now stands at `row`
                last = self.owners.pop()
                if last:
                    self._own(row, last)

    def part(self) -> bool:
        """Give owners that have chosen different tokens rows of their own, and feed the tokens to all rows.

        Returns whether any parted.
        """
        sources: list[int] = []
        parted: list[list[Owner]] = []
        for row, owning in enumerate(self.owners):
            by_token: dict[int, list[Owner]] = defaultdict(list)
            for owner in owning:
                by_token[owner[0].tokens[-1]].append(owner)
            self.owners[row], *others = by_token.values()
            sources += [row] * len(others)
            parted += others
        if parted:
            for row, owning in zip(self.columns.fork(sources), parted, strict=True):
                self._own(row, owning)
        tokens = [owning[0][0].tokens[-1] for owning in self.owners]
        self.next_ids[: len(tokens), 0] = torch.tensor(tokens, dtype=torch.long)
        return bool(parted)

    def keep(self, row: int, context: Context) -> None:
        """Keep what a row has computed for a sequence that waits for more rows than are free."""
        layers, memory = self.columns.prefix(row, len(context.ids) - 1)
        self.prefixes[context.before] = Prefix([(k.clone(), v.clone()) for k, v in layers], memory)

    def _own(self, row: int, owning: list[Owner]) -> None:
        """These owners' contexts are run on this row, an old one or the next."""
        self.owners[row : row + 1] = [owning]
        for sequence, branch in owning:
            sequence.rows[branch] = row

    def _prefill(self, missing: set[Context]) -> None:
        """Compute keys and values of contexts; what a chunk's contexts begin with alike is computed once."""
        for context, memory in self._read(missing):
            self.prefixes[context] = Prefix([], memory)
        by_length = sorted((one for one in missing if one.ids), key=lambda one: len(one.ids))
        for chunk in _chunks(by_length, self.prefill_tokens):
            shared = _shared(chunk) if len(chunk) > 1 and not chunk[0].source else 0
            starts = [self.prefixes[context] for context in chunk]
            if shared:
                (start,) = self._run([Context(chunk[0].ids[:shared])], 0, [Prefix([], [])])
                starts = [start] * len(chunk)
            self.prefixes.update(zip(chunk, self._run(chunk, shared, starts), strict=True))

    def _read(self, contexts: set[Context]) -> Iterator[tuple[Context, list[tuple[Tensor, Tensor]]]]:
        """The contexts with what their decoder attends to of the source: nothing where there is none."""
        listed = list(contexts)
        sources = list({context.source: None for context in listed if context.source})
        memories = dict(zip(sources, self.model.read(sources) if sources else [], strict=True))
        for context in listed:
            yield context, memories.get(context.source, [])

    def _run(self, contexts: list[Context], done: int, starts: list[Prefix]) -> list[Prefix]:
        """Keys and values of contexts whose first `done` tokens are in `starts`. The rest is padded on the
        right, where causal attention never looks."""
        device = self.model.device
        width = max(len(context.ids) for context in contexts)
        ids = torch.tensor([[*one.ids, *[0] * (width - len(one.ids))] for one in contexts])[:, done:]
        positions = torch.arange(done, width).expand(len(contexts), -1)
        scratch = KVBuffer(len(contexts), width, device)
        scratch.admit(starts)
        self.model.forward(ids.to(device), positions.to(device), None, scratch)
        return [scratch.prefix(row, len(context.ids)) for row, context in enumerate(contexts)]


def _shared(contexts: list[Context]) -> int:
    """How many tokens all contexts begin with; at least the last of each is left."""
    low, high = min(contexts).ids, max(contexts).ids  # in the order of tokens, not of length
    alike = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), None)
    return min(alike if alike is not None else len(low), min(len(one.ids) for one in contexts) - 1)


def _chunks(contexts: list[Context], tokens: int) -> Iterator[list[Context]]:
    """Contexts, sorted by length, in chunks of at most so many padded tokens."""
    chunk: list[Context] = []
    for context in contexts:
        if chunk and len(context.ids) * (len(chunk) + 1) > tokens:
            yield chunk
            chunk = []
        chunk.append(context)
    if chunk:
        yield chunk

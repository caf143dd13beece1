"""The logits that every branch gives for the tokens of given texts (teacher forcing).

1. Texts are sorted and divided into chunks, so that few logits, keys and values are in memory at once.
2. Each context of a chunk is prefilled once, except for its last token. Branches and texts with equal
   contexts share it. If the contexts of all texts begin with the same tokens, such as examples of a task,
   these tokens are run once for all chunks.
3. Then each row reads the last token of its context and the text. It predicts each token of the text from the
   tokens before it. Logits are computed only at these positions. Rows with equally long contexts are one
   batch. Texts with too many logits are read in several parts.

A recurrent model reads whole contexts with their texts, because not all of these models can continue a state
with more than one token.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import CausalModel, Context, context_after
from cfg_lab.decoding.prefill import common_length, forward_overhead, max_forward_tokens, prefill_contexts
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.request import NamedContext
from cfg_lab.errors import InputError

_MAX_LOGITS = 100_000_000
"""Largest number of logits in memory at once: 400 MB in float32."""

_FORWARDS_PER_CHUNK = 4
"""The contexts and texts of a chunk have at most as many tokens as this number of the largest forwards."""


class GivenText(NamedTuple):
    """A text whose logits are computed.

    Attributes:
        contexts: the context of each branch, as in `Request.contexts`.
        tokens: the tokens that follow every context; at least one.
    """

    contexts: tuple[NamedContext, ...]
    tokens: tuple[int, ...]


class TextLogits(NamedTuple):
    """The logits of all branches for consecutive tokens of a text: the whole text, or one part of it.

    Attributes:
        number: number of the text.
        tokens: the tokens that are predicted.
        branches: one tensor [tokens, vocab] for each branch, in the order of the text's contexts. All are on
            the device of the first branch. `vocab` is the smallest vocabulary of the branches.
    """

    number: int
    tokens: tuple[int, ...]
    branches: list[Tensor]


class _Row(NamedTuple):
    """What a model reads for one branch of a text. Branches that read the same share a row."""

    model: str | None
    context: Context  # without new tokens
    tokens: tuple[int, ...]


def text_logits(
    models: Mapping[str | None, CausalModel], texts: Sequence[GivenText]
) -> Iterator[list[TextLogits]]:
    """Yield the logits of all texts, one list for each part of a chunk. The parts of a text are in order.

    The memory of the logits is bounded only if the caller keeps no list when it takes the next one.

    Args:
        models: maps a name to a model. Branches refer to models by these names. The key None stands for the
            model that runs the positive contexts.

    Raises:
        InputError: a text is empty.
    """
    rows: list[list[_Row]] = []  # of each text, one for each branch
    for number, (contexts, tokens) in enumerate(texts):
        if not tokens:
            raise InputError(f"continuation {number} is empty; it must have at least one token")
        rows.append([_Row(name, context_after(models[name], ids, ()), tokens) for name, ids in contexts])
    max_logits = _MAX_LOGITS // max(model.vocab_size for model in models.values())
    prefixes = _Prefixes(models, rows)
    for chunk in _chunks(rows, max_logits, _FORWARDS_PER_CHUNK * max_forward_tokens(models[None])):
        prefixes.prefill([rows[number] for number in chunk])
        distinct = list({row: None for number in chunk for row in rows[number]})
        batches = [_RowBatch(models[batch[0].model], batch, prefixes) for batch in _batches(models, distinct)]
        width = max(1, max_logits // len(distinct))  # tokens of one part
        for begin in range(0, max(len(row.tokens) for row in distinct), width):
            logits: dict[_Row, Tensor] = {}
            for batch in batches:
                logits.update(batch.forward(begin, begin + width))
            yield [
                TextLogits(number, part, _aligned([logits[row] for row in rows[number]]))
                for number in chunk
                if (part := texts[number].tokens[begin : begin + width])
            ]


def _aligned(branches: list[Tensor]) -> list[Tensor]:
    """Logits [tokens, vocab] of all branches with the smallest vocabulary, on the device of the first."""
    vocab = min(logits.shape[1] for logits in branches)
    return [logits[:, :vocab].to(branches[0].device) for logits in branches]


def _chunks(rows: Sequence[list[_Row]], max_logits: int, max_tokens: int) -> Iterator[list[int]]:
    """Split texts into chunks. A chunk is a list of indices into `rows`.

    Texts with equal positive contexts are neighbours, and so are texts with equally long ones.

    Args:
        rows: the rows of each text, the positive branch first.
        max_logits: largest number of positions with logits in a chunk. A text with more is a chunk of its
            own.
        max_tokens: the same for all tokens that are read.
    """

    def order(number: int) -> tuple[int, Context, int]:
        context = rows[number][0].context
        return len(context.ids) + len(context.source), context, len(rows[number][0].tokens)

    chunk: list[int] = []
    positions = tokens = 0
    for number in sorted(range(len(rows)), key=order):
        of_text = [len(row.tokens) for row in rows[number]]
        contexts = [len(row.context.ids) + len(row.context.source) for row in rows[number]]
        positions += sum(of_text)
        tokens += sum(of_text) + sum(contexts)
        if chunk and (positions > max_logits or tokens > max_tokens):
            yield chunk
            chunk, positions, tokens = [], sum(of_text), sum(of_text) + sum(contexts)
        chunk.append(number)
    if chunk:
        yield chunk


class _Prefixes:
    """The prefixes of the contexts of one chunk: each context without its last token.

    A context that the next chunk has, too, is not computed again.

    Args:
        rows: the rows of all texts.
    """

    def __init__(self, models: Mapping[str | None, CausalModel], rows: Sequence[list[_Row]]) -> None:
        self.models = models
        self._prefixes: dict[tuple[str | None, Context], Prefix] = {}
        # Branches with the same number often begin alike, such as with the same examples of a task.
        self._beginnings: dict[tuple[str | None, int], Prefix] = {}
        contexts: dict[tuple[str | None, int], set[Context]] = defaultdict(set)
        for of_text in rows:
            for branch, row in enumerate(of_text):
                contexts[row.model, branch].add(row.context.without_last_token)
        for (name, branch), of_branch in contexts.items():
            model = models[name]
            common = 0 if model.recurrent or model.start else common_length(of_branch)
            if common and len(of_branch) > 1:
                beginning = Context(min(of_branch).ids[:common])
                self._beginnings[name, branch] = prefill_contexts(model, [beginning])[beginning]

    def prefill(self, rows: Sequence[list[_Row]]) -> None:
        """Compute the prefixes of a chunk, and forget those of other chunks. Recurrent models have none."""
        contexts: dict[tuple[str | None, int], set[Context]] = defaultdict(set)
        for of_text in rows:
            for branch, row in enumerate(of_text):
                if not self.models[row.model].recurrent:
                    contexts[row.model, branch].add(row.context.without_last_token)
        known, self._prefixes = self._prefixes, {}
        for (name, branch), of_branch in contexts.items():
            missing = [context for context in of_branch if (name, context) not in known]
            new = prefill_contexts(self.models[name], missing, self._beginnings.get((name, branch)))
            known |= {(name, context): prefix for context, prefix in new.items()}
            self._prefixes |= {(name, context): known[name, context] for context in of_branch}

    def of(self, row: _Row) -> Prefix:
        """The prefix of a row of the chunk; for a recurrent model, nothing is computed yet."""
        return self._prefixes.get((row.model, row.context.without_last_token), Prefix())


def _batches(models: Mapping[str | None, CausalModel], rows: list[_Row]) -> Iterator[list[_Row]]:
    """Divide rows into batches: rows of one model with equally long contexts, by the length of their texts.

    A batch ends where the largest forward is full. It also ends where one more row would make the padding of
    the batch cost more than another forward.
    """
    by_length: dict[tuple[str | None, int], list[_Row]] = defaultdict(list)
    for row in sorted(rows, key=lambda row: len(row.tokens)):
        by_length[row.model, len(row.context.ids)].append(row)
    for (name, length), alike in by_length.items():
        model = models[name]
        context = length if model.recurrent else 0
        batch: list[_Row] = []
        for row in alike:
            padding = sum(len(row.tokens) - len(shorter.tokens) for shorter in batch)
            tokens = (context + len(row.tokens)) * (len(batch) + 1)
            if batch and (tokens > max_forward_tokens(model) or padding > forward_overhead(model)):
                yield batch
                batch = []
            batch.append(row)
        yield batch


class _RowBatch:
    """Rows of one model with equally long contexts, which read their texts together.

    Args:
        rows: the rows, by the length of their texts.
        prefixes: has the prefix of each row.
    """

    def __init__(self, model: CausalModel, rows: list[_Row], prefixes: _Prefixes) -> None:
        self.model, self.rows = model, rows
        self.prefixes = [prefixes.of(row) for row in rows]
        self.done = 0 if model.recurrent else len(rows[0].context.ids) - 1  # tokens that are prefilled
        self.before = len(rows[0].context.ids) - 1 - self.done  # columns without logits, of recurrent models
        self.longest = len(rows[-1].tokens)
        read = [(*row.context.ids[self.done :], *row.tokens[:-1]) for row in rows]
        padded = [[*ids, *[0] * (self.before + self.longest - len(ids))] for ids in read]
        self.ids = torch.tensor(padded, device=model.device)  # [rows, before + longest]
        self.buffer = self._new_buffer()

    def _new_buffer(self) -> KVBuffer:
        # One more column, so that `advance` never moves columns.
        columns = self.done + self.before + self.longest + 1
        buffer = KVBuffer(len(self.rows), columns, self.model.device)
        buffer.admit(self.prefixes)
        return buffer

    def forward(self, begin: int, end: int) -> Iterator[tuple[_Row, Tensor]]:
        """Yield the logits of each row for its tokens from number `begin` to `end`, [tokens, vocab].

        The calls for one batch must be in the order of the tokens, without gaps.
        """
        end = min(end, self.longest)
        if begin >= end:
            return
        first = begin
        if self.model.recurrent:  # begins again
            self.buffer, first = self._new_buffer(), 0
        ids = self.ids[:, first : self.before + end]
        positions = torch.arange(self.done + first, self.done + self.before + end, device=self.model.device)
        logits = self.model.forward(ids, positions.expand(len(ids), -1), None, self.buffer, keep=end - begin)
        self.buffer.advance(ids.shape[1])
        for row, of_row in zip(self.rows, logits, strict=True):
            if len(row.tokens) > begin:
                yield row, of_row[: len(row.tokens) - begin]

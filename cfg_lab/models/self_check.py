"""A check of every model at load: do short rows in one batch give the logits of the model's own forward?

The decoder runs rows of different lengths in one batch, with a cache that transformers does not know. Not every
architecture allows that. Some count positions in their own way, some attend to later tokens, some keep what the
cache does not hold. Such a model would give wrong texts without an error. So every model is compared with its
own forward once, when it is loaded:

1. The model's own forward, without a cache, gives the logits after each token of a few short contexts.
2. The lab runs the same contexts as the decoder does: a prefill, rows that start at different steps, a row that
   is copied, a row that is freed, and a move of the columns.
3. If the logits differ by more than rounding, the model is refused.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer, Prefix
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.model_rows import prefill

OwnLogits = Callable[[list[Context]], Tensor]
"""The model's own forward without a cache: contexts of equal length -> logits [contexts, length, vocab]."""

_LENGTH = 9  # tokens of each context
_SHARED = 2  # tokens with which the contexts of the first and the second row begin
_ROWS = 3

_TOLERANCES = {torch.float32: 1e-3, torch.float64: 1e-3, torch.bfloat16: 0.2, torch.float16: 0.05}
"""Largest relative differences by rounding, for models of these dtypes."""


def contexts_of(model: CausalModel, sources: list[tuple[int, ...]]) -> list[Context]:
    """The contexts of the check: random token ids, always the same for the same vocabulary."""
    generator = torch.Generator().manual_seed(0)
    # Low ids are often special tokens, such as padding, which some models treat differently.
    low = min(5, model.vocab_size - 1)
    ids = torch.randint(low, model.vocab_size, (_ROWS, _LENGTH), generator=generator)
    ids[1, :_SHARED] = ids[0, :_SHARED]
    return [
        Context(tuple(row), sources[number] if sources else ()) for number, row in enumerate(ids.tolist())
    ]


def difference(model: CausalModel, contexts: list[Context], expected: Tensor) -> float:
    """The largest difference between the lab's logits and those of the model's own forward.

    0 is equal, 1 is as far as unrelated logits.

    Args:
        contexts: see `contexts_of`.
        expected: [contexts, length, vocab], the logits of the model's own forward.
    """
    sizes: list[list[float]] = [[] for _ in contexts]
    for row, position, logits in _logits(model, contexts):
        sizes[row].append(_relative_difference(logits, expected[row, position]))
    if expected.dtype == torch.float32:
        return max(map(max, sizes))
    # In half precision, rounding can send single tokens to other experts. A fault shows at most tokens.
    return max(statistics.median(of_row) for of_row in sizes)


def reads_later_tokens(contexts: list[Context], expected: Tensor, own_logits: OwnLogits) -> bool:
    """Whether the logits after a token depend on later tokens, in the model's own forward."""
    changed = [context._replace(ids=(*context.ids[:-1], contexts[0].ids[0])) for context in contexts]
    logits = own_logits(changed)
    return max(_relative_difference(a[0], b[0]) for a, b in zip(logits, expected, strict=True)) > 0.01


def _logits(model: CausalModel, contexts: list[Context]) -> Iterator[tuple[int, int, Tensor]]:
    """The lab's logits, as (number of the context, number of the token, logits [vocab])."""
    (first, second, third), device = contexts, model.device
    sources = list(dict.fromkeys(context.source for context in contexts if context.source))
    memories = dict(zip(sources, model.read(sources) if sources else [], strict=True))
    starts = [Prefix(memory=memories.get(context.source, [])) for context in contexts]
    beginnings = [Context(first.ids[:5], first.source), Context(second.ids[:3], second.source)]
    if model.recurrent or sources:
        prefixes = [
            prefill(model, [beginning], 0, [start])[0]
            for beginning, start in zip(beginnings, starts, strict=False)
        ]
    else:  # the second forward continues a cache with several tokens
        (start,) = prefill(model, [Context(first.ids[:_SHARED])], 0, starts[:1])
        prefixes = prefill(model, beginnings, _SHARED, [start, start])
    buffer = KVBuffer(4, _LENGTH + 1, device)
    rows = [0, 1]  # the context of each row
    read = [5, 3]  # the number of tokens that each row has read
    buffer.admit(prefixes)
    for step in range(6):
        if step == 1:
            buffer.admit([starts[2]])
            rows.append(2)
            read.append(0)
        if step == 2:
            buffer.fork([1])
            rows.append(1)
            read.append(read[1])
        if step == 4:  # the first row has been read to the end: its number goes to the copy
            buffer.free(0)
            rows[0], read[0] = rows.pop(), read.pop()
        ids = torch.tensor([[contexts[context].ids[token]] for context, token in zip(rows, read, strict=True)])
        logits = model.forward(ids.to(device), buffer.positions(), buffer.mask(), buffer)
        buffer.advance()
        for row, context in enumerate(rows):
            yield context, read[row], logits[row, 0]
            read[row] += 1


def _relative_difference(logits: Tensor, expected: Tensor) -> float:
    """Size of the difference of two rows of logits [vocab], relative to the spread of `expected`.

    A constant that is added to all logits makes no difference. Values that are not finite count as 0: the
    decoder reports them.
    """
    finite = logits.isfinite() & expected.isfinite()
    a, b = (torch.where(finite, row, 0).double() for row in (logits, expected))
    error, spread = (a - b), b - b.mean()
    return float((error - error.mean()).norm() / spread.norm().clamp_min(1e-12))

"""Prefill: computes the keys, values and states of contexts in few forwards."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import torch

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.transfer import to_device


def max_forward_tokens(model: CausalModel) -> int:
    """Largest number of tokens of one forward.

    On a CPU the activations of a forward should fit the CPU's cache. A GPU needs large forwards.
    """
    return 2048 if model.device.type == "cpu" else 16384


def forward_overhead(model: CausalModel) -> int:
    """About how many tokens more a forward could read in the time that it takes to begin one.

    Each forward reads all weights, and starts all operations.
    """
    return 32 if model.device.type == "cpu" else 1024


def prefill_contexts(
    model: CausalModel, contexts: Iterable[Context], beginning: Prefix | None = None
) -> dict[Context, Prefix]:
    """Compute the prefix of each context.

    1. The encoder, if the model has one, reads each source once.
    2. Contexts of similar length form a chunk, which is computed by one forward. If the model is recurrent,
       they have equal lengths, because padding would change the states of its layers.
    3. If all contexts of a chunk begin with the same tokens, these tokens are run only once. Then the rest
       of each context is run. Recurrent models run whole contexts, because not all of them can continue a
       state with more than one token.

    Args:
        beginning: prefix of tokens that all contexts begin with, already computed. Each context must be
            longer. None means that nothing is computed yet.
    """
    listed = list(contexts)
    sources = list({context.source: None for context in listed if context.source})
    memories = dict(zip(sources, model.read(sources) if sources else [], strict=True))
    prefixes = {context: Prefix(memory=memories.get(context.source, [])) for context in listed}
    beginning = beginning or Prefix()
    by_length = sorted((context for context in listed if context.ids), key=lambda c: len(c.ids))
    for chunk in _chunks(by_length, max_forward_tokens(model), beginning.length, model.recurrent):
        done, starts = beginning.length, [prefixes[context] for context in chunk]
        if not model.recurrent and not chunk[0].source:
            start = beginning
            if len(chunk) > 1 and common_length(chunk) > done:
                common = Context(chunk[0].ids[: common_length(chunk)])
                (start,) = prefill(model, [common], done, [beginning])
            done, starts = start.length, [start] * len(chunk)
        prefixes.update(zip(chunk, prefill(model, chunk, done, starts), strict=True))
    return prefixes


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
    model.forward(to_device(ids, model.device), to_device(positions, model.device), None, buffer)
    return [buffer.prefix(row, len(context.ids)) for row, context in enumerate(contexts)]


def common_length(contexts: Iterable[Context]) -> int:
    """Number of tokens with which all contexts begin. The last token of a context is never counted."""
    # Tokens at the beginning of both the first and the last context in lexicographic order begin all of them.
    listed = list(contexts)
    low, high = min(listed).ids, max(listed).ids
    common = next((n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))
    return max(0, min(common, min(len(context.ids) for context in listed) - 1))


def _chunks(
    contexts: list[Context], max_tokens: int, done: int, equal_lengths: bool
) -> Iterator[list[Context]]:
    """Split contexts, sorted by length, into chunks of at most `max_tokens` tokens, padding included.

    A context that is longer than `max_tokens` is a chunk of its own.

    Args:
        done: number of tokens at the beginning of each context that are not run, and not counted.
        equal_lengths: whether all contexts of a chunk must have the same length, so that there is no padding.
    """
    chunk: list[Context] = []
    for context in contexts:
        length = len(context.ids)
        too_many = (length - done) * (len(chunk) + 1) > max_tokens
        if chunk and (too_many or (equal_lengths and length != len(chunk[0].ids))):
            yield chunk
            chunk = []
        chunk.append(context)
    if chunk:
        yield chunk

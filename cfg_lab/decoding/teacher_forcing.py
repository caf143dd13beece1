"""Log-probs of given texts: teacher forcing, one forward a model."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import cast

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer, Prefix
from cfg_lab.decoding.measurements import measure
from cfg_lab.decoding.model import CausalModel, Context, context
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.trace import Trace
from cfg_lab.errors import InputError
from cfg_lab.guidance import log_probs

Text = tuple[Request, tuple[int, ...]]

_LOGITS_AT_ONCE = 100_000_000
"""Numbers, 400 MB."""


@torch.inference_mode()
def score(models: Mapping[str | None, CausalModel], texts: Sequence[Text]) -> list[Trace]:
    """The trace of each text as if the request had been decoded to it. See `Decoder.score`."""
    traces: dict[int, Trace] = {}
    for chunk in _chunks(texts, _LOGITS_AT_ONCE // models[None].vocab_size):
        rows: dict[str | None, dict[tuple[int, int], Context]] = defaultdict(dict)
        for number in chunk:
            request, tokens = texts[number]
            for branch, (name, ids) in enumerate(request.contexts):
                rows[name][number, branch] = context(models[name], ids, tokens[:-1])
        logits: dict[tuple[int, int], Tensor] = {}
        for name, contexts in rows.items():
            found = _forward(models[name], list(contexts.values()))
            for (place, seen), row in zip(contexts.items(), found, strict=True):
                length = len(texts[place[0]][1])
                logits[place] = row[len(seen.ids) - length : len(seen.ids)]
        for number in chunk:
            request, tokens = texts[number]
            traces[number] = _trace(
                request, tokens, [logits[number, k] for k in range(len(request.contexts))]
            )
    return [traces[number] for number in range(len(texts))]


def _forward(model: CausalModel, contexts: list[Context]) -> Tensor:
    """Logits [contexts, width, vocab] after each token of each context, padded on the right."""
    width = max(len(one.ids) for one in contexts)
    ids = torch.tensor([[*one.ids, *[0] * (width - len(one.ids))] for one in contexts], device=model.device)
    positions = torch.arange(width, device=model.device).expand(len(contexts), -1)
    memories: list[EncoderMemory] = (
        model.read([one.source for one in contexts]) if model.start else [[] for _ in contexts]
    )
    scratch = KVBuffer(len(contexts), width, model.device)
    scratch.admit([Prefix([], memory) for memory in memories])
    return model.forward(ids, positions, None, scratch, keep=width)


def _trace(request: Request, tokens: tuple[int, ...], logits: list[Tensor]) -> Trace:
    """logits [length, vocab] of each context where the tokens are predicted."""
    vocab = min(one.shape[1] for one in logits)
    own, *others = [log_probs(one[:, :vocab].to(logits[0].device)) for one in logits]
    negatives = torch.stack(others, 1) if others else own[:, None][:, :0]  # [length, branches, vocab]
    weights = own.new_tensor([[branch.weight for branch in request.branches]]).expand(len(tokens), -1)
    chosen = torch.tensor(tokens, device=own.device)

    def trace(scales: list[float]) -> list[list[float]]:
        """A row of numbers a token; what the negatives say is NaN where they would not have been run."""
        in_force = own.new_tensor(scales)
        guided = own
        if others and request.guidance is not None:
            guided, in_force = request.guidance.guide(own, negatives, weights, in_force)
        numbers = measure(guided, own, negatives, weights, chosen, in_force)
        return [
            [g, p, n, h, d, s] if scale != 1 else [g, p, math.nan, h, math.nan, s]
            for (g, p, n, h, d, s), scale in zip(
                cast("list[list[float]]", numbers.tolist()), scales, strict=True
            )
        ]

    guidance = request.guidance if others else None
    scales = [guidance.scale_at(step) if guidance else 1.0 for step in range(len(tokens))]
    rows = trace(scales)
    divergences = [row[4] for row in rows]
    ends = (n for n in range(1, len(tokens)) if guidance and guidance.has_ended(divergences[:n]))
    end = next(ends, len(tokens))
    return Trace.from_steps(rows if end == len(tokens) else trace(scales[:end] + [1.0] * (len(tokens) - end)))


def _chunks(texts: Sequence[Text], budget: int) -> Iterator[list[int]]:
    """Numbers of texts alike in length, in chunks of at most so many padded tokens."""
    longest = [max(len(ids) for _, ids in request.contexts) + len(tokens) for request, tokens in texts]
    chunk: list[int] = []
    rows = 0
    for number in sorted(range(len(texts)), key=longest.__getitem__):
        request, tokens = texts[number]
        if not tokens:
            raise InputError(f"continuation {number} is empty; there is nothing to score")
        rows += len(request.contexts)
        if chunk and rows * longest[number] > budget:
            yield chunk
            chunk, rows = [], len(request.contexts)
        chunk.append(number)
    if chunk:
        yield chunk

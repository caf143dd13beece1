"""Log-probs of given texts: teacher forcing, one forward a branch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import cast

import torch

from cfg_lab.decoding.batch import CausalModel
from cfg_lab.decoding.columns import Columns
from cfg_lab.decoding.trace import measure
from cfg_lab.guidance import log_probs
from cfg_lab.records import InputError, Request, Trace

Text = tuple[Request, tuple[int, ...]]

_LOGITS_AT_ONCE = 100_000_000
"""Numbers, 400 MB."""


@torch.inference_mode()
def score(model: CausalModel, texts: Sequence[Text]) -> list[Trace]:
    """The trace of each text as if the request had been decoded to it. See `Decoder.score`."""
    traces: dict[int, Trace] = {}
    for chunk in _chunks(texts, _LOGITS_AT_ONCE // model.vocab_size):
        rows = [
            (*ids, *tokens[:-1])
            for request, tokens in (texts[i] for i in chunk)
            for ids in _contexts(request)
        ]
        width = max(map(len, rows))
        ids = torch.tensor([[*row, *[0] * (width - len(row))] for row in rows], device=model.device)
        positions = torch.arange(width, device=model.device).expand(len(rows), -1)
        scratch = Columns(len(rows), width, model.device, live=len(rows))
        logits = model.forward(ids, positions, None, scratch, keep=width)  # [rows, width, vocab]
        first = 0
        for number in chunk:
            request, tokens = texts[number]
            traces[number] = _trace(request, tokens, logits[first : first + request.rows])
            first += request.rows
    return [traces[number] for number in range(len(texts))]


def _trace(request: Request, tokens: tuple[int, ...], logits: torch.Tensor) -> Trace:
    """logits [branches, width, vocab] of a request's contexts, each followed by the tokens."""
    length = len(tokens)
    begins = [len(ids) - 1 for ids in _contexts(request)]  # where the first token is predicted
    own, *others = [log_probs(row[begin : begin + length]) for row, begin in zip(logits, begins, strict=True)]
    negatives = torch.stack(others, 1) if others else own[:, None][:, :0]  # [tokens, branches, vocab]
    weights = own.new_tensor([[branch.weight for branch in request.branches]]).expand(length, -1)
    steps = torch.arange(length, device=own.device)
    guidance = request.guidance if others else None
    guided = log_probs(guidance.combine(own, negatives, weights, steps)) if guidance else own
    numbers = measure(guided, own, negatives, weights, torch.tensor(tokens, device=own.device))
    scales = [guidance.scale_at(step) if guidance else 1.0 for step in range(length)]
    return Trace.of(
        [
            [*row, scale]
            for row, scale in zip(cast("list[list[float]]", numbers.tolist()), scales, strict=True)
        ]
    )


def _contexts(request: Request) -> list[tuple[int, ...]]:
    return [request.positive, *(branch.ids for branch in request.branches)]


def _chunks(texts: Sequence[Text], budget: int) -> Iterator[list[int]]:
    """Numbers of texts alike in length, in chunks of at most so many padded tokens."""
    longest = [max(map(len, _contexts(request))) + len(tokens) for request, tokens in texts]
    chunk: list[int] = []
    rows = 0
    for number in sorted(range(len(texts)), key=longest.__getitem__):
        if not texts[number][1]:
            raise InputError(f"continuation {number} is empty; there is nothing to score")
        rows += texts[number][0].rows
        if chunk and rows * longest[number] > budget:
            yield chunk
            chunk, rows = [], texts[number][0].rows
        chunk.append(number)
    if chunk:
        yield chunk

"""Traces of given texts by teacher forcing: one forward per branch instead of one per token.

1. Every branch reads its context and the text. It predicts each token of the text from the tokens before it.
2. Guidance combines the branches at each token, as in decoding.
3. A rule can end guidance, depending on the divergences of the tokens so far. The tokens after that point are
   measured again without guidance.

The result equals the trace of decoding, because decoding also predicts each token from the tokens before it.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple, cast

import torch
from torch import Tensor

from cfg_lab.decoding.distributions import guide
from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer, Prefix
from cfg_lab.decoding.measurements import measure
from cfg_lab.decoding.model import CausalModel, Context, context_after
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.trace import NEGATIVE_FIELDS, TRACE_FIELDS, Trace
from cfg_lab.errors import InputError
from cfg_lab.guidance.rule import is_off

_MAX_LOGITS = 100_000_000
"""Largest number of logits in memory at once: 400 MB in float32."""

_DIVERGENCE = TRACE_FIELDS.index("divergence")


class GivenText(NamedTuple):
    """A text whose trace is computed: a request, and the new tokens that follow its positive context."""

    request: Request
    tokens: tuple[int, ...]


@torch.inference_mode()
def trace_texts(models: Mapping[str | None, CausalModel], texts: Sequence[GivenText]) -> list[Trace]:
    """One trace per text, in order: the trace that decoding would record if it chose the text's tokens.

    Args:
        models: maps a name to a model. Branches refer to models by these names. The key None stands for the
            model that runs the positive contexts.

    Raises:
        InputError: a text is empty.
    """
    traces: dict[int, Trace] = {}
    for chunk in _chunks(texts, _MAX_LOGITS // models[None].vocab_size):
        # Keys are (number of the text, number of the branch).
        contexts: dict[str | None, dict[tuple[int, int], Context]] = defaultdict(dict)
        for number in chunk:
            request, tokens = texts[number]
            for branch, (name, ids) in enumerate(request.contexts):
                contexts[name][number, branch] = context_after(models[name], ids, tokens[:-1])
        logits: dict[tuple[int, int], Tensor] = {}  # [length of the text, vocab] each
        for name, by_branch in contexts.items():
            all_logits = _forward(models[name], list(by_branch.values()))
            for (key, context), row in zip(by_branch.items(), all_logits, strict=True):
                length = len(texts[key[0]].tokens)
                logits[key] = row[len(context.ids) - length : len(context.ids)]
        for number in chunk:
            branches = range(len(texts[number].request.contexts))
            traces[number] = _trace(texts[number], [logits[number, branch] for branch in branches])
    return [traces[number] for number in range(len(texts))]


def _forward(model: CausalModel, contexts: list[Context]) -> Tensor:
    """The logits after each token of each context: [contexts, width, vocab].

    `width` is the length of the longest context. Shorter contexts are padded on the right.
    """
    width = max(len(context.ids) for context in contexts)
    padded = [[*context.ids, *[0] * (width - len(context.ids))] for context in contexts]
    ids = torch.tensor(padded, device=model.device)
    positions = torch.arange(width, device=model.device).expand(len(contexts), -1)
    memories: list[EncoderMemory] = (
        model.read([context.source for context in contexts]) if model.start else [[] for _ in contexts]
    )
    buffer = KVBuffer(len(contexts), width, model.device)
    buffer.admit([Prefix(memory=memory) for memory in memories])
    return model.forward(ids, positions, None, buffer, keep=width)


def _trace(text: GivenText, logits: list[Tensor]) -> Trace:
    """The trace of one text.

    Args:
        logits: one tensor [length, vocab] per branch, the positive branch first.
    """
    request, tokens = text
    device, vocab = logits[0].device, min(of_branch.shape[1] for of_branch in logits)
    positive, *others = [of_branch[:, :vocab].to(device) for of_branch in logits]
    negatives = torch.stack(others, 1) if others else positive[:, None][:, :0]  # [length, branches, vocab]
    guidance = request.guidance if others else None
    weights = positive.new_tensor([[branch.weight for branch in request.branches]], dtype=torch.float32)
    weights = weights.expand(len(tokens), -1)  # [length, branches]
    chosen = torch.tensor(tokens, device=device)
    is_of_negatives = torch.tensor([field in NEGATIVE_FIELDS for field in TRACE_FIELDS], device=device)

    def numbers_at(scales: list[float]) -> list[list[float]]:
        """The trace values of each token. `scales` has one scale per token, as the schedule plans it."""
        planned = torch.tensor(scales, dtype=torch.float32, device=device)
        numbers = measure(guide(guidance, positive, negatives, weights, planned), chosen)
        # Decoding runs no negative while guidance is off, so the negatives' numbers are NaN there.
        off = torch.tensor([is_off(scale) for scale in scales], device=device)
        numbers.masked_fill_(off[:, None] & is_of_negatives, math.nan)
        return cast("list[list[float]]", numbers.tolist())

    scales = [guidance.scale_at(step) if guidance else 1.0 for step in range(len(tokens))]
    numbers = numbers_at(scales)
    divergences = [row[_DIVERGENCE] for row in numbers]
    for step in range(1, len(tokens)):
        if guidance and guidance.has_ended(divergences[:step]):
            return Trace.from_steps(numbers_at(scales[:step] + [1.0] * (len(tokens) - step)))
    return Trace.from_steps(numbers)


def _chunks(texts: Sequence[GivenText], max_tokens: int) -> Iterator[list[int]]:
    """Split texts into chunks of texts of similar length. A chunk is a list of indices into `texts`.

    All branches of a chunk have at most `max_tokens` tokens in total, padding included. A text with more
    tokens is a chunk of its own.
    """
    longest = [max(len(ids) for _, ids in request.contexts) + len(tokens) for request, tokens in texts]
    chunk: list[int] = []
    rows = 0
    for number in sorted(range(len(texts)), key=longest.__getitem__):
        request, tokens = texts[number]
        if not tokens:
            raise InputError(f"continuation {number} is empty; it must have at least one token")
        rows += len(request.contexts)
        if chunk and rows * longest[number] > max_tokens:
            yield chunk
            chunk, rows = [], len(request.contexts)
        chunk.append(number)
    if chunk:
        yield chunk

"""What the decoder asks of a model."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError


class Context(NamedTuple):
    """What a row has seen: token ids, and for encoder-decoder models the source its encoder has read."""

    ids: tuple[int, ...]
    source: tuple[int, ...] = ()

    @property
    def before(self) -> Context:
        """All but the last token, which is fed at the next step."""
        return Context(self.ids[:-1], self.source)


class CausalModel(Protocol):
    """A model that continues token ids."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def context_length(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def start(self) -> tuple[int, ...]:
        """Empty for models that continue their context; else contexts are sources, read by an encoder, and
        these are the tokens the decoder starts with."""
        ...

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int = 1
    ) -> Tensor:
        """Run ids [rows, q] at positions [rows, q], writing keys and values to the buffer.

        mask [rows, width] bool says which columns a row may look at, its own included, and goes with q = 1;
        None is causal attention to every column from `buffer.low` on. Returns the logits of the last
        `keep` positions, [rows, keep, vocab] float32.
        """
        ...

    def read(self, sources: list[tuple[int, ...]]) -> list[EncoderMemory]:
        """What the decoder attends to of each source; only called where `start` is not empty."""
        ...


def context(model: CausalModel, ids: tuple[int, ...], tokens: tuple[int, ...]) -> Context:
    """What a branch's row has seen once the new tokens are there."""
    return Context((*model.start, *tokens), ids) if model.start else Context((*ids, *tokens))


def check_length(model: CausalModel, ids: tuple[int, ...], max_new_tokens: int) -> None:
    """Raise InputError where a context and the new tokens are more than the model can see."""
    seen = context(model, ids, ())
    longest = max(len(seen.ids) + max_new_tokens, len(seen.source))
    if longest > model.context_length:
        raise InputError(
            f"a context of {len(ids)} tokens and max_new_tokens={max_new_tokens} exceed the "
            f"{model.context_length} tokens that model {model.name!r} can see; shorten either"
        )


class NotANumberError(RuntimeError):
    """The model's logits are not numbers. `model`, `request` and `step` say where."""

    def __init__(self, model: str, request: Request, step: int) -> None:
        super().__init__(
            f"model {model!r} gave logits that are not numbers at step {step} of the prompt with token ids "
            f"{list(request.positive[:8])}…; a wider dtype (model.dtype=float32) may help"
        )
        self.model, self.request, self.step = model, request, step

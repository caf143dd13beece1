"""The interface of models for the decoder, and the context that one row of a model's batch reads."""

from __future__ import annotations

from typing import NamedTuple, Protocol

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.prefix import EncoderMemory
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError, ModelError


class Context(NamedTuple):
    """The tokens that one row of the batch reads.

    Attributes:
        ids: tokens that the row attends to by causal attention.
        source: tokens that the encoder reads; empty for models without an encoder.
    """

    ids: tuple[int, ...]
    source: tuple[int, ...] = ()

    @property
    def without_last_token(self) -> Context:
        """The context without its last token.

        This part is prefilled: its keys and values are computed in advance. The next step reads the last
        token.
        """
        return Context(self.ids[:-1], self.source)


class CausalModel(Protocol):
    """A model that predicts the token after given token ids. `cfg_lab.load_model` returns one.

    Attributes:
        name: name of the model in error messages.
        device: the device that the model runs on.
        context_length: largest number of tokens that one row can hold.
        context_limit: what sets `context_length`, in error messages.
        vocab_size: number of logits per position.
        recurrent: whether any layer keeps a state that each token changes. Padding would change it too.
    """

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def context_length(self) -> int: ...
    @property
    def context_limit(self) -> str: ...
    @property
    def vocab_size(self) -> int: ...
    @property
    def recurrent(self) -> bool: ...
    @property
    def start(self) -> tuple[int, ...]:
        """The tokens that the decoder of an encoder-decoder model starts with.

        An encoder-decoder model reads the context of a branch with its encoder. For all other models `start`
        is empty, because they continue the context itself.
        """
        ...

    @property
    def static_length(self) -> int:
        """The largest number of tokens in a row with which the model can run the steps of `StaticBatch`.

        0 if the model cannot run such steps. In such a step the columns of a row begin at the first column of
        the buffer, and the mask says which of them are its own.
        """
        ...

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int = 1
    ) -> Tensor:
        """Run the model on new tokens and write their keys and values to the buffer.

        Args:
            ids: [rows, q], the next q tokens of each live row.
            positions: [rows, q], the position of each token in its row.
            mask: [rows, columns] bool, True for the columns that a row may attend to. The first column is
                `buffer.low`, the last one is the column of the new token. A mask requires q = 1. None means
                no mask: attention is causal over all columns from `buffer.low` on.
            buffer: the keys and values of all live rows.
            keep: number of positions whose logits are returned, counted from the last position.

        Returns:
            Logits [rows, keep, vocab], float32.
        """
        ...

    def read(self, sources: list[tuple[int, ...]]) -> list[EncoderMemory]:
        """Run the encoder on token ids, and return the cross-attention keys and values of each source.

        A source is the token ids of one text that the encoder reads.

        The decoder calls this method only for a model whose `start` is not empty.
        """
        ...


def context_after(model: CausalModel, ids: tuple[int, ...], new_tokens: tuple[int, ...]) -> Context:
    """The context of a branch that begins with the token ids `ids`, after `new_tokens` were decoded.

    The encoder of an encoder-decoder model reads `ids`. Its decoder reads the model's `start` tokens and then
    the new tokens.
    """
    return Context((*model.start, *new_tokens), ids) if model.start else Context((*ids, *new_tokens))


def check_length(model: CausalModel, ids: tuple[int, ...], new_tokens: int, what: str) -> None:
    """Raise InputError if a context and its new tokens exceed the model's context length.

    Args:
        new_tokens: number of new tokens that the model reads.
        what: what they are, in the error message.
    """
    context = context_after(model, ids, ())
    longest = max(len(context.ids) + new_tokens, len(context.source))
    if longest > model.context_length:
        raise InputError(
            f"a context of {len(ids)} tokens and {what} exceed the {model.context_length} tokens that model "
            f"{model.name!r} can see ({model.context_limit}); shorten either"
        )


class NotANumberError(ModelError):
    """A model returned logits that are not numbers.

    Attributes:
        model: name of the model.
        request: the request that was being decoded.
        step: number of the new token, counted from 0.
    """

    def __init__(self, model: str, request: Request, step: int) -> None:
        super().__init__(
            f"model {model!r} gave logits that are not numbers at step {step} of the prompt with token ids "
            f"{list(request.positive[:8])}…; a wider dtype (model.dtype=float32) may help"
        )
        self.model, self.request, self.step = model, request, step

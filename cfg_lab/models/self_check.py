"""A check of every model at load: do short rows in one batch give the logits of the model's own forward?

The decoder runs rows of different lengths in one batch, with a cache that transformers does not know. Not
every architecture allows that. Some count positions in their own way, some attend to later tokens, some keep
what the cache does not hold. Such a model would give wrong texts without an error. So every model is compared
with its own forward once, when it is loaded:

1. The model's own forward, without a cache, gives the logits after each token of a few short contexts.
2. The lab runs the same contexts as the decoder does: a prefill, rows that start at different steps, a row
   that is copied, a row that is freed, and a move of the columns.
3. If the logits differ by more than rounding, the model is refused.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from typing import Any, cast

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.logit_difference import largest_difference, relative_difference, tolerance
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.prefill import prefill
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.errors import InputError

OwnLogits = Callable[[list[Context]], Tensor]
"""The model's own forward without a cache: contexts of equal length -> logits [contexts, length, vocab]."""

_ROWS = 3
_PREFILLED = (5, 3)  # tokens of the first and the second context that are prefilled
_SHARED = 2  # tokens with which the first and the second context begin
_EXACT_STEPS = 3
_ROUGH_STEPS = 6  # enough for a median
_DRAWS = 3  # largest number of draws of contexts, in half precision


class SelfCheck:
    """Compares the lab's logits with those of the model's own forward.

    Args:
        model: the model as the decoder uses it.
        module: the transformers model. The own forward runs here, before anything in it is replaced.
        own_logits: the own forward of the transformers model.
        encoder: whether the model has an encoder.

    Raises:
        InputError: the own forward fails.
    """

    def __init__(self, model: CausalModel, module: Any, own_logits: OwnLogits, *, encoder: bool) -> None:
        self.model, self.module, self.own_logits, self.encoder = model, module, own_logits, encoder
        with self.refusing_errors():
            _refuse_known_faults(module)
            is_quantised = getattr(module.config, "quantization_config", None) is not None
            self.exact = module.dtype in {torch.float32, torch.float64} and not is_quantised
            self.steps = _EXACT_STEPS if self.exact else _ROUGH_STEPS
            self._draw_contexts(0)

    def _draw_contexts(self, seed: int) -> None:
        """Draw contexts, and compute the logits after each of their tokens by the own forward."""
        length = _PREFILLED[1] + self.steps
        self.contexts = _contexts(self.model.vocab_size, length, self.encoder, seed)
        self.expected = self.own_logits(self.contexts)  # [contexts, length, vocab]

    def passes(self) -> bool:
        """Whether the lab's logits differ only by rounding.

        Raises:
            InputError: the model raises an error when the lab runs it.
        """
        with self.refusing_errors():
            # In half precision, rounding may be large in one draw. A fault shows in every draw.
            for seed in range(1 if self.exact else _DRAWS):
                if seed:
                    self._draw_contexts(seed)
                difference = largest_difference(self._differences(), exact=self.exact)
                if difference <= tolerance(exact=self.exact):
                    return True
            return False

    def refusal(self) -> InputError:
        """The error for a model that does not pass."""
        if self._reads_later_tokens():
            reason = "it is not a causal language model: its log-probs of a token depend on later tokens"
        else:
            reason = (
                "short rows of different lengths, decoded in one batch with a KV cache, do not give the "
                "log-probs of its own forward without a cache"
            )
        return InputError(f"{self._name} cannot be decoded right by the lab: {reason}; use another model")

    @property
    def _name(self) -> str:
        return f"model {self.model.name!r} ({type(self.module).__name__})"

    @contextmanager
    def refusing_errors(self) -> Generator[None]:
        """Convert any error of a model, except that memory ran out, to a sentence with its first line."""
        try:
            with torch.no_grad():
                yield
        except torch.OutOfMemoryError:
            raise
        except Exception as error:  # the code of a model may raise anything
            reason = str(error).partition("\n")[0]
            if not isinstance(error, InputError):
                reason = f"{type(error).__name__} {reason}".strip()
            raise InputError(f"{self._name} cannot run in the lab: {reason}; use another model") from error

    def _reads_later_tokens(self) -> bool:
        """Whether the logits after a token depend on later tokens, in the model's own forward."""
        changed = [
            context._replace(ids=(*context.ids[:-1], self.contexts[0].ids[0])) for context in self.contexts
        ]
        with torch.no_grad():
            logits = self.own_logits(changed)
        change = max(
            relative_difference(after[0], before[0])
            for after, before in zip(logits, self.expected, strict=True)
        )
        return change > tolerance(exact=self.exact)

    def _differences(self) -> list[list[float]]:
        """For each context the differences at each token that the lab runs: 0 is equal, 1 is unrelated."""
        differences: list[list[float]] = [[] for _ in self.contexts]
        for row, position, logits in _logits(self.model, self.contexts, self.steps):
            differences[row].append(relative_difference(logits, self.expected[row, position]))
        return differences


def _refuse_known_faults(module: Any) -> None:
    """Raise InputError for faults that short rows do not show, or show in an error that explains nothing."""
    config, arguments = module.config, inspect.signature(module.forward).parameters
    if config.model_type == "switch_transformers":
        raise InputError("its experts leave out tokens beyond a capacity, which depends on how a text is cut")
    if getattr(config, "attention_type", None) == "block_sparse":
        raise InputError("its attention_type block_sparse is for good another one after the first short text")
    if config.model_type == "recurrent_gemma":
        raise InputError("it keeps the states of its recurrent layers in the model, not in a cache")
    if not {"past_key_values", "cache_params"} & arguments.keys():
        raise InputError("its forward takes no cache of transformers")


def _contexts(vocab_size: int, length: int, encoder: bool, seed: int) -> list[Context]:
    """The contexts of the check: random token ids, always the same for the same vocabulary and seed.

    Args:
        length: number of tokens of each context.
        encoder: whether the contexts have sources, for an encoder-decoder model.
    """
    generator = torch.Generator().manual_seed(seed)
    low = min(5, vocab_size - 1)  # low ids are often special tokens, such as padding
    ids = torch.randint(low, vocab_size, (_ROWS, length), generator=generator)
    ids[1, :_SHARED] = ids[0, :_SHARED]
    sources: Any = torch.randint(low, vocab_size, (_ROWS, length), generator=generator)
    rows: list[list[int]] = cast("Any", ids).tolist()
    lengths = [length, 4, 4]  # the second and the third context have the same source
    return [
        Context(tuple(row), tuple(sources[min(number, 1), : lengths[number]].tolist()) if encoder else ())
        for number, row in enumerate(rows)
    ]


def _logits(model: CausalModel, contexts: list[Context], steps: int) -> Iterator[tuple[int, int, Tensor]]:
    """The lab's logits, as (number of the context, number of the token, logits [vocab])."""
    first, second, _ = contexts
    sources = list(dict.fromkeys(context.source for context in contexts if context.source))
    memories = dict(zip(sources, model.read(sources) if sources else [], strict=True))
    starts = [Prefix(memory=memories.get(context.source, [])) for context in contexts]
    beginnings = [
        Context(context.ids[:length], context.source)
        for context, length in zip((first, second), _PREFILLED, strict=True)
    ]
    if model.recurrent or sources:
        prefixes = [
            prefill(model, [beginning], 0, [start])[0]
            for beginning, start in zip(beginnings, starts[:2], strict=True)
        ]
    else:  # the second forward continues a cache with several tokens
        (start,) = prefill(model, [Context(first.ids[:_SHARED])], 0, starts[:1])
        prefixes = prefill(model, beginnings, _SHARED, [start, start])
    # The columns are moved after the last step but one.
    buffer = KVBuffer(_ROWS + 1, _PREFILLED[0] + steps - 1, model.device)
    buffer.admit(prefixes)
    rows = [0, 1]  # the context of each row
    read = [*_PREFILLED]  # the number of tokens that each row has read
    for step in range(steps):
        if step == 1:
            buffer.fork([1])
            buffer.admit([starts[2]])
            rows += [1, 2]
            read += [read[1], 0]
        if step == steps // 2:
            buffer.free(0)
            rows[0], read[0] = rows.pop(), read.pop()
        ids = torch.tensor(
            [[contexts[context].ids[token]] for context, token in zip(rows, read, strict=True)]
        )
        logits = model.forward(ids.to(model.device), buffer.positions(), buffer.mask(), buffer)
        buffer.advance()
        for row, context in enumerate(rows):
            yield context, read[row], logits[row, 0]
            read[row] += 1

"""A logits processor that applies this lab's guidance rules inside `model.generate` of transformers."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance, NeverStop, Rule, is_off, log_probs
from cfg_lab.guidance.rule import guide_at

_NEW_PROCESSOR = "make a new processor for each call of generate"


class GuidanceLogitsProcessor(LogitsProcessor):
    """Guides `generate` with any rule of `cfg_lab.guidance` and any number of negatives per prompt.

        negatives = [tokenizer("Write something dull.").input_ids for _ in prompts]
        processor = GuidanceLogitsProcessor(model, negatives, ClassifierFreeGuidance(scale=1.5))
        model.generate(**inputs, logits_processor=[processor], num_beams=4)

    It works with batches, beam search, several samples per prompt and left-padded prompts. The negatives have
    a KV cache of their own. This cache is reordered when `generate` reorders its beams. Make a new processor
    for each call of `generate`.

    Args:
        model: the causal model of transformers whose `generate` is called.
        negatives: one entry per prompt. An entry is one negative context (token ids without padding), or a
            list of negative contexts. All such lists have the same length.
        guidance: a rule; by default `ClassifierFreeGuidance()`.
        weights: one weight for each negative of a prompt, the same for all prompts; None is weight 1 for all.

    Raises:
        InputError: a context is empty; the prompts have different numbers of negatives; the number of weights
            is wrong; or the rule has a stopping condition, which only the lab's decoder supports. While
            `generate` runs: the number of rows is not a multiple of the number of prompts, or the rows do not
            continue those of the previous call.
    """

    def __init__(
        self,
        model: Any,
        negatives: Sequence[Sequence[int]] | Sequence[Sequence[Sequence[int]]],
        guidance: Guidance | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.model, self.guidance = model, guidance or ClassifierFreeGuidance()
        self.contexts = [_as_contexts(prompt_negatives) for prompt_negatives in negatives]  # by prompt
        counts = {len(contexts) for contexts in self.contexts}
        if len(counts) != 1 or not all(ids for contexts in self.contexts for ids in contexts):
            lengths = [[len(ids) for ids in contexts] for contexts in self.contexts]
            raise InputError(
                "negatives must be contexts of at least one token id, equally many for each prompt; "
                f"got contexts of {lengths} tokens"
            )
        (self.negative_count,) = counts
        self.weights = [1.0] * self.negative_count if weights is None else list(map(float, weights))
        if isinstance(self.guidance, Rule) and not isinstance(self.guidance.stopping, NeverStop):
            raise InputError(
                f"guidance.stopping works in cfg_lab.Decoder only; here it must be NeverStop(), "
                f"got {self.guidance.stopping!r}"
            )
        if len(self.weights) != self.negative_count:
            raise InputError(
                f"weights must be one for each of {self.negative_count} negatives, got {self.weights}"
            )
        self.previous_ids: Tensor | None = None  # [rows, tokens] of the previous call
        self.prompt_length = 0  # tokens, padding included
        self.tokens_read = 0  # new tokens that are in the negatives' KV cache
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Return the guided log-probs [rows, vocab] for input_ids [rows, tokens] and logits [rows, vocab]."""
        if self.previous_ids is None:
            self._begin(input_ids)
        else:
            self._follow_beams(input_ids, self.previous_ids)
        self.previous_ids = input_ids
        impossible = scores == -math.inf
        positive = log_probs(scores)
        step = input_ids.shape[1] - self.prompt_length
        scale = self.guidance.scale_at(step)
        if is_off(scale):
            return positive.masked_fill(impossible, -math.inf)
        negatives = log_probs(self._forward(input_ids)[..., : positive.shape[1]])
        rows, vocab = len(positive), negatives.shape[2]
        weights = positive.new_tensor([self.weights]).expand(rows, -1)
        scales = positive.new_full((rows,), scale)
        steps = torch.full((rows,), step, device=positive.device)
        guided, _ = guide_at(self.guidance, positive[:, :vocab], negatives, weights, scales, steps)
        guided = torch.nn.functional.pad(guided, (0, scores.shape[1] - vocab), value=-math.inf)
        return guided.masked_fill(impossible, -math.inf)

    def _begin(self, input_ids: Tensor) -> None:
        """Store the negative contexts, padded on the left, in the order of the rows that `generate` passes.

        `generate` passes the copies of a prompt (beams or samples) next to each other.
        """
        rows, self.prompt_length = input_ids.shape
        copies, remainder = divmod(rows, len(self.contexts))
        if remainder:
            raise InputError(
                f"negatives of {len(self.contexts)} prompts do not fit the {rows} rows of generate"
            )
        contexts = [ids for prompt in self.contexts for _ in range(copies) for ids in prompt]
        width = max(map(len, contexts))
        paddings = [[0] * (width - len(ids)) for ids in contexts]
        self.ids = torch.tensor(
            [[*padding, *ids] for padding, ids in zip(paddings, contexts, strict=True)],
            device=input_ids.device,
        )
        self.mask = torch.tensor(
            [[*padding, *[1] * len(ids)] for padding, ids in zip(paddings, contexts, strict=True)],
            device=input_ids.device,
        )
        self.cache = DynamicCache(config=self.model.config)

    def _follow_beams(self, input_ids: Tensor, previous_ids: Tensor) -> None:
        """Reorder the negatives' KV cache in the same way as `generate` has reordered its beams.

        `generate` does not tell which previous row each row continues. So a previous row of the same prompt
        with the same tokens is used. If there are several such rows, any of them is correct, because their
        caches are equal.
        """
        rows, length = previous_ids.shape
        if input_ids.shape != (rows, length + 1):
            raise InputError(f"these rows do not continue those of the previous call; {_NEW_PROCESSOR}")
        prefixes = input_ids[:, :-1]
        if torch.equal(prefixes, previous_ids):
            return
        copies = rows // len(self.contexts)
        prefixes = prefixes.reshape(-1, copies, length)  # [prompts, copies, tokens]
        previous = previous_ids.reshape(-1, copies, length)
        is_equal = (prefixes[:, :, None] == previous[:, None]).all(-1)  # [prompts, copies, previous copies]
        if not is_equal.any(-1).all():
            raise InputError(f"these rows do not continue those of the previous call; {_NEW_PROCESSOR}")
        first_rows = torch.arange(len(is_equal), device=is_equal.device)[:, None] * copies
        parents = (is_equal.int().argmax(-1) + first_rows).flatten()  # [rows]
        negatives = torch.arange(self.negative_count, device=parents.device)
        branches = (parents[:, None] * self.negative_count + negatives).flatten()
        if self.cache.get_seq_length():
            self.cache.reorder_cache(cast("Any", branches))
        self.ids, self.mask = self.ids[branches], self.mask[branches]

    def _forward(self, input_ids: Tensor) -> Tensor:
        """Run the negatives on all tokens that their KV cache does not hold yet.

        Returns logits [rows, negatives, vocab].
        """
        new_ids = input_ids[:, self.prompt_length + self.tokens_read :]
        new_ids = new_ids.repeat_interleave(self.negative_count, 0)
        ids = new_ids if self.cache.get_seq_length() else torch.cat([self.ids, new_ids], 1)
        self.mask = torch.cat([self.mask, torch.ones_like(new_ids)], 1)
        self.tokens_read += new_ids.shape[1]
        arguments: dict[str, Any] = {}
        if self.takes_positions:
            # Padding tokens get position 0. The mask hides them.
            arguments["position_ids"] = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **arguments,
        )
        return output.logits[:, -1].unflatten(0, (-1, self.negative_count))


def _as_contexts(negatives: Sequence[Any]) -> list[list[int]]:
    """Return the negative contexts of a prompt as a list of contexts, each a list of token ids.

    A single context becomes a list of one context.
    """
    if not negatives or isinstance(negatives[0], int):
        return [list(negatives)]
    return [list(ids) for ids in negatives]

"""The lab's guidance rules inside anybody's `model.generate`."""

from __future__ import annotations

import inspect
import math
from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor
from transformers import DynamicCache, LogitsProcessor

from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance, Guidance, Rule, log_probs


class GuidanceLogitsProcessor(LogitsProcessor):
    """Guides `generate`: batches, beams, several samples and left-padded prompts, any number of negatives.

        negatives = [tokenizer("Write something dull.").input_ids for _ in prompts]
        processor = GuidanceLogitsProcessor(model, negatives, ClassifierFreeGuidance(scale=1.5))
        model.generate(**inputs, logits_processor=[processor], num_beams=4)

    The negative branches keep their own keys and values, which follow when beams are reordered. Make a new
    processor for each call of generate.

    Args:
        model: the causal model of transformers that generate is called on.
        negatives: for each prompt its negative context as token ids, not padded; or several of them.
        guidance: any rule of `cfg_lab.guidance`.
        weights: of several negatives, the same for every prompt; None weighs all alike.

    Raises:
        InputError: an empty context, not one weight a negative, or a rule that ends guidance by what it has
            seen (agree_below), which only the lab's decoder can; from generate, where its rows are not a
            multiple of the prompts.
    """

    def __init__(
        self,
        model: Any,
        negatives: Sequence[Sequence[int]] | Sequence[Sequence[Sequence[int]]],
        guidance: Guidance | None = None,
        weights: Sequence[float] | None = None,
    ) -> None:
        self.model, self.guidance = model, guidance or ClassifierFreeGuidance()
        self.contexts: list[list[list[int]]] = [_several(each) for each in negatives]
        counts = {len(each) for each in self.contexts}
        if len(counts) != 1 or not all(ids for each in self.contexts for ids in each):
            raise InputError(
                "negatives must be token ids, at least one a context and equally many contexts a prompt, got "
                f"{[[len(ids) for ids in each] for each in self.contexts]} tokens"
            )
        (self.count,) = counts
        self.weights = [1.0] * self.count if weights is None else [float(weight) for weight in weights]
        if isinstance(self.guidance, Rule) and self.guidance.agree_below:
            raise InputError("guidance.agree_below works in cfg_lab.Decoder only; leave it at 0")
        if len(self.weights) != self.count:
            raise InputError(f"weights must be one for each of {self.count} negatives, got {self.weights}")
        self.seen: Tensor | None = None  # [rows, tokens] of the call before
        self.begun = 0  # tokens of the prompts
        self.fed = 0  # new tokens that the negatives have seen
        self.takes_positions = "position_ids" in inspect.signature(model.forward).parameters

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """input_ids [rows, tokens], scores [rows, vocab] -> guided log-probs [rows, vocab]."""
        if self.seen is None:
            self._start(input_ids)
        else:
            self._follow(input_ids)
        self.seen = input_ids
        step = input_ids.shape[1] - self.begun
        scale = self.guidance.scale_at(step)
        positive = log_probs(scores)
        if scale == 1:
            return positive.masked_fill(scores == -math.inf, -math.inf)
        negatives = log_probs(self._forward(input_ids)[..., : positive.shape[1]])
        weights = positive.new_tensor([self.weights]).expand(len(positive), -1)
        guided, _ = self.guidance.guide(
            positive[:, : negatives.shape[2]], negatives, weights, positive.new_full((len(positive),), scale)
        )
        guided = torch.nn.functional.pad(guided, (0, scores.shape[1] - guided.shape[1]), value=-math.inf)
        return guided.masked_fill(scores == -math.inf, -math.inf)

    def _start(self, input_ids: Tensor) -> None:
        """Lay the negatives out as generate does its rows: each prompt's one after another, left-padded."""
        rows, self.begun = input_ids.shape
        copies, rest = divmod(rows, len(self.contexts))
        if rest:
            raise InputError(
                f"negatives of {len(self.contexts)} prompts cannot serve {rows} rows of generate"
            )
        contexts = [ids for each in self.contexts for _ in range(copies) for ids in each]
        width = max(map(len, contexts))
        self.ids = torch.tensor(
            [[*[0] * (width - len(ids)), *ids] for ids in contexts], device=input_ids.device
        )
        self.mask = torch.tensor(
            [[0] * (width - len(ids)) + [1] * len(ids) for ids in contexts], device=input_ids.device
        )
        self.cache = DynamicCache(config=self.model.config)

    def _follow(self, input_ids: Tensor) -> None:
        """Where beams were reordered, each row goes on from the keys and values of its parent.

        generate does not say which that is, but rows that have seen the same tokens are alike: any will do.
        """
        assert self.seen is not None
        if input_ids.shape != (self.seen.shape[0], self.seen.shape[1] + 1):
            raise InputError(
                "these rows do not go on from those before; make a new processor for each generate"
            )
        before = input_ids[:, :-1]
        if torch.equal(before, self.seen):
            return
        copies = len(before) // len(self.contexts)
        own = before.reshape(-1, copies, before.shape[1])
        old = self.seen.reshape(-1, copies, before.shape[1])
        same = (own[:, :, None] == old[:, None]).all(-1)  # [prompts, copies, copies]
        if not same.any(-1).all():
            raise InputError(
                "these rows do not go on from those before; make a new processor for each generate"
            )
        first = torch.arange(len(same), device=same.device)[:, None] * copies
        parents = (same.int().argmax(-1) + first).flatten()
        branches = (parents[:, None] * self.count + torch.arange(self.count, device=parents.device)).flatten()
        if self.cache.get_seq_length():
            self.cache.reorder_cache(cast("Any", branches))
        self.ids, self.mask = self.ids[branches], self.mask[branches]

    def _forward(self, input_ids: Tensor) -> Tensor:
        """Feed the negatives what they have not seen yet: logits [rows, negatives, vocab]."""
        new = input_ids[:, self.begun + self.fed :].repeat_interleave(self.count, 0)
        first = not self.cache.get_seq_length()
        ids = torch.cat([self.ids, new], 1) if first else new
        self.mask = torch.cat([self.mask, torch.ones_like(new)], 1)
        positions = (self.mask.cumsum(1) - 1).clamp(min=0)[:, -ids.shape[1] :]
        self.fed += new.shape[1]
        output = self.model(
            input_ids=ids,
            attention_mask=self.mask,
            past_key_values=self.cache,
            use_cache=True,
            logits_to_keep=1,
            **({"position_ids": positions} if self.takes_positions else {}),
        )
        return output.logits[:, -1].unflatten(0, (-1, self.count))


def _several(ids: Sequence[Any]) -> list[list[int]]:
    """One context or several, as several."""
    if not ids or isinstance(ids[0], int):
        return [list(ids)]
    return [list(each) for each in ids]

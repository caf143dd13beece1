"""The contenders of the lab in `benchmarks.gpu`: two ways in which transformers decodes many prompts."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch

from benchmarks.gpu_limits import seconds_of
from benchmarks.gpu_models import free_memory
from benchmarks.gpu_report import Numbers

Ids = Sequence[tuple[int, ...]]

_BATCH = 8
"""Number of prompts in a batch of `generate`."""


class Contender(Protocol):
    """Decodes `texts` texts at each call, and returns the seconds that count."""

    @property
    def texts(self) -> int: ...
    def __call__(self) -> float: ...


@dataclass
class Transformers:
    """Decodes by `generate` of transformers, greedily. Each call is one run.

    Attributes:
        scales: each prompt is decoded at each of them. 1 leaves guidance out.
        batches: number of batches of 8 prompts that are run; None for all. Equal batches take equal times, so
            the time of all is computed from that of a few.
    """

    module: Any
    positives: Ids
    negatives: Ids
    new_tokens: int
    scales: Sequence[float] = (1.0,)
    batches: int | None = None

    @property
    def texts(self) -> int:
        return len(self.positives) * len(self.scales)

    def __call__(self) -> float:
        work = [
            (scale, self.positives[first : first + _BATCH], self.negatives[first : first + _BATCH])
            for scale in self.scales
            for first in range(0, len(self.positives), _BATCH)
        ]
        measured = work[: self.batches]
        seconds = seconds_of(lambda: [self._generate(*batch) for batch in measured], self.module.device)
        return seconds * len(work) / len(measured)

    def _generate(self, scale: float, positives: Ids, negatives: Ids) -> None:
        ids, negative_ids = (
            torch.tensor(texts, device=self.module.device) for texts in (positives, negatives)
        )
        guided: Numbers = {
            "guidance_scale": scale,
            "negative_prompt_ids": negative_ids,
            "negative_prompt_attention_mask": torch.ones_like(negative_ids),
        }
        out = self.module.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            max_new_tokens=self.new_tokens,
            do_sample=False,
            pad_token_id=0,
            **(guided if scale != 1 else {}),
        )
        if out.shape[1] != ids.shape[1] + self.new_tokens:
            raise RuntimeError(f"generate made {out.shape[1] - ids.shape[1]} tokens, not {self.new_tokens}")


@dataclass
class ContinuousBatching:
    """Decodes by `generate_batch` of transformers, greedily and without guidance. Each call is one run.

    The seconds count from the first request that is added to the last one that is finished. So they leave out
    the capture of CUDA graphs, with which every call begins.
    """

    module: Any
    positives: Ids
    new_tokens: int

    @property
    def texts(self) -> int:
        return len(self.positives)

    def __call__(self) -> float:
        from transformers import ContinuousBatchingConfig, GenerationConfig

        config = GenerationConfig(
            max_new_tokens=self.new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
        )
        # By default it takes most of the free memory, on a CPU too.
        small: Numbers = (
            {"num_blocks": 64, "max_batch_tokens": 512} if self.module.device.type == "cpu" else {}
        )
        free_memory(self.module.device)  # it takes most of what is free
        logger = logging.getLogger("transformers")
        level = logger.level
        logger.setLevel(logging.ERROR)  # it tells about every batch
        try:
            answers = self.module.generate_batch(
                [list(ids) for ids in self.positives], config, ContinuousBatchingConfig(**small)
            )
        finally:
            logger.setLevel(level)
            free_memory(self.module.device)
        outputs = list(answers.values())
        tokens = sum(len(output.generated_tokens) for output in outputs)
        if tokens != len(self.positives) * self.new_tokens:
            errors = {str(output.error) for output in outputs if output.error}
            raise RuntimeError(f"generate_batch made {tokens} tokens; {', '.join(errors) or 'no error told'}")
        return max(output.lifespan[1] for output in outputs) - min(output.created_time for output in outputs)

"""The cost of choosing a token, at several entropies, compared with greedy decoding.

    python -m benchmarks.sampling [--model smollm2] [--repeats 5] [--json benchmarks/sampling.json]

The first table is the time per token of the choice alone, on made distributions. The second is the time of
whole decoding, with guidance. The peer is `TopkSampling`, the algorithm that the lab used before. It sorts
the likeliest 256, 2,048, 16,384 … tokens until these have the probability top_p, and computes the exact noise
of all of them. Both give the same tokens.

Every number is a median of repeats, in microseconds per token, and the repeats of all contenders alternate.
It counts the CPU time of this process, so other work on the machine changes it little.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy
import torch
from rich.console import Console
from rich.table import Table
from torch import Tensor

import cfg_lab
from benchmarks.machine import processor
from benchmarks.timing import alternating
from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Greedy, Request, Sampling
from cfg_lab.decoding.noise import gumbel, position_keys
from cfg_lab.decoding.sampling import Sampler
from cfg_lab.guidance.log_probs import FLOOR

VOCABULARY = 49_152
ROWS = 8  # of one call of a sampler
SPREADS = {"flat": 0.5, "medium": 3.0, "peaked": 8.0}  # standard deviation of the made logits, nats
SAMPLINGS = {
    "all tokens": Sampling(),
    "top-p 0.95": Sampling(top_p=0.95),
    "top-k 50": Sampling(top_k=50),
    "min-p 0.05": Sampling(min_p=0.05),
}
TEXTS, NEW_TOKENS = 64, 16


@dataclass(frozen=True, kw_only=True)
class TopkSampling:
    """The peer: truncation by sorting the likeliest tokens, more and more of them until they suffice."""

    temperature: float
    top_k: int
    top_p: float
    min_p: float

    random = True

    def choose(self, log_probs: Tensor, keys: Tensor) -> Tensor:
        scores = log_probs.masked_fill(log_probs <= FLOOR, -math.inf) / self.temperature
        if not self.top_k and self.top_p == 1 and not self.min_p:
            return (scores + gumbel(keys, torch.arange(scores.shape[-1]))).argmax(-1)
        candidates, tokens = self._truncate(scores)
        best = (candidates + gumbel(keys, tokens)).argmax(-1, keepdim=True)
        return tokens.gather(-1, best)[:, 0]

    def _truncate(self, scores: Tensor) -> tuple[Tensor, Tensor]:
        vocab = scores.shape[-1]
        width = min(self.top_k or 256, vocab)
        while True:
            likeliest, tokens = scores.topk(width)
            total = (likeliest if self.top_k else scores).logsumexp(-1, keepdim=True)
            probs = (likeliest - total).exp()
            mass_before = probs.cumsum(-1) - probs
            cut = (mass_before >= self.top_p) | (probs < self.min_p * probs[:, :1])
            cut[:, 0] = False
            if self.top_k or width == vocab or bool(cut[:, -1].all()):
                return likeliest.masked_fill(cut, -math.inf), tokens
            width = min(8 * width, vocab)


def peer_of(sampling: Sampling) -> TopkSampling:
    """The peer with the same settings."""
    return TopkSampling(
        temperature=sampling.temperature,
        top_k=sampling.top_k,
        top_p=sampling.top_p,
        min_p=sampling.min_p,
    )


def choices(spread: float, repeats: int) -> dict[str, Any]:
    """Time per token of the choice alone, for each setting, on distributions of one kind.

    Args:
        spread: standard deviation of the logits, nats.
    """
    logits = torch.randn(ROWS, VOCABULARY, generator=torch.Generator().manual_seed(0)) * spread
    log_probs = logits.log_softmax(-1)
    keys = position_keys(torch.arange(ROWS), torch.zeros(ROWS, dtype=torch.long))
    samplers: dict[str, Sampler] = {"greedy": Greedy()}
    for setting, sampling in SAMPLINGS.items():
        samplers[setting] = sampling
        samplers[f"{setting}, peer"] = peer_of(sampling)
    calls = {
        setting: (lambda sampler=sampler: sampler.choose(log_probs, keys))
        for setting, sampler in samplers.items()
    }
    return {
        "entropy_nats": float(-(log_probs.exp() * log_probs).sum(-1).mean()),
        "microseconds_per_token": _microseconds_per_token(calls, repeats, ROWS),
        "equal_tokens": all(calls[setting]().equal(calls[f"{setting}, peer"]()) for setting in SAMPLINGS),
    }


def whole_decoding(name: str, repeats: int) -> dict[str, Any]:
    """Time per token of decoding guided texts in one batch: greedy, and sampled at three temperatures.

    All texts have different contexts, so that no two texts share rows.
    """
    model = cfg_lab.load_model(name)
    model.module  # noqa: B018, loads it
    prompt, negative = model.encode("The next number is "), model.encode("Write something unlikely.")
    nucleus = {
        f"temperature {temperature}": Sampling(temperature=temperature, top_p=0.95)
        for temperature in (0.8, 1.5, 4.0)
    }
    samplers: dict[str, Sampler] = {"greedy": Greedy(), **nucleus}
    samplers |= {f"{setting}, peer": peer_of(sampling) for setting, sampling in nucleus.items()}
    entropies: dict[str, float] = {}
    tokens: dict[str, list[tuple[int, ...]]] = {}

    def decode(setting: str) -> None:
        requests = [
            Request(
                positive=(*prompt, 1000 + text),
                negatives=(Branch((*negative, 1000 + text)),),
                guidance=ClassifierFreeGuidance(scale=1.5),
                sampling=samplers[setting],
                max_new_tokens=NEW_TOKENS,
                sample=text,
            )
            for text in range(TEXTS)
        ]
        completions = list(Decoder(model, max_rows=2 * TEXTS).decode(requests))
        by_sample = {completion.request.sample: completion.tokens for completion in completions}
        tokens[setting] = [by_sample[text] for text in range(TEXTS)]
        entropies[setting] = statistics.mean(
            entropy for completion in completions for entropy in completion.trace.entropy
        )

    times = _microseconds_per_token(
        {setting: (lambda s=setting: decode(s)) for setting in samplers}, repeats, TEXTS * NEW_TOKENS
    )
    return {
        "texts": TEXTS,
        "microseconds_per_token": times,
        "entropy_nats": {setting: entropies[setting] for setting in ("greedy", *nucleus)},
        "by_greedy": {setting: times[setting] / times["greedy"] for setting in times},
        "equal_tokens": all(tokens[setting] == tokens[f"{setting}, peer"] for setting in nucleus),
    }


def _microseconds_per_token(
    calls: dict[str, Callable[[], Any]], repeats: int, tokens: int
) -> dict[str, float]:
    """Median CPU time of each function, divided by a number of tokens."""
    seconds = alternating(calls, repeats, time.process_time)
    return {name: taken / tokens * 1e6 for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", help="a model as cfg_lab.load_model takes it")
    parser.add_argument("--repeats", type=int, default=5, help="timed runs of each contender (default 5)")
    parser.add_argument("--json", type=Path, help="write the numbers to this file")
    arguments = parser.parse_args()
    numbers = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "choice": {kind: choices(spread, 4 * arguments.repeats) for kind, spread in SPREADS.items()},
        "decoding": whole_decoding(arguments.model, arguments.repeats),
    }
    if arguments.json:
        arguments.json.write_text(json.dumps(numbers, indent=1) + "\n")
    _print(numbers, arguments.model)


def _print(numbers: dict[str, Any], model: str) -> None:
    """Print one table of the choice alone and one of whole decoding."""
    console = Console()
    console.print(f"{numbers['processor']}, threads: {numbers['threads']}")
    choice = numbers["choice"]
    title = f"choice of a token among {VOCABULARY:,}, microseconds"
    table = Table("sampling", *choice, title=title, title_justify="left")
    table.add_row("entropy, nats", *(f"{of['entropy_nats']:.1f}" for of in choice.values()))
    for setting in next(iter(choice.values()))["microseconds_per_token"]:
        times = (of["microseconds_per_token"][setting] for of in choice.values())
        table.add_row(setting, *(f"{time:,.0f}" for time in times))
    console.print(table)
    decoding = numbers["decoding"]
    title = f"{TEXTS} guided texts of {model}, top-p 0.95"
    table = Table("sampling", "microseconds per token", "by greedy", title=title, title_justify="left")
    for setting, time_per_token in decoding["microseconds_per_token"].items():
        table.add_row(setting, f"{time_per_token:,.0f}", f"{decoding['by_greedy'][setting]:.2f}")
    console.print(table)
    console.print(
        "mean entropy of the guided distribution before the temperature, nats:", decoding["entropy_nats"]
    )
    equal = decoding["equal_tokens"] and all(of["equal_tokens"] for of in choice.values())
    console.print(f"the peer's tokens are the same: {equal}")


if __name__ == "__main__":
    main()

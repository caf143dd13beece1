"""The speed of guided decoding, compared with transformers and with the limits of the machine.

    python -m benchmarks.decode [--repeats 3] [--json benchmarks/results.json] [--only single,grid,…]

Every number is a median of repeats. The repeats of lab and transformers alternate, so that other work on the
machine slows down both. Compare the ratios, not the seconds, and run it on a quiet machine.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
import yaml
from rich.console import Console
from rich.table import Table

import cfg_lab
from benchmarks.machine import processor
from benchmarks.timing import alternating
from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request
from cfg_lab.decoding.batch import Batch
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.prefix import EncoderMemory
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.negatives import PhraseNegative
from cfg_lab.options import CONFIG
from cfg_lab.prompts import inline

NEW_TOKENS = 48
SCALES = [1.1, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0]
Numbers = dict[str, Any]


def limits() -> Numbers:
    """The machine's speed of reading memory (GB/s) and of a matrix product (GFLOP/s)."""
    numbers, matrix = torch.ones(100_000_000), torch.ones(2048, 2048)
    taken = alternating({"read": numbers.sum, "gemm": lambda: matrix @ matrix}, 7)
    return {"read_gb_s": 0.4 / taken["read"], "gemm_gflop_s": 2 * 2.048**3 / taken["gemm"]}


class Contenders:
    """SmolLM2 twice: as transformers runs it, and as the lab runs it."""

    def __init__(self) -> None:
        self.lab = cfg_lab.load_model("smollm2")
        self.plain = self.lab.source.load().eval()
        self.lab.module  # noqa: B018, loads it
        prompts = inline(yaml.safe_load((CONFIG / "prompts/openers.yaml").read_text())["prompts"], limit=8)
        self.prompts = [self.lab.encode(prompt.text) for prompt in prompts]
        self.negatives = [PhraseNegative().branches(prompt, self.lab)[0].ids for prompt in prompts]

    def request(self, prompt: int, scale: float, **changes: Any) -> Request:
        """A request of the prompt with this number."""
        values: Numbers = {"max_new_tokens": NEW_TOKENS, **changes}
        return Request(
            positive=self.prompts[prompt],
            negatives=(Branch(self.negatives[prompt]),),
            guidance=ClassifierFreeGuidance(scale=scale),
            **values,
        )

    def by_lab(self, requests: list[Request]) -> list[list[int]]:
        """The new tokens of each request, decoded by the lab in one batch."""
        tokens = {id(c.request): list(c.tokens) for c in Decoder(self.lab).decode(requests)}
        return [tokens[id(request)] for request in requests]

    def by_transformers(self, prompts: list[int], scale: float) -> list[list[int]]:
        """The new tokens of each prompt, decoded by `generate` of transformers in one left-padded batch.

        The negatives are a second left-padded batch.
        """
        ids, mask = _left_padded([self.prompts[p] for p in prompts])
        negative_ids, negative_mask = _left_padded([self.negatives[p] for p in prompts])
        guided: Numbers = (
            {}
            if scale == 1
            else {
                "guidance_scale": scale,
                "negative_prompt_ids": negative_ids,
                "negative_prompt_attention_mask": negative_mask,
            }
        )
        out = self.plain.generate(
            ids,
            attention_mask=mask,
            max_new_tokens=NEW_TOKENS,
            do_sample=False,
            eos_token_id=None,
            pad_token_id=2,
            **guided,
        )
        return out[:, ids.shape[1] :].tolist()


def single(both: Contenders, repeats: int) -> Numbers:
    """A single prompt, guidance off and on: tokens per second."""
    lab = {scale: (lambda scale=scale: both.by_lab([both.request(0, scale)])) for scale in (1, 1.5)}
    plain = {scale: (lambda scale=scale: both.by_transformers([0], scale)) for scale in (1, 1.5)}
    taken = alternating(
        {
            "transformers_off": plain[1],
            "lab_off": lab[1],
            "transformers_guided": plain[1.5],
            "lab_guided": lab[1.5],
        },
        repeats,
    )
    return {
        **{f"{name}_tokens_s": NEW_TOKENS / seconds for name, seconds in taken.items()},
        "guided_speedup": taken["transformers_guided"] / taken["lab_guided"],
        "off_speedup": taken["transformers_off"] / taken["lab_off"],
        "cost_of_guidance": taken["lab_guided"] / taken["lab_off"],
        "tokens_equal": lab[1.5]() == plain[1.5](),
    }


def grid(both: Contenders, repeats: int) -> Numbers:
    """8 prompts × 8 scales: the lab in one batch of 128 rows, transformers in one batch per scale."""
    requests = [both.request(prompt, scale) for scale in SCALES for prompt in range(8)]
    texts: dict[str, list[list[int]]] = {}

    def lab() -> None:
        texts["lab"] = both.by_lab(requests)

    def plain() -> None:
        texts["transformers"] = [
            tokens for scale in SCALES for tokens in both.by_transformers(list(range(8)), scale)
        ]

    taken = alternating({"transformers": plain, "lab": lab}, max(1, repeats - 1))
    total = len(requests) * NEW_TOKENS
    return {
        "transformers_tokens_s": total / taken["transformers"],
        "lab_tokens_s": total / taken["lab"],
        "speedup": taken["transformers"] / taken["lab"],
        "texts_equal": sum(a == b for a, b in zip(texts["lab"], texts["transformers"], strict=True)),
        "texts": len(requests),
    }


def step(both: Contenders, repeats: int) -> Numbers:
    """One step of 128 rows with guidance, sampling and trace, compared with its matrix products alone."""
    batch = _full_batch(both, random.Random(1).choices(SCALES, k=64), 40 * (repeats + 2))
    stages: dict[str, list[float]] = {"forward": [], "guide and sample": [], "record, release and part": []}
    gemm: list[float] = []
    matrix = torch.ones(2048, 2048)
    with torch.inference_mode():
        batch.admit()
        for number in range(20 * (repeats + 1)):
            moments = [time.perf_counter()]
            logits = batch.forward()
            moments.append(time.perf_counter())
            chosen = batch.guide_and_sample(logits)
            moments.append(time.perf_counter())
            batch.record(chosen)
            batch.release()
            batch.fork()
            moments.append(time.perf_counter())
            _ = matrix @ matrix
            gemm.append(time.perf_counter() - moments[-1])
            if number >= 10:
                for stage, started, ended in zip(stages, moments, moments[1:], strict=False):
                    stages[stage].append(ended - started)
    flop = 2 * 128 * both.lab.parameters
    gflop_s = 2 * 2.048**3 / statistics.median(gemm)
    ms = {f"{stage}_ms": 1e3 * statistics.median(times) for stage, times in stages.items()}
    return {
        **ms,
        "step_ms": sum(ms.values()),
        "gemm_gflop_s": gflop_s,
        "limit_ms": flop / gflop_s / 1e6,
        "share_of_limit": flop / gflop_s / 1e6 / sum(ms.values()),
    }


def _full_batch(both: Contenders, scales: list[float], new_tokens: int) -> Batch:
    """A batch of one guided text for each scale. All contexts differ, so no two branches share a row."""
    generator = random.Random(0)
    requests = [
        Request(
            positive=tuple(generator.choices(range(both.lab.vocab_size), k=36)),
            negatives=(Branch(tuple(generator.choices(range(both.lab.vocab_size), k=44))),),
            guidance=ClassifierFreeGuidance(scale=scale),
            max_new_tokens=new_tokens,
        )
        for scale in scales
    ]
    return Batch({None: both.lab}, 2 * len(scales), [RequestState(request) for request in requests])


def mixed(both: Contenders, repeats: int) -> Numbers:
    """How full the batch is: 400 guided requests, contexts of 5 to 400 tokens, texts of 5 to 128 tokens.

    Texts end at max_new_tokens (`known`), or by a stop that the decoder cannot foresee (`surprise`).
    """
    numbers: Numbers = {}
    for name in ("known", "surprise"):
        requests = _mixed_requests(both.lab.vocab_size, name == "known")
        live: list[int] = []
        counted = Counted(both.lab, live)
        started = time.perf_counter()
        tokens = sum(len(completion.tokens) for completion in Decoder(counted, 128).decode(requests))
        numbers |= {
            f"{name}_rows_live": sum(live) / len(live) / 128,
            f"{name}_tokens_s": tokens / (time.perf_counter() - started),
        }
    return numbers


def _mixed_requests(vocab: int, known: bool) -> list[Request]:
    generator = random.Random(0)
    requests: list[Request] = []
    for number in range(400):
        length = generator.randint(5, 128)
        requests.append(
            Request(
                positive=tuple(generator.choices(range(vocab), k=generator.randint(5, 400))),
                negatives=(Branch(tuple(generator.choices(range(vocab), k=generator.randint(5, 400)))),),
                guidance=ClassifierFreeGuidance(scale=1.5),
                max_new_tokens=length if known else 128,
                stop_when=lambda tokens, length=length: len(tokens) >= length,
                sample=number,
            )
        )
    return requests


class Counted:
    """A model that appends the number of rows of each decoding step to a list."""

    def __init__(self, model: Any, live: list[int]) -> None:
        self.model, self.live = model, live
        self.name, self.device = model.name, model.device
        self.context_length, self.vocab_size = model.context_length, model.vocab_size
        self.context_limit, self.recurrent = model.context_limit, model.recurrent
        self.start, self.read, self.static_length = model.start, model.read, 0

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        columns: KVBuffer,
        keep: int = 1,
    ) -> torch.Tensor:
        if mask is not None:
            self.live.append(len(ids))
        return self.model.forward(ids, positions, mask, columns, keep)


class Free:
    """A model whose forward takes almost no time, so that the decoder's own work remains."""

    name, device, context_length, vocab_size = "free", torch.device("cpu"), 10_000, 64
    context_limit, recurrent, static_length = "", False, 0
    start = ()

    def read(self, sources: list[tuple[int, ...]]) -> list[EncoderMemory]:
        return []

    def forward(
        self,
        ids: torch.Tensor,
        positions: torch.Tensor,
        mask: torch.Tensor | None,
        columns: KVBuffer,
        keep: int = 1,
    ) -> torch.Tensor:
        nothing = torch.zeros(len(ids), 1, ids.shape[1], 1)
        columns.write(0, nothing, nothing)
        return (ids[:, -1:, None] * 31 + torch.arange(64)).remainder(61).float().expand(-1, keep, -1)


def overhead(both: Contenders, repeats: int) -> Numbers:
    """The decoder's own microseconds per token, for 100, 1,000 and 10,000 requests to a trivial model."""
    numbers: Numbers = {}
    for count in (100, 1000, 10_000):
        generator = random.Random(0)
        requests = [
            Request(
                positive=tuple(generator.choices(range(64), k=generator.randint(2, 30))),
                negatives=(Branch((1, 2)),),
                guidance=ClassifierFreeGuidance(scale=generator.choice(SCALES)),
                max_new_tokens=generator.randint(5, 40),
            )
            for _ in range(count)
        ]
        started = time.perf_counter()
        tokens = sum(len(completion.tokens) for completion in Decoder(Free()).decode(requests))
        numbers[f"{count}_requests_us_token"] = 1e6 * (time.perf_counter() - started) / tokens
    return numbers


def memory(both: Contenders, repeats: int) -> Numbers:
    """Peak memory of the grid, compared with the size of the weights and of all keys and values.

    It is measured in a new process.
    """
    code = "from benchmarks.decode import _memory; _memory()"
    process = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return json.loads(process.stdout)


def _memory() -> None:
    def status(key: str) -> int:
        """Bytes of resident memory of this process; getrusage would include its parent's peak."""
        lines = Path("/proc/self/status").read_text().splitlines()
        (line,) = (line for line in lines if line.startswith(key))
        return 1024 * int(line.split()[1])

    model = cfg_lab.load_model("smollm2")
    before = status("VmRSS")  # Python, the libraries and the tokenizer
    model.module  # noqa: B018
    loading = status("VmHWM") - before
    Path("/proc/self/clear_refs").write_text("5")  # resets the peak
    config = model.config
    prompts = inline(yaml.safe_load((CONFIG / "prompts/openers.yaml").read_text())["prompts"], limit=8)
    requests = [
        Request(
            positive=model.encode(prompt.text),
            negatives=PhraseNegative().branches(prompt, model),
            guidance=ClassifierFreeGuidance(scale=scale),
            max_new_tokens=NEW_TOKENS,
        )
        for scale in SCALES
        for prompt in prompts
    ]
    tokens = sum(len(ids) + NEW_TOKENS for r in requests for ids in [r.positive, r.negatives[0].ids])
    kv = 2 * 4 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim * tokens
    weights = 4 * model.parameters
    for _ in Decoder(model).decode(requests):
        pass
    used = status("VmHWM") - before
    json.dump(
        {
            "weights_mb": weights / 1e6,
            "kv_mb": kv / 1e6,
            "peak_loading_mb": loading / 1e6,
            "peak_mb": used / 1e6,
            "share": used / (weights + kv),
        },
        sys.stdout,
    )


def start(both: Contenders, repeats: int) -> Numbers:
    """Seconds to print `--help`, to start decoding with a warm cache, and to expand a grid of 500 cells."""
    sweep = [sys.executable, "-m", "cfg_lab.sweep"]
    scales = "guidance.scale=" + ",".join(str(1 + k / 100) for k in range(250))
    with tempfile.TemporaryDirectory() as folder:

        def first_progress() -> None:
            process = subprocess.Popen(
                [*sweep, f"results_root={folder}", f"name=n{time.monotonic_ns()}", "tracking=none"],
                stdout=subprocess.PIPE,
                text=True,
            )
            assert process.stdout is not None
            for line in process.stdout:
                if line.startswith("decoding"):
                    break
            process.kill()

        def refused(*grid: str) -> None:
            """Run a sweep that ends with an error after all its cells have been made."""
            subprocess.run([*sweep, *grid, "max_rows=0"], capture_output=True, check=False)

        taken = alternating(
            {
                "help": lambda: subprocess.run([*sweep, "--help"], capture_output=True, check=True),
                "first progress": first_progress,
                "1 cell": lambda: refused("guidance.scale=1"),
                "500 cells": lambda: refused(scales, "negatives=empty,own"),
            },
            repeats,
        )
    expansion = {"expand 500 cells": taken["500 cells"] - taken["1 cell"]}
    return {f"{name.replace(' ', '_')}_s": seconds for name, seconds in (taken | expansion).items()}


def _left_padded(contexts: list[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Token ids and attention mask [contexts, width] of contexts padded at the left with token 2."""
    width = max(map(len, contexts))
    ids = torch.tensor([[*[2] * (width - len(context)), *context] for context in contexts])
    mask = torch.tensor([[*[0] * (width - len(context)), *[1] * len(context)] for context in contexts])
    return ids, mask


def scales(both: Contenders, repeats: int) -> Numbers:
    """One step of 64 guided texts: 64 scales against one scale, in alternation."""
    grids = {"one_scale": [1.5] * 64, "64_scales": [1 + number / 40 for number in range(1, 65)]}
    batches = {name: _full_batch(both, values, 40 * (repeats + 2)) for name, values in grids.items()}
    taken: dict[str, list[float]] = {name: [] for name in grids}
    with torch.inference_mode():
        for number in range(8 * (repeats + 1)):
            for name, batch in batches.items():
                started = time.perf_counter()
                batch.step()
                if number >= 3:
                    taken[name].append(time.perf_counter() - started)
    ms = {f"{name}_step_ms": 1e3 * statistics.median(times) for name, times in taken.items()}
    return {**ms, "64_scales_by_one": ms["64_scales_step_ms"] / ms["one_scale_step_ms"]}


PARTS = {
    "single": single,
    "grid": grid,
    "step": step,
    "scales": scales,
    "mixed": mixed,
    "overhead": overhead,
    "memory": memory,
    "start": start,
}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--repeats", type=int, default=3, help="timed runs of each measurement (default 3)")
    parser.add_argument("--json", type=Path, help="write all numbers here")
    parser.add_argument("--only", default=",".join(PARTS), help=f"parts to run (default {','.join(PARTS)})")
    arguments = parser.parse_args()
    console = Console()
    results: Numbers = {
        "machine": {
            "processor": processor(),
            "threads": torch.get_num_threads(),
            "torch": torch.__version__,
            "transformers": transformers.__version__,
        },
        "limits": limits(),
    }
    both = Contenders()
    results["machine"]["kernels"] = both.lab.kernels
    console.print(f"{results['machine']['processor']}. Kernels for few rows: {both.lab.kernels}.")
    for name in arguments.only.split(","):
        with console.status(f"{name}: {PARTS[name].__doc__}"):
            results[name] = PARTS[name](both, arguments.repeats)
        _show(console, name, results[name])
        if arguments.json:
            arguments.json.write_text(json.dumps(results, indent=1) + "\n")
    _show(console, "limits", results["limits"])


def _show(console: Console, name: str, numbers: Numbers) -> None:
    table = Table(
        title=f"{name}: {PARTS[name].__doc__ if name in PARTS else limits.__doc__}", title_justify="left"
    )
    table.add_column("number")
    table.add_column("value", justify="right")
    for key, value in numbers.items():
        table.add_row(key.replace("_", " "), f"{value:.3g}" if isinstance(value, float) else str(value))
    console.print(table)


if __name__ == "__main__":
    main()

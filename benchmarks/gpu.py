"""Guided decoding on a GPU: laws, speed against transformers, the limits of the device, and the goals.

    python -m benchmarks.gpu --json out.json [--device cuda|cpu] [--size full|tiny]
                             [--only limits,laws,speed,profile] [--models 135M,1.7B,8B] [--seconds 420]

It needs one CUDA device with about 40 GB of memory, no network, and of Python packages torch, transformers,
accelerate, safetensors, numpy, xxhash, filelock and pyyaml. The models have random weights and the shapes of
SmolLM2 135M and 1.7B and of Llama 3.1 8B. On a CPU, `--device cpu --size tiny` tries the script in seconds;
its numbers mean nothing.

The JSON is written after each measurement. So a run that is cut off leaves what was measured before. The exit
status is 1 if a law does not hold or a part has failed.
"""

from __future__ import annotations

import argparse
import os
import platform
import subprocess
import sys
import threading
import time
import traceback
import warnings
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, cast

import torch
import transformers

from benchmarks.gpu_laws import check_laws, rounding_in_bfloat16
from benchmarks.gpu_limits import Limits, calls_per_step, measure_limits
from benchmarks.gpu_models import (
    SCALES,
    SIZES,
    Size,
    build,
    contexts,
    free_memory,
    guided_requests,
    wrap,
)
from benchmarks.gpu_report import GRID, Numbers, Report, failures, table
from benchmarks.gpu_speed import measure_speed
from benchmarks.machine import processor
from cfg_lab.decoding.static_check import has_static_steps
from cfg_lab.models import LanguageModel

PARTS = ("limits", "laws", "speed", "profile")
_GRACE = 45
"""Seconds after the end of its time at which a run is stopped, whatever it does."""


def machine(device: torch.device) -> Numbers:
    """What the numbers were measured on."""
    values: Numbers = {
        "processor": processor(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "device": str(device),
    }
    if device.type == "cuda":
        card = cast("Any", torch.cuda).get_device_properties(device)
        values |= {
            "card": card.name,
            "memory_gb": card.total_memory / 1e9,
            "cuda": torch.version.cuda,
            "driver": _driver(),
        }
    return values


def _driver() -> str | None:
    """Version of the CUDA driver; None if `nvidia-smi` does not tell it."""
    command = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        output = subprocess.run(command, capture_output=True, text=True, check=True, timeout=20).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    return output.splitlines()[0].strip() if output.strip() else None


@contextmanager
def part_of(report: Report, name: str, device: torch.device) -> Generator[None]:
    """Time a part of the run. Its error is written to the report, and the next part goes on."""
    begin = time.monotonic()
    try:
        yield
    except Exception as error:  # whatever a part does wrong
        report.values["errors"][name] = f"{type(error).__name__}: {error}"
        traceback.print_exception(error)
        error.__traceback__ = None  # it refers to tensors
    free_memory(device)
    report.values["seconds"][name] = time.monotonic() - begin
    report.save()


def measure_models(report: Report, size: Size, device: torch.device, arguments: argparse.Namespace) -> None:
    """Measure each model. The time that is left is divided evenly."""
    names = [name for name in size.models if name in arguments.models]
    for number, name in enumerate(names):
        left = arguments.deadline - time.monotonic()
        if left <= 0:
            report.values["errors"][name] = "not run: the time was up"
            continue
        deadline = time.monotonic() + left / (len(names) - number)
        with part_of(report, name, device):
            measure_model(report, size, name, device, arguments.only, deadline)


def measure_model(
    report: Report, size: Size, name: str, device: torch.device, parts: list[str], deadline: float
) -> None:
    """Measure what the steps of a model ask of the host, and its speed."""

    def save(numbers: Numbers) -> None:
        report.values["speed"][name] = numbers
        report.save()

    model = wrap(build(size.models[name], device, torch.bfloat16))
    report.values["static_steps"][name] = has_static_steps(model)
    # The profile comes first: it is short, and its texts warm the device up.
    if "profile" in parts:
        with part_of(report, f"{name} profile", device):
            report.values["profile"][name] = profile_model(model, size)
    if "speed" in parts:
        with part_of(report, f"{name} speed", device):
            measure_speed(model, size, Limits(**report.values["limits"]), deadline, save)


def profile_model(model: LanguageModel, size: Size) -> Numbers:
    """What a step of one guided stream, and of the grid, asks of the host; see `calls_per_step`."""
    new_tokens = size.profiled_steps + 8
    positives, negatives = (contexts(8, size.context, model.vocab_size, seed) for seed in (21, 22))
    one = guided_requests(positives[:1], negatives[:1], [1.5], new_tokens)
    grid = guided_requests(positives, negatives, SCALES, new_tokens)
    return {
        name: calls_per_step(model, requests, rows, size.profiled_steps)
        for name, requests, rows in (("one stream", one, 2), (GRID, grid, 128))
    }


def _stop(report: Report) -> None:
    """End a run that has taken much longer than its time."""
    try:
        report.values["errors"]["run"] = "stopped: the time was up"
        report.save()
        print(table(report.values), flush=True)
    finally:  # the other thread may have changed the values meanwhile
        os._exit(1)


def main() -> None:
    """Run the parts, print the table and write the JSON."""
    started = time.monotonic()
    parser = argparse.ArgumentParser(prog="benchmarks.gpu")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--size", choices=SIZES, default="full")
    parser.add_argument("--only", default=",".join(PARTS), type=lambda text: text.split(","))
    parser.add_argument("--models", default=None, type=lambda text: text.split(","))
    parser.add_argument("--seconds", type=float, default=420, help="time of the whole run")
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    arguments.models = list(size.models) if arguments.models is None else arguments.models
    if unknown := [*{*arguments.only} - {*PARTS}, *{*arguments.models} - {*size.models}]:
        parser.error(
            f"unknown: {', '.join(unknown)}; parts: {', '.join(PARTS)}; models: {', '.join(size.models)}"
        )
    if arguments.device.startswith("cuda") and not torch.cuda.is_available():
        parser.error("this machine has no CUDA device; --device cpu --size tiny tries the script")
    arguments.deadline = started + arguments.seconds
    device = torch.empty(0, device=arguments.device).device
    warnings.simplefilter("once")
    transformers.utils.logging.disable_progress_bar()
    report = Report(
        arguments.json,
        {
            "machine": machine(device),
            "size": arguments.size,
            "static_steps": {},
            "limits": {},
            "laws": {},
            "bfloat16": {},
            "speed": {},
            "profile": {},
            "errors": {},
            "seconds": {},
        },
    )
    watchdog = threading.Timer(arguments.seconds + _GRACE, _stop, [report])
    watchdog.daemon = True
    watchdog.start()
    needed = {*arguments.only}
    needed |= {"bfloat16"} if "laws" in needed else set()
    needed |= {"limits"} if "speed" in needed else set()
    for part, run in (
        ("limits", lambda: asdict(measure_limits(size, device))),
        ("laws", lambda: check_laws(size, device)),
        ("bfloat16", lambda: rounding_in_bfloat16(size, device)),
    ):
        if part in needed:
            with part_of(report, part, device):
                report.values[part] = run()
    if {"speed", "profile"} & {*arguments.only}:
        measure_models(report, size, device, arguments)
    report.values["seconds"]["run"] = time.monotonic() - started
    report.save()
    watchdog.cancel()
    print(table(report.values))
    sys.exit(1 if failures(report.values) else 0)


if __name__ == "__main__":
    main()

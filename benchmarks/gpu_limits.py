"""The limits of a device, the share of them that a decoding step reaches, and the calls of a step."""

from __future__ import annotations

import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from benchmarks.gpu_models import Size, decode, make_decoder
from cfg_lab.decoding.request import Request
from cfg_lab.models import LanguageModel

_RUNS = 12
"""Number of copies, and of matrix products, of which the median is taken, without the first two."""

_LAUNCHES = ("cudaLaunchKernel", "cudaLaunchKernelExC", "cuLaunchKernel", "cuLaunchKernelEx")
_GRAPH_LAUNCHES = ("cudaGraphLaunch",)
_COPIES_WITHOUT_WAITING = ("cudaMemcpyAsync",)
_SYNCHRONISATIONS = (
    "cudaStreamSynchronize",
    "cudaEventSynchronize",
    "cudaDeviceSynchronize",
    "cudaMemcpy",  # waits for the GPU, as cudaMemcpyAsync does not
)

_STEPS_BEFORE = 4
"""Number of the first steps of a text that are not counted: they follow the prefill and capture graphs."""


def synchronise(device: torch.device) -> None:
    """Wait until the device has done all its work."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def seconds_of(run: Callable[[], Any], device: torch.device) -> float:
    """Seconds until the device has done the work of a function."""
    synchronise(device)
    started = time.perf_counter()
    run()
    synchronise(device)
    return time.perf_counter() - started


@dataclass(frozen=True, kw_only=True)
class Limits:
    """What the device reaches without a model.

    Attributes:
        copy_bytes_s: bytes per second of a large copy, read and written bytes counted.
        gemm_flop_s: floating point operations per second of a large bfloat16 matrix product.
    """

    copy_bytes_s: float
    gemm_flop_s: float


def measure_limits(size: Size, device: torch.device) -> Limits:
    """Measure the speed of a copy and of a matrix product. Random numbers, because zeros can be faster."""
    source = torch.randint(256, (size.copied_bytes,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    copy = [seconds_of(partial(target.copy_, source), device) for _ in range(_RUNS)]
    del source, target
    a, b = torch.randn(2, size.matrix, size.matrix, device=device).bfloat16()
    gemm = [seconds_of(partial(torch.mm, a, b), device) for _ in range(_RUNS)]
    return Limits(
        copy_bytes_s=2 * size.copied_bytes / statistics.median(copy[2:]),
        gemm_flop_s=2 * size.matrix**3 / statistics.median(gemm[2:]),
    )


def share_of_limit(
    module: Any, limits: Limits, rows: float, columns: float, seconds: float
) -> dict[str, float]:
    """How near a decoding step is to the limits of the device.

    Args:
        rows: number of rows of the step.
        columns: mean number of tokens that a row attends to.
        seconds: seconds of the step.

    Returns:
        bytes: bytes that the step must read, weights and KV; flop: the operations of its matrix products and
        of its attention. share_of_bandwidth, share_of_flop: the seconds that these take at the limit, as a
        share of the seconds of the step. share_of_limit: the larger one.
    """
    config = module.config
    parameters = sum(parameter.numel() for parameter in module.parameters())
    if not config.tie_word_embeddings:  # of input embeddings only the rows of the tokens are read
        parameters -= module.get_input_embeddings().weight.numel()
    kv_numbers = 2 * config.num_hidden_layers * config.num_key_value_heads * config.head_dim
    read = (parameters + rows * columns * kv_numbers) * module.dtype.itemsize
    attention = 4 * config.num_hidden_layers * config.num_attention_heads * config.head_dim
    flop = rows * (2 * parameters + columns * attention)
    of_bandwidth, of_flop = (
        read / limits.copy_bytes_s / seconds,
        flop / limits.gemm_flop_s / seconds,
    )
    return {
        "bytes": read,
        "flop": flop,
        "share_of_bandwidth": of_bandwidth,
        "share_of_flop": of_flop,
        "share_of_limit": max(of_bandwidth, of_flop),
    }


def calls_per_step(
    model: LanguageModel, requests: Sequence[Request], max_rows: int, steps: int
) -> dict[str, float]:
    """What one decoding step asks of the host, as a mean over `steps` steps that follow each other.

    The texts are decoded once before that, so that libraries are loaded.

    Returns:
        operations: operations of torch, those inside of others included. On CUDA also kernel_launches and
        graph_launches; copies: those that do not wait; host_synchronisations: calls that wait for the GPU.
    """
    decoder = make_decoder(model, max_rows)
    decode(decoder, requests)
    profiler = _profiler(model.device)
    done = 0

    def on_step(new_tokens: int) -> None:
        nonlocal done
        done += 1
        if done == _STEPS_BEFORE:
            synchronise(model.device)
            profiler.start()
        if done == _STEPS_BEFORE + steps:
            profiler.stop()

    for _ in decoder.decode(requests, on_step):
        pass
    counts = _counts(profiler)
    with _profiler(model.device) as empty:  # the profiler waits for the GPU, too
        pass
    counts.subtract(_counts(empty))
    calls = {"operations": sum(count for name, count in counts.items() if name.startswith("aten::")) / steps}
    if model.device.type == "cuda":
        names = {
            "kernel_launches": _LAUNCHES,
            "graph_launches": _GRAPH_LAUNCHES,
            "copies": _COPIES_WITHOUT_WAITING,
            "host_synchronisations": _SYNCHRONISATIONS,
        }
        calls |= {
            call: max(0, sum(counts[name] for name in of_call)) / steps for call, of_call in names.items()
        }
    return calls


def _profiler(device: torch.device) -> profile:
    on_gpu = [ProfilerActivity.CUDA] if device.type == "cuda" else []
    return profile(activities=[ProfilerActivity.CPU, *on_gpu])


def _counts(profiler: profile) -> Counter[str]:
    events: Any = profiler.key_averages()
    return Counter({event.key: event.count for event in events})

"""Runs the functions of a decoding step: on CUDA as CUDA graphs, on other devices directly.

A CUDA graph is a recorded sequence of operations on the GPU. Replaying it costs one call, while the same
operations started from Python cost some microseconds each. A small model has more than a thousand of them in
a step, so without graphs the GPU mostly waits for Python.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from contextlib import suppress
from functools import lru_cache
from typing import Any, cast

import torch
from torch import Tensor

Operations = Callable[[], None]
"""A function without result: it reads and writes tensors that stay at their addresses."""


class StepGraphs:
    """Runs functions again and again. On CUDA each is recorded, and then replayed.

    Once a function cannot be recorded, all functions run directly.

    Args:
        device: the device of the tensors.
        direct_runs: number of runs of each function before it is recorded. Recording costs as much as many
            runs, and some shapes occur only once or twice.

    Attributes:
        captures: number of recorded functions.
        failure: why a function could not be recorded; empty if none has failed.
    """

    def __init__(self, device: torch.device, direct_runs: int = 2) -> None:
        self.device, self.direct_runs = device, direct_runs
        self.captures = 0
        self.failure = ""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
        self._runs: Counter[Hashable] = Counter()
        self._records = device.type == "cuda"
        # All graphs use the same memory: at the end of a graph none of its temporary tensors is needed.
        self._pool = torch.cuda.graph_pool_handle() if device.type == "cuda" else None

    def run(self, key: Hashable, operations: Operations, changed: Sequence[Tensor]) -> None:
        """Run a function.

        Args:
            key: names the function, its shapes, and everything of Python that it depends on.
            operations: the function. It must not depend on values on the GPU in Python.
            changed: the tensors that the function reads and then changes. A function runs once before it is
                recorded, and these tensors get their old values back.
        """
        self._runs[key] += 1
        if self._records and key not in self._graphs and self._runs[key] > self.direct_runs:
            try:
                self._graphs[key] = self._capture(operations, changed)
            except RuntimeError as error:
                if is_out_of_memory(error):
                    raise
                self._records = False
                # The end of a recording that was broken off is an error that says less than its cause.
                self.failure = str(error.__context__ or error).partition("\n")[0]
        if self._records and key in self._graphs:
            self._graphs[key].replay()
        else:
            operations()

    def _capture(self, operations: Operations, changed: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        """Record a function. The tensors that it changes have their old values afterwards.

        `torch.cuda.graph` is not used: after a failure it leaves its stream and its memory pool in use, and
        its stream belongs to the first GPU of the process.
        """
        before = [tensor.clone() for tensor in changed]
        current, side = torch.cuda.current_stream(self.device), _capture_stream(self.device)
        graph = torch.cuda.CUDAGraph()
        with _CAPTURING, torch.cuda.device(self.device):
            side.wait_stream(current)
            try:
                with torch.cuda.stream(side):
                    # On the stream of the recording, so that libraries allocate their workspaces before it.
                    operations()
            finally:
                current.wait_stream(side)
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)
            side.wait_stream(current)
            torch.cuda.synchronize(self.device)
            with torch.cuda.stream(side):
                # Other threads of the program may use the GPU meanwhile.
                graph.capture_begin(pool=self._pool, capture_error_mode="thread_local")
                try:
                    operations()
                finally:
                    self._end_capture(graph)
            current.wait_stream(side)
        self.captures += 1
        return graph

    def _end_capture(self, graph: torch.cuda.CUDAGraph) -> None:
        try:
            graph.capture_end()
        except RuntimeError:
            # torch would go on allocating in the pool of the recording that was broken off.
            with suppress(Exception):
                library = cast("Any", torch)._C
                library._cuda_endAllocateToPool(self.device.index or 0, self._pool)
                library._cuda_releasePool(self.device.index or 0, self._pool)
            raise


_CAPTURING = threading.Lock()


@lru_cache
def _capture_stream(device: torch.device) -> torch.cuda.Stream:
    """The stream of all recordings on a GPU. Every stream has workspaces of its own, so there is only one."""
    return torch.cuda.Stream(device)


def is_out_of_memory(error: RuntimeError) -> bool:
    """Whether an error means that memory ran out.

    Only a part of torch raises an OutOfMemoryError. On the CPU, in CUDA graphs and in cuBLAS the message of
    another error says it.
    """
    messages = ("allocate memory", "out of memory", "ALLOC_FAILED")
    return isinstance(error, torch.OutOfMemoryError) or any(part in str(error) for part in messages)

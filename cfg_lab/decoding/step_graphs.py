"""Runs the functions of a decoding step: on CUDA as CUDA graphs, on other devices directly.

A CUDA graph is a recorded sequence of operations on the GPU. Replaying it costs one call, while the same
operations started from Python cost some microseconds each. A small model has more than a thousand of them in
a step, so without graphs the GPU mostly waits for Python.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Sequence

import torch
from torch import Tensor

Operations = Callable[[], None]
"""A function without result: it reads and writes tensors that stay at their addresses."""


class StepGraphs:
    """Runs functions again and again. On CUDA each is recorded once, and then replayed.

    Once a function cannot be recorded, all functions run directly.

    Args:
        device: the device of the tensors.

    Attributes:
        captures: number of recorded functions.
        failure: why a function could not be recorded; empty if none has failed.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.captures = 0
        self.failure = ""
        self._graphs: dict[Hashable, torch.cuda.CUDAGraph] = {}
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
        if self._records and key not in self._graphs:
            try:
                self._graphs[key] = self._capture(operations, changed)
            except torch.OutOfMemoryError:
                raise
            except RuntimeError as error:
                self._records = False
                self.failure = str(error).partition("\n")[0]
        if self._records:
            self._graphs[key].replay()
        else:
            operations()

    def _capture(self, operations: Operations, changed: Sequence[Tensor]) -> torch.cuda.CUDAGraph:
        """Record a function. The tensors that it changes have their old values afterwards."""
        before = [tensor.clone() for tensor in changed]
        # Libraries allocate their workspaces in the first run, which must not be recorded.
        current, side = torch.cuda.current_stream(self.device), torch.cuda.Stream(self.device)
        side.wait_stream(current)
        with torch.cuda.stream(side):
            operations()
        current.wait_stream(side)
        for tensor, value in zip(changed, before, strict=True):
            tensor.copy_(value)
        graph = torch.cuda.CUDAGraph()
        with (
            torch.cuda.device(self.device),
            torch.cuda.graph(
                graph,
                pool=self._pool,
                capture_error_mode="thread_local",  # other threads of the program may use the GPU meanwhile
            ),
        ):
            operations()
        self.captures += 1
        return graph

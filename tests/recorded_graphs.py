"""A CUDA graph on the CPU, for the tests: operations are recorded once, and then repeated.

As in a CUDA graph, what Python decides while a function is recorded stays as it is. Whatever would make the
host wait for a GPU while it records is an error.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map

from cfg_lab.decoding.step_graphs import StepGraphs

_HOST_OPERATIONS = {
    "aten.lift_fresh",  # torch.tensor(numbers): a copy from the host
    "aten.item",  # also int(tensor), float(tensor)
    "aten._local_scalar_dense",
    "aten.is_nonzero",  # bool(tensor)
    "aten.resolve_neg",  # .tolist(), .numpy()
    "aten.nonzero",
    "aten.masked_select",
    "aten._unique2",
    "aten.equal",
}


class HostNeededError(RuntimeError):
    """An operation would make the host wait for the GPU, or copy from the host."""


class _Recorder(TorchDispatchMode):
    """Records every operation with its arguments and results."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[Callable[..., Any], Any, Any, Any]] = []

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Sequence[Any] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = str(func).rpartition(".")[0]
        indices = args[1] if name in ("aten.index", "aten.index_put_", "aten.index_put") else ()
        is_mask = any(index is not None and index.dtype == torch.bool for index in indices)
        if name in _HOST_OPERATIONS or is_mask:
            raise HostNeededError(f"{name} needs the host")
        result = func(*args, **(kwargs or {}))
        self.calls.append((func, args, kwargs or {}, result))
        return result


class _Recording:
    """The recorded operations. Tensors that were made while recording are made anew by each replay."""

    def __init__(self, operations: Callable[[], None]) -> None:
        recorder = _Recorder()
        with recorder:
            operations()
        self.calls = recorder.calls

    def replay(self) -> None:
        made: dict[int, Tensor] = {}

        def current(value: Any) -> Any:
            return made.get(id(value), value) if isinstance(value, Tensor) else value

        for func, args, kwargs, recorded in self.calls:
            result = func(*tree_map(current, args), **tree_map(current, kwargs))
            recorded_tensors = recorded if isinstance(recorded, tuple | list) else [recorded]
            result_tensors = result if isinstance(result, tuple | list) else [result]
            for before, now in zip(recorded_tensors, result_tensors, strict=True):
                if isinstance(before, Tensor):
                    made[id(before)] = now


class RecordedGraphs(StepGraphs):
    """Records on the CPU what `StepGraphs` records on CUDA.

    Like a capture, recording itself must not count: here it changes the tensors, so they are set back.
    """

    def __init__(self, device: torch.device, direct_runs: int = 0) -> None:
        super().__init__(device, 0)
        self._records = True

    def _capture(self, operations: Callable[[], None], changed: Sequence[Tensor]) -> Any:
        before = [tensor.clone() for tensor in changed]

        def set_back() -> None:
            for tensor, value in zip(changed, before, strict=True):
                tensor.copy_(value)

        operations()
        set_back()
        recording = _Recording(operations)
        set_back()
        self.captures += 1
        return recording

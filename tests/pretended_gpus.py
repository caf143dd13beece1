"""Pretended GPUs on a machine without any: tensors that say that they are on a GPU, with values on the CPU.

An operation on tensors of two devices is an error, as it is on real GPUs. So code that forgets to move a
tensor fails here as it would fail there. What is not pretended: speed, memory, and the kernels of CUDA.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

import pytest
import torch
from torch import Tensor
from torch.utils import _pytree
from torch.utils._python_dispatch import TorchDispatchMode, return_and_correct_aliasing
from torch.utils.backend_registration import _setup_privateuseone_for_python_backend
from transformers import modeling_utils
from transformers.integrations import accelerate

GPU = "gpu"
aten = cast("Any", torch.ops.aten)
_MOVES = {aten._to_copy.default, aten.copy_.default}
"""Operations that may have tensors of two devices."""

_TAKE_INDICES = {aten.index.Tensor, aten.index_put_.default, aten._index_put_impl_.default}
"""Operations that may have indices on the CPU."""


class TensorOnGpu(Tensor):
    """A tensor that says that it is on a GPU.

    Args:
        values: the tensor on the CPU.
        device: the pretended device.
    """

    values: Tensor

    @staticmethod
    def __new__(cls, values: Tensor, device: torch.device) -> TensorOnGpu:
        with torch.inference_mode(values.is_inference()):
            made = cast("Any", Tensor)._make_wrapper_subclass(
                cls,
                values.shape,
                strides=values.stride(),
                storage_offset=values.storage_offset(),
                dtype=values.dtype,
                device=device,
            )
        made.values = values
        return made

    def __init__(self, values: Tensor, device: torch.device) -> None: ...

    # torch offers these three without an operation that could be pretended.

    def tolist(self) -> Any:
        return self.values.tolist()

    @property
    def data(self) -> Tensor:
        return self.detach()

    @data.setter
    def data(self, new: TensorOnGpu) -> None:
        assert new.device == self.device
        self.values = new.values

    __torch_function__ = cast("Any", torch._C)._disabled_torch_function_impl

    @classmethod
    def __torch_dispatch__(
        cls, function: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


class _Gpus(TorchDispatchMode):
    """Makes tensors on a pretended GPU where an operation asks for a GPU."""

    def __torch_dispatch__(
        self, function: Any, types: object, args: Sequence[Any] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        return _run(function, args, kwargs or {})


def _run(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
    """Run an operation on the values, and give its result a device."""
    asked = kwargs.get("device")
    device = _common_device(function, args, kwargs) if asked is None else torch.device(asked)

    def values_of(item: Any) -> Any:
        if isinstance(item, TensorOnGpu):
            return item.values
        return torch.device("cpu") if isinstance(item, torch.device) else item

    def on_device(item: Any) -> Any:
        if not isinstance(item, Tensor) or isinstance(item, TensorOnGpu) or device.type != GPU:
            return item
        return TensorOnGpu(item, torch.device(GPU, device.index or 0))

    cpu_args, cpu_kwargs = _pytree.tree_map(values_of, (tuple(args), dict(kwargs)))
    if function is aten.histc.default and device.type == GPU:  # CPUs count no integers
        cpu_args = (cpu_args[0].float(), *cpu_args[1:])
    result = function(*cpu_args, **cpu_kwargs)
    if device.type != GPU:
        return result
    wrapped = _pytree.tree_map(on_device, result)
    if asked is not None and all(tensor.device != device for tensor in args if isinstance(tensor, Tensor)):
        return wrapped  # moved, or new
    return return_and_correct_aliasing(function, tuple(args), dict(kwargs), wrapped)


def _common_device(function: Any, args: Sequence[Any], kwargs: Mapping[str, Any]) -> torch.device:
    """The device of the tensors of an operation. Raises RuntimeError if they are on several devices."""
    if function in _MOVES:
        return args[0].device
    listed = args[:1] if function in _TAKE_INDICES else (args, kwargs)
    tensors = [item for item in _pytree.tree_leaves(listed) if isinstance(item, Tensor)]
    # A number in a tensor without dimensions may be on the CPU.
    devices = {tensor.device for tensor in tensors if tensor.ndim or tensor.device.type != "cpu"}
    if function in _TAKE_INDICES:
        indices = [item for item in _pytree.tree_leaves(args[1:]) if isinstance(item, Tensor)]
        devices |= {tensor.device for tensor in indices if tensor.device.type != "cpu"}
    if len(devices) > 1:
        raise RuntimeError(f"{function} has tensors on several devices: {sorted(map(str, devices))}")
    return next(iter(devices), torch.device("cpu"))


_setup_privateuseone_for_python_backend(
    "gpu"
)  # for good: so only a process of its own may import this module


@contextmanager
def pretended_gpus(monkeypatch: pytest.MonkeyPatch, *memory: int) -> Generator[None]:
    """In a `with` block, torch has one GPU for each number of free bytes in `memory`."""
    free: dict[int | str, int] = {**dict(enumerate(memory)), "cpu": 1 << 30}
    with monkeypatch.context() as patch, _Gpus():
        patch.setattr(torch.accelerator, "device_count", lambda: len(memory))
        patch.setattr(accelerate, "accelerate_max_memory", lambda _: dict(free))
        patch.setattr(modeling_utils, "caching_allocator_warmup", lambda *_: None)
        patch.setenv("HF_DEACTIVATE_ASYNC_LOAD", "1")  # other threads would have no pretended GPUs
        torch_internals = cast("Any", torch._C)
        torch_internals._set_only_lift_cpu_tensors(
            True
        )  # `torch.tensor` makes a tensor on the CPU, then moves it
        try:
            yield
        finally:
            torch_internals._set_only_lift_cpu_tensors(False)

"""float32 linears on x86 CPUs with weights packed for oneDNN.

At the few rows of a decoding step, torch's own float32 `linear` reaches a third of what oneDNN does with
weights it has laid out for itself beforehand (`python -m benchmarks.decode` measures both). Packing is done
once when a model is loaded, and the plain weights are let go.
"""

from __future__ import annotations

import ctypes
import platform
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812, the name everybody knows it by
from torch import Tensor, nn

_ONEDNN = cast("Any", torch.ops.mkldnn)
_TYPICAL_ROWS = 128
"""oneDNN lays weights out for a number of rows; this layout is good at all."""

FEWEST_ROWS = 6
"""oneDNN's kernels go over 6 rows at a time; below 3 rows it takes another that is half as fast."""


def available(module: nn.Module) -> bool:
    """Whether packing is for this model: float32, on an x86 CPU, with a torch that has oneDNN."""
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine() in {"x86_64", "AMD64"}
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in module.parameters())
    )


def packed(weight: Tensor) -> Tensor:
    """Weights [out, in] in oneDNN's layout, opaque to everything but `linear` and `linear_with`."""
    return _ONEDNN._reorder_linear_weight(weight.detach().contiguous(), _TYPICAL_ROWS)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, activation: str = "none") -> Tensor:
    """x [rows, in] -> [rows, out]; activation "none" or "swish", computed in the same pass."""
    return _ONEDNN._linear_pointwise(x, weight, bias, activation, [], "")


def linear_with(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None, operation: str) -> Tensor:
    """linear(x) combined with other [rows, out] by "add" or "mul", in the same pass."""
    return _ONEDNN._linear_pointwise.binary(x, other, weight, bias, operation)


def plain_linear(x: Tensor, weight: Tensor) -> Tensor:
    """x [rows, in] -> [rows, out], for one large weight that is not packed because others read it, too."""
    if x.shape[0] > 2:
        return linear(padded(x), weight)[: x.shape[0]]
    pair = F.pad(x, (0, 0, 0, 2 - x.shape[0]))  # 1 row takes a kernel that is half as fast
    return (weight @ pair.T).T[: x.shape[0]].contiguous()


def padded(x: Tensor) -> Tensor:
    """x [rows, n] with at least FEWEST_ROWS rows."""
    return x if x.shape[0] >= FEWEST_ROWS else F.pad(x, (0, 0, 0, FEWEST_ROWS - x.shape[0]))


class PackedLinear(nn.Module):
    """Takes the place of an nn.Linear: a range of the outputs of packed weights, by default all."""

    def __init__(self, weight: Tensor, bias: Tensor | None, outputs: slice) -> None:
        super().__init__()
        self.weight, self.bias, self.outputs = weight, bias, outputs

    def forward(self, x: Tensor) -> Tensor:
        rows = x.reshape(-1, x.shape[-1])
        out = linear(padded(rows), self.weight, self.bias)[: len(rows), self.outputs]
        return out.reshape(*x.shape[:-1], -1)


def give_back(module: nn.Module) -> None:
    """After packing: return the plain weights' memory to the machine."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()  # the last that hold the weights' file in memory
    # glibc keeps what is freed between other things; elsewhere there is no such call, and no need.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if platform.system() == "Linux" else None
    if trim is not None:
        trim(0)


def pack(module: nn.Module) -> None:
    """Put a PackedLinear in the place of every nn.Linear, and let the plain weights go."""
    for name, child in module.named_children():
        if type(child) is nn.Linear:
            linear: Any = child
            bias = None if linear.bias is None else linear.bias.detach()
            setattr(module, name, PackedLinear(packed(linear.weight), bias, slice(None)))
        else:
            pack(child)

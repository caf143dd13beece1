"""float32 linear layers on x86 CPUs with weights packed for oneDNN.

A decoding step has few rows. For so few rows, the float32 `linear` of torch is slower on many processors than
oneDNN with weights in oneDNN's own layout, up to three times. So the weights are packed once, when a model is
loaded, and the plain weights are freed. `kernels` chooses how 1 to 3 rows are computed.
"""

from __future__ import annotations

import ctypes
import platform
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812, the usual name
from torch import Tensor, nn

_ONEDNN = cast("Any", torch.ops.mkldnn)
_LAYOUT_ROWS = 128
"""oneDNN chooses a layout for a number of rows. The layout for 128 rows is good for any number."""


def supports(module: nn.Module) -> bool:
    """Whether a model can be packed: float32, on an x86 CPU, with a torch that has oneDNN."""
    return (
        torch.backends.mkldnn.is_available()
        and platform.machine() in {"x86_64", "AMD64"}
        and all(p.device.type == "cpu" and p.dtype == torch.float32 for p in module.parameters())
    )


def pack_weight(weight: Tensor) -> Tensor:
    """Convert a weight [out, in] to oneDNN's layout. Only `linear` and `linear_plus` can use the result."""
    return _ONEDNN._reorder_linear_weight(weight.detach().contiguous(), _LAYOUT_ROWS)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Apply a linear layer, with a weight that is packed or plain: x [rows, in] -> [rows, out]."""
    return _ONEDNN._linear_pointwise(x, weight, bias, "none", [], "")


def linear_plus(x: Tensor, other: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Compute linear(x, weight, bias) + `other` in one operation. `other` and the result are [rows, out]."""
    return _ONEDNN._linear_pointwise.binary(x, other, weight, bias, "add")


def pad_rows(x: Tensor, rows: int) -> Tensor:
    """Append rows of zeros to x [·, n] so that the result has at least `rows` rows."""
    return x if x.shape[0] >= rows else F.pad(x, (0, 0, 0, rows - x.shape[0]))


class PackedLinear(nn.Module):
    """Replaces an nn.Linear. It multiplies with a packed weight and returns a range of the output features.

    Several PackedLinear layers can share one packed weight. Each of them returns its own range.

    Attributes:
        fewest_rows: maps the number of rows of an input to the number of rows to which it is padded. See
            `cfg_lab.models.cpu.kernels`.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, outputs: slice) -> None:
        super().__init__()
        self.weight, self.bias, self.outputs = weight, bias, outputs
        self.fewest_rows: Callable[[int], int] = int

    def forward(self, x: Tensor) -> Tensor:
        """Apply the layer: x [..., in] -> [..., out]."""
        rows = x.reshape(-1, x.shape[-1])
        padded = pad_rows(rows, self.fewest_rows(len(rows)))
        out = linear(padded, self.weight, self.bias)[: len(rows), self.outputs]
        return out.reshape(*x.shape[:-1], -1)


@contextmanager
def called_linears(module: nn.Module) -> Generator[set[nn.Module]]:
    """Collect the linear layers that are called inside the context.

    Only those can be packed: some models (Mamba) read the weight of a linear layer instead of calling it.
    """
    called: set[nn.Module] = set()
    linears = [layer for layer in module.modules() if type(layer) is nn.Linear]

    def add(layer: nn.Module, _inputs: object, _output: object) -> None:
        called.add(layer)

    handles = [layer.register_forward_hook(add) for layer in linears]
    try:
        yield called
    finally:
        for handle in handles:
            handle.remove()


def pack_linears(module: nn.Module, linears: set[nn.Module]) -> None:
    """Replace the linear layers `linears` of a model by PackedLinear layers."""
    for name, child in module.named_children():
        if child in linears:
            layer: Any = child
            bias = None if layer.bias is None else layer.bias.detach()
            setattr(module, name, PackedLinear(pack_weight(layer.weight), bias, slice(None)))
        else:
            pack_linears(child, linears)


def free_plain_weights(module: nn.Module) -> None:
    """Free the memory of a model's plain weights after packed weights have replaced them."""
    for parameter in module.parameters():
        # The remaining parameters are views of the memory-mapped weights file. Copies do not need the file.
        parameter.data = parameter.data.clone()
    # glibc does not return freed memory that lies between memory in use; other systems need no such call.
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if platform.system() == "Linux" else None
    if trim is not None:
        trim(0)

"""Which kernels compute linear layers for few rows, chosen by a measurement.

A decoding step of one text has 1 to 3 rows, one per branch. A good kernel needs no more time for them than
for reading the weights. Which kernel is good depends on the processor. Some kernels of oneDNN are slow below
3 rows, or below 6 rows; then rows of zeros are added. For a plain weight, torch has products of its own. So
the kernels are chosen by a measurement when a model is packed:

1. For each number of rows, every kernel multiplies by one weight of the model after the other. So the weights
   come from memory, as they do in a decoding step.
2. The first kernel of the list is the default. Kernels that are slower than it at first are left out, and the
   others are measured again.
3. Another kernel than the default is chosen only if its usual time is clearly shorter than the shortest time
   of the default. So the choice is the same in every run where kernels are about equally fast, and it is the
   default where other programs disturb the measurement.

The result of a linear layer does not depend on the choice, except for the last bits of its sums.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle, groupby
from types import MappingProxyType

import torch
import torch.nn.functional as F  # noqa: N812, the usual name
from torch import Tensor, nn

from cfg_lab.models.cpu.onednn import PackedLinear, linear, pad_rows

_FEW_ROWS = (1, 2, 3)
"""Numbers of rows for which kernels are chosen. The default is among the fastest for more rows."""

_LEAST_NUMBERS = 250_000
"""A model whose largest weight is smaller (1 MB) fits the processor's cache, and is not measured."""

_MOST_NUMBERS = 5_000_000
"""Larger weights (20 MB) are not measured as a whole, to save time."""

_MOST_SECONDS = 0.5
"""On an overloaded machine the measurement ends after this time. What is not measured is the default."""

_ROUNDS = 2
_SLOWER = 1.25  # times the default
_CLEARLY_FASTER = 0.8  # times the default


@dataclass(frozen=True)
class Kernel:
    """One way to multiply x [rows, in] by a weight [out, in].

    Attributes:
        name: what messages call it.
        multiply: the function.
        fewest_rows: if x has fewer rows, rows of zeros are added.
    """

    name: str
    multiply: Callable[[Tensor, Tensor], Tensor]
    fewest_rows: int = 1

    def __call__(self, x: Tensor, weight: Tensor) -> Tensor:
        """Multiply: x [rows, in], weight [out, in] -> [rows, out]."""
        return self.multiply(pad_rows(x, self.fewest_rows), weight)[: x.shape[0]]


def _transposed_product(x: Tensor, weight: Tensor) -> Tensor:
    pair = pad_rows(x, 2)  # the kernel for 1 row can take twice as long as that for 2
    return (weight @ pair.T).T[: x.shape[0]].contiguous()


_ONEDNN = Kernel("oneDNN", linear)
_ONEDNN_3 = Kernel("oneDNN with 3 rows", linear, 3)
_ONEDNN_6 = Kernel("oneDNN with 6 rows", linear, 6)
_PRODUCT = Kernel("x @ weight.T", F.linear)
_TRANSPOSED_PRODUCT = Kernel("weight @ x.T", _transposed_product)

PACKED_KERNELS = (_ONEDNN, _ONEDNN_3, _ONEDNN_6)
"""The kernels for packed weights. The first one is the default."""

PLAIN_KERNELS = (_ONEDNN, _PRODUCT, _TRANSPOSED_PRODUCT)
"""The kernels for plain weights. The first one is the default."""


@dataclass(frozen=True, kw_only=True)
class Kernels:
    """The kernels of one model for few rows. Where a number of rows is missing, the default is used.

    Attributes:
        packed: number of rows -> kernel for the packed weights.
        head: number of rows -> kernel for the plain weight of the output layer.
        milliseconds: time that the measurement took. None if the model is too small for a measurement.
    """

    packed: Mapping[int, Kernel] = field(default_factory=lambda: MappingProxyType({}))
    head: Mapping[int, Kernel] = field(default_factory=lambda: MappingProxyType({}))
    milliseconds: float | None = None

    def fewest_rows(self, rows: int) -> int:
        """To how many rows an input of packed layers with `rows` rows is padded. It may have more already."""
        return self.packed.get(rows, _ONEDNN).fewest_rows

    def apply_head(self, x: Tensor, weight: Tensor) -> Tensor:
        """Apply the output layer with its plain weight [out, in]: x [rows, in] -> [rows, out].

        This weight is not packed, because the input embedding often uses it too.
        """
        return self.head.get(x.shape[0], _ONEDNN)(x, weight)

    def __str__(self) -> str:
        """The kernels in one sentence."""
        parts = [f"packed layers: {_in_words(self.packed)}"]
        if self.head:
            parts.append(f"output layer: {_in_words(self.head)}")
        if self.milliseconds is None:
            return "; ".join([*parts, "not measured, because the weights are small"])
        return "; ".join([*parts, f"measured in {self.milliseconds:.0f} ms"])


def choose_kernels(module: nn.Module, head: Tensor | None = None) -> Kernels:
    """Measure the kernels for few rows on the weights of a model, and let its packed layers use the fastest.

    Args:
        module: the model. Its linear layers are packed.
        head: the plain weight [vocab, hidden] of the output layer; None if it is packed too.
    """
    layers = [layer for layer in module.modules() if isinstance(layer, PackedLinear)]
    weights = _weights_to_measure(list({id(layer.weight): layer.weight for layer in layers}.values()))
    if not weights or weights[0].numel() < _LEAST_NUMBERS:
        return Kernels()
    started = time.perf_counter()
    packed = _fastest(PACKED_KERNELS, weights, started + _MOST_SECONDS)
    of_head = {} if head is None else _fastest(PLAIN_KERNELS, _slices(head), started + _MOST_SECONDS)
    kernels = Kernels(packed=packed, head=of_head, milliseconds=1e3 * (time.perf_counter() - started))
    for layer in layers:
        layer.fewest_rows = kernels.fewest_rows
    return kernels


def _weights_to_measure(weights: Sequence[Tensor]) -> list[Tensor]:
    """The weights of one shape: the largest shape that is not too large, else the smallest."""
    by_size = sorted({weight.shape for weight in weights}, key=lambda shape: shape.numel())
    if not by_size:
        return []
    shape = next((s for s in reversed(by_size) if s.numel() <= _MOST_NUMBERS), by_size[0])
    return [weight for weight in weights if weight.shape == shape]


def _slices(weight: Tensor) -> list[Tensor]:
    """Ranges of the output features of a plain weight [out, in], equally long and not too large."""
    outputs = max(1, min(weight.shape[0], _MOST_NUMBERS // weight.shape[1]))
    starts = range(0, weight.shape[0] - outputs + 1, outputs)
    return [weight.detach()[start : start + outputs] for start in starts]


def _fastest(kernels: Sequence[Kernel], weights: Sequence[Tensor], deadline: float) -> dict[int, Kernel]:
    """The fastest of some kernels, for each number of rows in _FEW_ROWS.

    Args:
        deadline: after this moment of `time.perf_counter`, no other number of rows is measured.
    """
    next_weight = cycle(weights)
    fastest: dict[int, Kernel] = {}
    for rows in _FEW_ROWS:
        if time.perf_counter() > deadline:
            break
        x = torch.ones(rows, weights[0].shape[1])
        times: dict[Kernel, list[float]] = {}
        for kernel in kernels:
            if not 1 < kernel.fewest_rows <= rows:  # else nothing is padded, and it is the default
                kernel(x, next(next_weight))  # oneDNN generates its code at the first call
                times[kernel] = [_seconds(kernel, x, next(next_weight))]
        default = kernels[0]
        limit = _SLOWER * times[default][0]
        for _ in range(_ROUNDS):
            for kernel, seconds in times.items():
                if seconds[0] <= limit:
                    seconds.append(_seconds(kernel, x, next(next_weight)))
        limit = _CLEARLY_FASTER * min(times[default])
        faster = [kernel for kernel, seconds in times.items() if statistics.median(seconds) < limit]
        fastest[rows] = min(faster, key=lambda kernel: min(times[kernel]), default=default)
    return fastest


def _seconds(kernel: Kernel, x: Tensor, weight: Tensor) -> float:
    started = time.perf_counter()
    kernel(x, weight)
    return time.perf_counter() - started


def _in_words(kernels: Mapping[int, Kernel]) -> str:
    """Which kernel is used for which numbers of rows."""
    parts: list[str] = []
    for name, group in groupby(_FEW_ROWS, lambda rows: kernels.get(rows, _ONEDNN).name):
        first, *others = group
        words = f"{first} to {others[-1]} rows" if others else f"{first} row{'s' * (first > 1)}"
        parts.append(f"{name} for {words}")
    return ", ".join(parts)

"""The kernels for few rows: all compute the same, and the choice among them depends on clear differences."""

from __future__ import annotations

import platform
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import Tensor

import cfg_lab
from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request
from cfg_lab.models.cpu import kernels
from cfg_lab.models.cpu.kernels import PACKED_KERNELS, PLAIN_KERNELS, Kernel, Kernels, choose_kernels
from cfg_lab.models.cpu.onednn import PackedLinear, pack_weight
from tests.conftest import make_model
from tests.test_models import save

pytestmark = pytest.mark.skipif(
    platform.machine() not in {"x86_64", "AMD64"}, reason="packed weights are for x86"
)

ROWS = (1, 2, 3, 4, 5, 8)
DEFAULT = PLAIN_KERNELS[0]


@pytest.mark.parametrize("rows", ROWS)
def test_every_kernel_gives_the_product(rows: int) -> None:
    generator = torch.Generator().manual_seed(rows)
    x, weight = torch.randn(rows, 48, generator=generator), torch.randn(80, 48, generator=generator)
    product = (x.double() @ weight.double().T).float()
    for kernel in PLAIN_KERNELS:
        torch.testing.assert_close(kernel(x, weight), product, msg=kernel.name)
        assert kernel(x, weight).is_contiguous()
    for kernel in PACKED_KERNELS:
        torch.testing.assert_close(kernel(x, pack_weight(weight)), product, msg=kernel.name)


@pytest.mark.parametrize("packed", PACKED_KERNELS, ids=lambda kernel: kernel.name)
@pytest.mark.parametrize("head", PLAIN_KERNELS, ids=lambda kernel: kernel.name)
def test_no_choice_of_kernels_changes_a_trace_by_more_than_rounding(
    packed: Kernel, head: Kernel, tmp_path: Path
) -> None:
    model = cfg_lab.load_model(str(save(make_model("rotary"), tmp_path)))
    request = Request(
        positive=(5, 9, 12),
        negatives=(Branch((7, 3)), Branch((8, 2, 4), weight=0.5)),
        guidance=ClassifierFreeGuidance(scale=1.5),
        max_new_tokens=10,
    )
    assert model.module is not None
    short = model._short_forward  # pyright: ignore[reportPrivateUsage]
    assert short is not None
    short.kernels = Kernels()
    (expected,) = Decoder(model).decode([request])
    short.kernels = Kernels(packed=dict.fromkeys(ROWS, packed), head=dict.fromkeys(ROWS, head))
    (completion,) = Decoder(model).decode([request])
    assert completion.tokens == expected.tokens
    assert completion.trace.guided == pytest.approx(expected.trace.guided, abs=1e-4)


def measured(monkeypatch: pytest.MonkeyPatch, seconds: Callable[[Kernel, int], float]) -> Kernels:
    """The kernels that are chosen for a model of one large layer, with times that are given."""

    def given(kernel: Kernel, x: Tensor, weight: Tensor) -> float:
        return seconds(kernel, len(x))

    monkeypatch.setattr(kernels, "_seconds", given)
    layer = PackedLinear(pack_weight(torch.ones(600, 500)), None, slice(None))
    chosen = choose_kernels(torch.nn.Sequential(layer), torch.ones(700, 500))
    for rows in ROWS:  # the layers follow the choice
        assert layer.fewest_rows(rows) == chosen.fewest_rows(rows)
    return chosen


@pytest.mark.parametrize("fastest", PLAIN_KERNELS[1:], ids=lambda kernel: kernel.name)
def test_a_kernel_is_chosen_exactly_if_it_is_clearly_faster(
    fastest: Kernel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def seconds_of(share: float) -> Callable[[Kernel, int], float]:
        return lambda kernel, rows: share if kernel == fastest and rows == 2 else 1.0

    assert measured(monkeypatch, seconds_of(0.5)).head == {1: DEFAULT, 2: fastest, 3: DEFAULT}
    for near in (0.9, 1.0, 1.1):  # about equally fast
        assert measured(monkeypatch, seconds_of(near)).head == dict.fromkeys((1, 2, 3), DEFAULT)


def test_a_kernel_that_is_fast_once_by_chance_is_not_chosen(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: dict[tuple[Kernel, int], int] = {}

    def once_fast(kernel: Kernel, rows: int) -> float:
        calls[kernel, rows] = calls.get((kernel, rows), 0) + 1
        return 0.1 if calls[kernel, rows] == 1 and kernel != DEFAULT else 1.0

    chosen = measured(monkeypatch, once_fast)
    assert set(chosen.head.values()) == set(chosen.packed.values()) == {DEFAULT}


def test_rows_are_padded_where_the_padded_kernel_is_faster(monkeypatch: pytest.MonkeyPatch) -> None:
    """As on processors whose kernels for 1 and 2 rows are slow."""
    padded = PACKED_KERNELS[2]
    chosen = measured(monkeypatch, lambda kernel, rows: 0.5 if kernel == padded and rows < 3 else 1.0)
    assert [chosen.fewest_rows(rows) for rows in (1, 2, 3, 4)] == [6, 6, 1, 1]


def test_the_choice_is_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    product = PLAIN_KERNELS[1]
    chosen = measured(monkeypatch, lambda kernel, rows: 0.5 if kernel == product and rows > 1 else 1.0)
    *choices, measured_in = str(chosen).split("; ")
    assert choices == [
        "packed layers: oneDNN for 1 to 3 rows",
        "output layer: oneDNN for 1 row, x @ weight.T for 2 to 3 rows",
    ]
    assert measured_in.startswith("measured in ")


def test_a_small_model_is_not_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its weights stay in the processor's cache, where the measurement would say nothing."""

    def never(*_: object) -> Mapping[int, Kernel]:
        raise AssertionError("measured")

    monkeypatch.setattr(kernels, "_fastest", never)
    model = cfg_lab.load_model(str(save(make_model("rotary"), tmp_path)))
    assert model.kernels.endswith("not measured, because the weights are small")


def test_a_model_that_is_not_packed_says_so(tmp_path: Path) -> None:
    model = cfg_lab.load_model(str(save(make_model("rotary").half(), tmp_path)), dtype="float16")
    assert model.kernels == "the kernels of torch"

"""The benchmark for GPUs runs on a CPU, and needs few packages."""

from __future__ import annotations

import ast
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from benchmarks.gpu import part_of
from benchmarks.gpu_laws import Text, compare, static_is_eager
from benchmarks.gpu_limits import Limits, share_of_limit
from benchmarks.gpu_models import SIZES, build
from benchmarks.gpu_report import Report, failures, goals
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.decoding.static_buffer import StaticKVBuffer
from cfg_lab.models import from_transformers

ROOT = Path(__file__).parent.parent

DIRECTLY_IMPORTED = {
    "accelerate",
    "filelock",
    "numpy",
    "safetensors",
    "torch",
    "transformers",
    "xxhash",
    "yaml",
}
"""Packages outside the standard library that the code of the benchmark imports itself."""

NEVER_IMPORTED = {
    "datasets",
    "evaluate",
    "hydra",
    "lm_eval",
    "matplotlib",
    "omegaconf",
    "pandas",
    "pyarrow",
    "sacrebleu",
    "sklearn",
    "submitit",
    "tensorboard",
    "wandb",
}


EMPTY: dict[str, Any] = {"laws": {}, "static_steps": {}, "errors": {}, "speed": {}}


def python(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([sys.executable, *arguments], cwd=ROOT, capture_output=True, text=True, check=False)


def test_every_part_runs_on_a_cpu_and_all_laws_hold(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    # The default limit of time leaves parts out on a machine that has much else to do.
    process = python(
        "-m", "benchmarks.gpu", "--device=cpu", "--size=tiny", f"--json={path}", "--seconds=5000"
    )
    assert process.returncode == 0, process.stderr
    values: dict[str, Any] = json.loads(path.read_text())
    assert values["errors"] == {}
    assert values["static_steps"] == {"tiny": True}
    assert len(values["laws"]) == 4
    for name, law in values["laws"].items():
        assert law["passed"], name
        assert law["equal"] + law["ties"] == law["texts"] > 0, name
        assert name in process.stdout
    assert all(value > 0 for value in values["limits"].values())
    measurements = values["speed"]["tiny"]["measurements"]
    assert len(measurements) == 4
    contenders = {name for of_work in measurements.values() for name in of_work["contenders"]}
    transformers = {f"transformers {name}" for name in ("guided", "plain", "generate_batch")}
    assert contenders == {"lab guided", "lab plain", *transformers}
    for of_work in measurements.values():
        for name, result in of_work["contenders"].items():
            assert result["tokens_s"] > 0, (name, result)
            if name.startswith("lab"):
                # No upper bound: another program may slow the machine down while the limits are measured.
                assert result["share_of_limit"] > 0
    for calls in values["profile"]["tiny"].values():
        assert calls["operations"] > 100
    assert len(values["goals"]) == 5
    assert values["machine"]["transformers"]


@pytest.mark.parametrize("rows", [1, 16])
def test_the_operations_of_a_step_are_those_that_torch_counts(rows: int) -> None:
    module = build(SIZES["tiny"].law_model, torch.device("cpu"), torch.float32, spread=0.4)
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        module(torch.ones(rows, 1, dtype=torch.long))
    slow_device = Limits(copy_bytes_s=1e6, gemm_flop_s=1e6)
    step = share_of_limit(module, slow_device, rows, columns=1, seconds=10)
    assert step["flop"] == pytest.approx(counter.get_total_flops(), rel=0.02)
    assert step["share_of_bandwidth"] == pytest.approx(step["bytes"] / 1e7)
    assert step["share_of_flop"] == pytest.approx(step["flop"] / 1e7)
    assert step["share_of_limit"] == max(step["share_of_bandwidth"], step["share_of_flop"])


def test_which_packages_are_imported() -> None:
    """The benchmark runs on machines with torch and transformers, but without the packages of studies."""
    code = (
        "import sys, json, cfg_lab; first = sorted(sys.modules); import benchmarks.gpu; "
        "files = [getattr(m, '__file__', None) for name, m in sys.modules.items()"
        " if name.split('.')[0] in ('cfg_lab', 'benchmarks')]; "
        "print(json.dumps([first, sorted(sys.modules), files]))"
    )
    process = python("-c", code)
    assert process.returncode == 0, process.stderr
    first, modules, files = json.loads(process.stdout)
    assert {name for name in first if name.partition(".")[0] == "cfg_lab"} == {"cfg_lab"}
    assert {name.partition(".")[0] for name in modules} & NEVER_IMPORTED == set()
    imported: set[str] = set()
    for file in filter(None, files):
        for node in ast.parse(Path(file).read_text()).body:
            if isinstance(node, ast.Import):
                imported |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom):
                imported.add((node.module or "").partition(".")[0])
    assert imported - sys.stdlib_module_names - {"cfg_lab", "benchmarks"} == DIRECTLY_IMPORTED


def test_a_wrong_text_is_not_a_tie() -> None:
    greedy = Request(positive=(1,), max_new_tokens=3)
    text = Text((5, 6, 7), (-1.0, -1.0, -1.0))
    assert compare([greedy], [text], [text])["passed"]
    tie = Text((5, 8, 9), (-1.0, -1.00001, -4.0))
    assert compare([greedy], [text], [tie]) | {"passed": True, "ties": 1} == compare([greedy], [text], [tie])
    for wrong in (
        Text((5, 8, 9), (-1.0, -1.5, -1.0)),  # another token, less likely
        Text((5, 6), (-1.0, -1.0)),  # ends too early
        Text((5, 6, 7), (-1.0, -1.2, -1.0)),  # the same tokens, with another log-prob
    ):
        assert not compare([greedy], [text], [wrong])["passed"]
    # In a random draw, equal log-probs are no tie: the noise decides.
    drawn = Request(positive=(1,), max_new_tokens=3, sampling=Sampling())
    assert not compare([drawn], [text], [Text((5, 8, 9), (-1.0, -1.0, -1.0))])["passed"]


@pytest.mark.parametrize(("cost", "reached"), [(1.04, True), (1.06, False), (None, None)])
def test_goals_say_reached_only_for_what_was_measured(cost: float | None, reached: bool | None) -> None:
    ratios = {} if cost is None else {"cost_of_guidance": cost, "guided_speedup": 9.0}
    measurements = {"one stream": {"contenders": {}, "ratios": ratios}}
    rows = {row["goal"]: row["reached"] for row in goals({"speed": {"135M": {"measurements": measurements}}})}
    assert rows["guided / unguided seconds <= 1.05"] is reached
    assert rows["one guided stream / transformers' guided >= 8"] is (None if cost is None else True)
    assert rows["grid / transformers in batches of 8 >= 50"] is None


def test_a_failure_of_the_lab_is_one_of_the_run_and_that_of_a_peer_is_not() -> None:
    def values(contender: str) -> dict[str, Any]:
        measurements = {"grid": {"contenders": {contender: {"error": "out of memory"}}, "ratios": {}}}
        return EMPTY | {"speed": {"8B": {"measurements": measurements}}}

    assert failures(values("lab guided")) == ["8B, grid, lab guided"]
    assert failures(values("transformers guided")) == []
    assert failures(EMPTY | {"laws": {"law": {"passed": False}}}) == ["law"]
    assert failures(EMPTY | {"static_steps": {"135M": True, "8B": False}}) == ["8B, static steps"]


def test_a_part_that_fails_is_told_and_the_next_goes_on(tmp_path: Path) -> None:
    path = tmp_path / "gpu.json"
    values: dict[str, Any] = {name: {} for name in (*EMPTY, "seconds")}
    report = Report(path, values)
    with part_of(report, "laws", torch.device("cpu")):
        raise ValueError("no kernel")
    with part_of(report, "limits", torch.device("cpu")):
        values["limits"] = {"copy_bytes_s": 1.0}
    written = json.loads(path.read_text())
    assert written["errors"] == {"laws": "ValueError: no kernel"}
    assert written["limits"] == {"copy_bytes_s": 1.0}
    assert failures(written) == ["laws"]


def test_a_broken_static_step_breaks_its_law(monkeypatch: pytest.MonkeyPatch) -> None:
    mask_of = StaticKVBuffer.mask_of

    def sees_other_texts(self: StaticKVBuffer, rows: int, columns: int) -> torch.Tensor:
        return mask_of(self, rows, columns) | (torch.arange(columns) == 0)

    model = from_transformers(build(SIZES["tiny"].law_model, torch.device("cpu"), torch.float32, spread=0.4))
    assert static_is_eager(model)["passed"]
    monkeypatch.setattr(StaticKVBuffer, "mask_of", sees_other_texts)
    assert static_is_eager(model)["different"] > 0, "it was checked before, so it still runs"
    other = from_transformers(model.module)
    with pytest.warns(UserWarning, match="they give other logits"):
        assert not static_is_eager(other)["passed"], "it does not run"

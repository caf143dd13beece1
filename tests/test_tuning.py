"""Tuning a model on a reward, and guidance between the tuned model and its base."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file

import cfg_lab
from cfg_lab import load_model
from cfg_lab.errors import InputError
from tests.cli import environment, sweep, wait_until
from tests.learn import learn, on

REWARD = ["metrics=[length]", "+metrics.a._target_=tests.letter_metric.ShareOfA", "aim=a"]
SMALL = ["steps=4", "batch=4", "generations=2", "max_new_tokens=4", "steps_per_save=1", "rank=2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """The results folder of a model that was tuned to write the letter a."""
    folder = tmp_path_factory.mktemp("tuned")
    settings = [
        "steps=15",
        "batch=16",
        "generations=8",
        "max_new_tokens=8",
        "learning_rate=0.02",
        "beta=0.01",
    ]
    learn("tune", *on(folder, taught, "tuned"), *REWARD, *settings)
    return folder / "results" / "tuned"


def test_a_reward_that_is_easy_to_reach_rises(results: Path) -> None:
    steps = pd.read_parquet(results / "steps.parquet")
    assert list(steps["step"]) == list(range(1, 16))
    assert steps["reward"].tail(3).mean() > steps["reward"].head(3).mean() + 0.2
    assert steps["kl"].iloc[0] == pytest.approx(0, abs=1e-5)
    assert steps["kl"].iloc[-1] > 0.01


def test_scale_0_is_the_base_and_scale_1_the_tuned_model(results: Path, tmp_path: Path, taught: Path) -> None:
    adapter = f"model.adapter={results / 'adapter'}"
    common = [
        *(override for override in on(tmp_path, taught, "between") if not override.startswith("tracking")),
        "tracking=none",
        "report=false",
        "metrics=[length]",
        "samples=2",
        "max_new_tokens=8",
        "prompts.limit=5",
    ]
    between = ["negatives=base", f"negatives.models.base.name={taught}", "guidance.scale=0,1,2"]
    sweep(*common, adapter, *between)
    sweep(*common[:1], *common[1:], "guidance.scale=1", "negatives=none", "name=base")
    sweep(*common, adapter, "guidance.scale=1", "negatives=none", "name=tuned")
    root = tmp_path / "results"
    guided = cfg_lab.load_results(root / "between")
    for scale, name in ((0, "base"), (1, "tuned")):
        expected: Any = cfg_lab.load_results(root / name)["text"]
        assert list(guided.loc[guided["guidance.scale"] == scale, "text"]) == list(expected)
    share = [guided.loc[guided["guidance.scale"] == s, "text"].str.count("a").sum() for s in (0, 1)]
    assert share[1] > share[0]


def test_the_tuned_model_is_not_its_base(results: Path, taught: Path) -> None:
    tuned = load_model(str(taught), adapter=str(results / "adapter"))
    assert tuned.fingerprint != load_model(str(taught)).fingerprint


def test_a_killed_tuning_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path, taught: Path) -> None:
    command = [
        sys.executable,
        "-m",
        "cfg_lab.learn",
        "tune",
        *on(tmp_path, taught, "killed"),
        *REWARD,
        *SMALL,
    ]
    saved = tmp_path / "results/killed/checkpoints/checkpoint-1/trainer_state.json"
    process = subprocess.Popen(
        command, env=environment(OMP_NUM_THREADS="1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(saved.exists, process)
    process.kill()
    process.wait()
    assert not (tmp_path / "results/killed/adapter").exists()
    half = tmp_path / "results/killed/checkpoints/checkpoint-9"
    half.mkdir()  # as a kill in the middle of saving leaves it
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("killed", "whole"):
            learn("tune", *on(tmp_path, taught, name), *REWARD, *SMALL)
    finally:
        torch.set_num_threads(threads)
    killed, whole = (
        load_file(tmp_path / "results" / name / "adapter/adapter_model.safetensors")
        for name in ("killed", "whole")
    )
    assert killed.keys() == whole.keys()
    for name in whole:
        torch.testing.assert_close(killed[name], whole[name], rtol=0, atol=1e-7)
    steps = [pd.read_parquet(tmp_path / "results" / name / "steps.parquet") for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*steps, rtol=1e-5)
    with pytest.raises(InputError, match="another value of beta; choose another name"):
        learn("tune", *on(tmp_path, taught, "whole"), *REWARD, *SMALL, "beta=1")


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["aim=sentimnt"], "no metric of this command gives the column 'sentimnt'"),
        (["metrics=[diversity]", "aim=distinct_across"], "aim is "),
        (["beta=-1"], "beta must be a number from 0 to 1000, got -1"),
        (["batch=5"], "batch must be a multiple of generations=2"),
        (["generations=1"], "generations must be a whole number of at least 2"),
        (["+prompts.half=held_out"], r"leave prompts\.half=null"),
        (["max_new_tokens=1000"], "prompt 'p"),
        (["model.skip_layers=[0,1]"], r"model\.skip_layers is set"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    overrides: list[str], sentence: str, tmp_path: Path, taught: Path
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        learn("tune", *on(tmp_path, taught, "wrong"), *REWARD, *SMALL, *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()

"""Hydra's launchers: ours composes jobs as Hydra does, and every other one gives the same results."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from typing import Any

import hydra
import pandas as pd
import pytest
import yaml
from hydra import initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.types import RunMode
from omegaconf import OmegaConf

import cfg_lab
from cfg_lab.options import CONFIG
from cfg_lab.study.config import check_overrides
from hydra_plugins.cfg_lab_launcher.batch import applicable_grid, compose
from tests.cli import command, environment, on, shell, sweep

LAUNCHERS = {
    "basic": ("hydra", []),
    "joblib": ("hydra_plugins.hydra_joblib_launcher", ["hydra.launcher.n_jobs=2"]),
    "submitit_local": ("hydra_plugins.hydra_submitit_launcher", []),
}
"""Launchers other than ours: the package that has them, and overrides."""


def launched_by(launcher: str) -> list[str]:
    """Overrides that choose a launcher. Skips the test if it is not installed."""
    package, overrides = LAUNCHERS[launcher]
    pytest.importorskip(package)
    return [f"hydra/launcher={launcher}", *overrides]


def jobs_of(arguments: list[str]) -> list[list[str]]:
    """The overrides of each cell that some overrides name."""
    return BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(arguments), None)[0]


def test_shared_compositions_equal_hydras_own() -> None:
    arguments = [
        "guidance.scale=2.5,-3e-1",
        "negatives=own,custom",
        "+negatives.note=a,b",
        "negatives.phrases='ugly:0.8, low','x'",
        "stop=[],[a]",
        "prompts.system=null,'{braces}'",
    ]
    jobs = jobs_of(arguments)
    assert len(jobs) == 2**6
    jobs = jobs[::7]  # Hydra takes 0.3 s for each; these have every value, in changing company
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        hydra = GlobalHydra.instance()
        loader = hydra.config_loader()
        sweep_config = loader.load_configuration("sweep", [], run_mode=RunMode.MULTIRUN)
        for job, composed in zip(jobs, compose(loader, sweep_config, jobs), strict=True):
            expected: Any = loader.load_sweep_config(sweep_config, list(job))
            ours: Any = OmegaConf.to_container(composed)
            theirs: Any = OmegaConf.to_container(expected)
            for either in (ours, theirs):  # the number of the job, which Hydra's launchers set
                for key in ("id", "num", "override_dirname"):
                    either["hydra"]["job"].pop(key, None)
            assert ours == theirs
            assert OmegaConf.is_struct(composed)


def cells_of(experiment: str, *arguments: str) -> list[set[str]]:
    """The overrides of each cell that a command makes whose config has the grid of an experiment."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = hydra.compose("sweep", [f"experiment={experiment}"], return_hydra_config=True)
    grid = [f"{key}={values}" for key, values in config.hydra.sweeper.params.items()]
    overrides = OverridesParser.create().parse_overrides(list(arguments))
    return [set(job) for job in jobs_of([*applicable_grid(grid, overrides), *arguments])]


def test_the_default_study_runs_where_no_guidance_is_named() -> None:
    grid = [{f"guidance.scale={scale}", f"negatives={name}"} for scale in (1, 3) for name in ("empty", "own")]
    assert cells_of("default") == grid
    assert cells_of("default", "seed=1") == [{*cell, "seed=1"} for cell in grid]
    bos = cells_of("default", "negatives=bos")
    assert bos == [{f"guidance.scale={scale}", "negatives=bos"} for scale in (1, 3)]


@pytest.mark.parametrize(
    "arguments",
    [
        ["guidance.scale=2"],
        ["guidance.scale=1,2", "negatives=empty,own"],
        ["guidance=union,cfg", "guidance.scale=1,2"],
        ["guidance=interval"],
        ["guidance/schedule=interval"],
        ["guidance.scale=1.5", "seed=1,2"],
    ],
)
def test_a_grid_on_the_command_line_replaces_that_of_the_default_study(arguments: list[str]) -> None:
    assert cells_of("default", *arguments) == [set(job) for job in jobs_of(arguments)]


def test_a_named_experiment_keeps_its_grid() -> None:
    cells = cells_of("rules", "experiment=rules", "guidance.scale=4")
    assert {"experiment=rules", "guidance.scale=4", "negatives=own", "guidance=union"} in cells
    assert len(cells) == 10


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_every_launcher_gives_the_results_of_ours(launcher: str, tmp_path: Path, tiny_folder: Path) -> None:
    grid = ["guidance.scale=1,2", "negatives=own", "report=true"]
    done = shell(*on(tmp_path, tiny_folder, launcher), *grid, *launched_by(launcher))
    assert done.returncode == 0, done.stderr
    assert "2 jobs" in done.stdout
    sweep(*on(tmp_path, tiny_folder, "ours"), *grid)
    theirs, ours = tmp_path / "results" / launcher, tmp_path / "results" / "ours"

    order = ["guidance.scale", "prompt_id", "sample"]
    frames = [cfg_lab.load_results(root).sort_values(order, ignore_index=True) for root in (theirs, ours)]
    same = ["cell", "completion", "text", "finish_reason", "perplexity", "distinct_1", "length", *order]
    pd.testing.assert_frame_equal(frames[0][same], frames[1][same])
    assert len(frames[0]) == 2 * 3 * 2
    # What a launcher shows and writes at the end is about all cells, as with ours.
    summaries = [pd.read_parquet(root / "summary.parquet").sort_values("cell") for root in (theirs, ours)]
    pd.testing.assert_frame_equal(*(summary.reset_index(drop=True) for summary in summaries))
    assert f"{summaries[0]['perplexity'].iloc[0]:.3g}" in done.stdout
    records = [yaml.safe_load((root / "config.yaml").read_text()) for root in (theirs, ours)]
    assert records[0]["cells"] == records[1]["cells"] == [{"guidance.scale": "1"}, {"guidance.scale": "2"}]
    assert f"hydra/launcher={launcher}" in records[0]["command"]
    commands = {json.loads(path.read_text())["command"] for path in theirs.glob("costs/*.json")}
    assert commands == {records[0]["command"]}
    page = (theirs / "report.html").read_text()
    assert all(cell in page for cell in summaries[0]["cell"])
    folders = {path.name for path in theirs.iterdir() if path.is_dir()} - {".submitit"}
    assert folders == {"cells", "completions", "scores", "costs"}


@pytest.mark.parametrize("launcher", LAUNCHERS)
def test_a_failed_job_fails_the_command_with_a_sentence(
    launcher: str, tmp_path: Path, tiny_folder: Path
) -> None:
    """That 250 tokens are too many for the model is found by the job, which loads the model."""
    grid = ["negatives=own", "guidance.scale=2", "max_new_tokens=8,250"]
    failed = shell(*on(tmp_path, tiny_folder), *grid, *launched_by(launcher))
    assert failed.returncode == 2
    (sentence,) = [line for line in failed.stderr.splitlines() if line.startswith("error: ")]
    assert "prompt 'p0'" in sentence
    assert "exceed the 256 tokens that model" in sentence
    assert "Traceback" not in failed.stderr
    # The texts of the other job are kept.
    assert set(cfg_lab.load_results(tmp_path / "results" / "study")["max_new_tokens"]) == {8}


def test_an_unexpected_error_in_a_job_is_shown_with_its_traceback(tmp_path: Path, tiny_folder: Path) -> None:
    """The job runs in another process, from which Python brings back an exception without its traceback."""
    (tmp_path / "broken_rule.py").write_text(
        "from cfg_lab.guidance import ClassifierFreeGuidance\n\n"
        "class BrokenRule(ClassifierFreeGuidance):\n"
        "    def combine(self, *arguments):\n"
        "        raise KeyError('broken on purpose')\n"
    )
    paths = environment().get("PYTHONPATH", "")
    failed = subprocess.run(
        command(
            *on(tmp_path, tiny_folder),
            *launched_by("joblib"),
            "negatives=own",
            "guidance.scale=2",
            "guidance._target_=broken_rule.BrokenRule",
        ),
        capture_output=True,
        text=True,
        env=environment(PYTHONPATH=f"{tmp_path}:{paths}"),
        check=False,
    )
    assert failed.returncode == 1
    assert "KeyError: 'broken on purpose'" in failed.stderr
    assert "broken_rule.py" in failed.stderr
    assert "in the job with the overrides" in failed.stderr


def test_bad_input_is_found_before_any_job_starts(tmp_path: Path, tiny_folder: Path) -> None:
    failed = shell(*on(tmp_path, tiny_folder), *launched_by("basic"), "guidance.scale=1,nan")
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: guidance.scale must be a finite number")
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("override", ["guidance.alpha=-1", "guidance.alpha=1,2", "+guidance.alpha=1"])
def test_a_renamed_key_is_named_before_anything_is_composed(
    tmp_path: Path, tiny_folder: Path, override: str
) -> None:
    failed = shell(*on(tmp_path, tiny_folder), "guidance=preadd", override)
    assert failed.returncode == 2
    assert failed.stderr.startswith("error: the config key guidance.alpha was renamed; use guidance.scale")
    assert len(failed.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_the_key_of_a_modifier_is_no_renamed_key() -> None:
    check_overrides(["guidance/modifiers=[rescale]", "guidance.modifiers.rescale.share=0.5"])

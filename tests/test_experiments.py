"""Every experiment names its command, and every experiment with a config runs."""

from __future__ import annotations

from pathlib import Path

import pytest

import cfg_lab
from cfg_lab.options import CONFIG, option_names
from tests.cli import QUICK, shell

FOLDER = CONFIG.parent / "experiments"


def test_every_experiment_names_its_command() -> None:
    for folder in (path for path in FOLDER.iterdir() if path.is_dir()):
        readme = (folder / "README.md").read_text()
        commands = f"experiments/{folder.name}/", f"experiments.{folder.name}", f"+experiment={folder.name}"
        assert any(command in readme for command in commands), f"{folder}/README.md names no command"
    assert {*option_names("experiment")} <= {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", option_names("experiment"))
def test_an_experiment_runs_at_a_small_size(name: str, tmp_path: Path, tiny_folder: Path) -> None:
    small = [f"model.name={tiny_folder}", "prompts.limit=2", f"results_root={tmp_path}", *QUICK, "samples=1"]
    done = shell(f"+experiment={name}", *small)
    assert done.returncode == 0, done.stderr
    assert len(cfg_lab.load_results(tmp_path / name)) > 2

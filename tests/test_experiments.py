"""Every study has a README in the same form, runs at size smoke, and has tables that its scores give."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from cfg_lab.options import CONFIG, option_names
from experiments.__main__ import commands, names
from experiments.record import EXPERIMENTS, Record
from tests.cli import environment

PARTS = ("# ", "**Question.**", "**Prediction.**", "## Command", "**Verdict.**", "**Against the prediction")


def test_every_experiment_names_its_command() -> None:
    for folder in (path for path in EXPERIMENTS.iterdir() if path.is_dir() and not path.name.startswith("_")):
        readme = (folder / "README.md").read_text()
        runs = f"experiments/{folder.name}/", f"experiments.{folder.name}", f"experiment={folder.name}"
        assert any(command in readme for command in runs), f"{folder}/README.md names no command"
    assert {*option_names("experiment")} <= {path.name for path in EXPERIMENTS.iterdir()}


@pytest.mark.parametrize("name", names())
def test_the_readme_of_a_study_has_all_parts_and_commands(name: str) -> None:
    readme = EXPERIMENTS / name / "README.md"
    text = readme.read_text()
    positions = [text.find(part) for part in PARTS]
    assert -1 not in positions, f"{name} has no {PARTS[positions.index(-1)]}"
    assert positions == sorted(positions)
    for picture in re.findall(r"!\[[^]]*\]\(([^)]+)\)", text):
        assert (readme.parent / picture).is_file()
    modules = [command[2] for command in commands(readme, "cpu")]
    assert modules[-1] == f"experiments.{name}.analyse"


@pytest.mark.parametrize("name", names())
def test_the_tables_of_a_study_follow_from_its_scores(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(EXPERIMENTS / name, folder)
    analyse = importlib.import_module(f"experiments.{name}.analyse")
    analyse.main(Record(folder=folder, results=tmp_path / "no results"))
    assert (folder / "README.md").read_text() == (EXPERIMENTS / name / "README.md").read_text()


@pytest.mark.real
@pytest.mark.parametrize("name", names())
def test_a_study_runs_at_size_smoke(name: str, tmp_path: Path) -> None:
    for command in commands(EXPERIMENTS / name / "README.md", "smoke"):
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment(PYTHONPATH=str(CONFIG.parent)),
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-4000:]}"
    tables = re.findall(r"<!-- table \S+ -->(.*?)<!-- end -->", _record(tmp_path, name), re.S)
    assert tables
    assert all("|" in table for table in tables)


def _record(folder: Path, name: str) -> str:
    return (folder / "results" / "smoke" / name / "record" / "README.md").read_text()

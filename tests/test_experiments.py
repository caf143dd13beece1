"""Every study has a README in the same form, runs at size smoke, and has tables that its scores give."""

from __future__ import annotations

import importlib
import re
import shutil
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from cfg_lab.options import CONFIG, option_names
from experiments.record import EXPERIMENTS, Record
from experiments.run import commands, names
from tests.cli import environment, wait_until

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
    modules = [command[0] for command in commands(readme, "cpu")]
    assert modules[-1] == f"experiments.{name}.analyse"


@pytest.mark.parametrize("name", names())
def test_the_tables_of_a_study_follow_from_its_scores(name: str, tmp_path: Path) -> None:
    folder = tmp_path / name
    shutil.copytree(EXPERIMENTS / name, folder)
    analyse = importlib.import_module(f"experiments.{name}.analyse")
    analyse.main(Record(folder=folder, results=tmp_path / "no results"))
    assert (folder / "README.md").read_text() == (EXPERIMENTS / name / "README.md").read_text()


@pytest.fixture(scope="module")
def smoke(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder in which all studies ran at size smoke, and the output."""
    folder = tmp_path_factory.mktemp("smoke")
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "size=smoke"],
        cwd=folder,
        env=environment(PYTHONPATH=str(CONFIG.parent)),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    return folder, done.stdout


@pytest.mark.real
@pytest.mark.parametrize("name", names())
def test_a_study_runs_at_size_smoke(name: str, smoke: tuple[Path, str]) -> None:
    folder, output = smoke
    assert f"{name}: done" in output, output[-8000:]
    readme = folder / "results" / "smoke" / name / "record" / "README.md"
    tables = re.findall(r"<!-- table \S+ -->(.*?)<!-- end -->", readme.read_text(), re.S)
    assert tables
    assert all("|" in table for table in tables)


@pytest.mark.parametrize("size", ["smoke", "cpu"])
def test_a_study_that_fails_does_not_stop_the_others(size: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "experiments", "first", "second", "third", f"size={size}"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=f"{_fabricated_studies(tmp_path)}"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1].startswith("error: these studies failed: first, third;")
    assert re.search(r"^second: done; \d of 3 studies in 0\.\d minutes$", done.stdout, re.M)
    for reason in (
        "RuntimeError: no such luck",
        "too few texts",
        "first failed with status 1",
        "third failed",
    ):
        assert reason in done.stdout + done.stderr, reason
    assert "after the failure" not in done.stdout


def test_killing_the_command_ends_its_processes(tmp_path: Path) -> None:
    folder = _fabricated_studies(tmp_path)
    analyse = folder / "experiments" / "first" / "analyse.py"
    analyse.write_text(
        "import os, pathlib, time; pathlib.Path('pid').write_text(f'{os.getpid()} '); time.sleep(900)"
    )
    process = subprocess.Popen(
        [sys.executable, "-m", "experiments", "first", "size=smoke"],
        cwd=tmp_path,
        env=environment(PYTHONPATH=f"{folder}"),
    )
    pid = tmp_path / "pid"
    wait_until(lambda: pid.exists() and pid.read_text().endswith(" "), process)
    worker = psutil.Process(int(pid.read_text()))
    process.kill()
    process.wait()
    worker.wait(timeout=300)


def _fabricated_studies(folder: Path) -> Path:
    """A folder to import `experiments` from, with three studies, of which two fail in different ways."""
    experiments = folder / "experiments"
    experiments.mkdir()
    for file in EXPERIMENTS.glob("*.py"):
        shutil.copy(file, experiments)
    codes = {
        "first": "raise RuntimeError('no such luck')",
        "second": "import sys; print(sys.argv[1:]); sys.exit()",
        "third": "raise SystemExit('too few texts')",
    }
    for name, code in codes.items():
        study = experiments / name
        study.mkdir()
        (study / "analyse.py").write_text(code)
        lines = f"python -m experiments.{name}.analyse\npython -m this_is_run after the failure\n"
        lines = lines if name != "second" else lines.splitlines()[0] + "\n"
        (study / "README.md").write_text(f"## Command\n```sh\n{lines}```\n")
    return folder

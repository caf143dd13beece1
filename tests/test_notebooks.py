"""Every notebook runs from top to bottom, on the real model, and is kept without outputs."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

import cfg_lab
from cfg_lab.options import CONFIG
from tests.cli import environment

REPOSITORY = CONFIG.parent
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))


def ran(notebook: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    """A copy of a notebook, run by this interpreter on this checkout; what it writes stays in the folder."""
    copy = folder / "notebooks" / notebook.name
    copy.parent.mkdir()
    copy.write_text(notebook.read_text())
    options = ["-p", "no:cacheprovider", "--nbmake", "--nbmake-timeout=900", "--nbmake-kernel=python3"]
    return subprocess.run(
        [sys.executable, "-m", "pytest", *options, str(copy)],
        cwd=folder,
        env=environment(PYTHONPATH=str(REPOSITORY), TMPDIR=str(folder)),
        capture_output=True,
        text=True,
        check=False,
    )


def checkout() -> dict[Path, str]:
    """What a notebook could leave behind, or change."""
    places = REPOSITORY, REPOSITORY / "notebooks", REPOSITORY / "results"
    found = [path for place in places for path in place.glob("[!.]*")]
    return {path: path.read_text() if path in NOTEBOOKS else "" for path in found}


@pytest.mark.real
@pytest.mark.parametrize("notebook", NOTEBOOKS, ids=lambda path: path.stem)
def test_a_notebook_runs_from_top_to_bottom(notebook: Path, tmp_path: Path) -> None:
    before = checkout()
    done = ran(notebook, tmp_path)
    assert done.returncode == 0, done.stdout
    assert checkout() == before


def test_what_goes_wrong_in_a_notebook_is_said(tmp_path: Path) -> None:
    written = json.loads(NOTEBOOKS[0].read_text())
    first = next(cell for cell in written["cells"] if cell["cell_type"] == "code")
    first["source"] = 'import sys\nimport cfg_lab\n\nraise OSError(f"{sys.executable}: {cfg_lab.__file__}")'
    broken = tmp_path / "broken.ipynb"
    broken.write_text(json.dumps(written))
    done = ran(broken, tmp_path)
    assert done.returncode == 1
    assert f"{sys.executable}: {cfg_lab.__file__}" in done.stdout


def test_notebooks_are_kept_without_outputs() -> None:
    assert NOTEBOOKS
    for path in NOTEBOOKS:
        for cell in json.loads(path.read_text())["cells"]:
            assert not cell.get("outputs"), path
            assert cell.get("execution_count") is None, path

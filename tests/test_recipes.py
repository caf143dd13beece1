"""Each recipe of CONTRIBUTING, followed to the letter in a copy of the repository."""

from __future__ import annotations

import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from cfg_lab.options import CONFIG
from tests.cli import QUICK, environment

REPOSITORY = CONFIG.parent
COPIED = ("cfg_lab", "conf", "hydra_plugins", "tests", "experiments", "CONTRIBUTING.md", "pyproject.toml")


@dataclass(frozen=True)
class Recipe:
    """What a section of CONTRIBUTING tells to do.

    Attributes:
        files: content of each file to write, by its path in the repository.
        commands: command lines to try it with.
    """

    files: dict[str, str]
    commands: tuple[str, ...]


def written_recipes() -> dict[str, Recipe]:
    """The recipes by their headings. A code block is a file if its first line is a comment with a path."""
    text = (REPOSITORY / "CONTRIBUTING.md").read_text()
    chapter = text.split("\n## Recipes\n")[1].split("\n## Ids\n")[0]
    recipes: dict[str, Recipe] = {}
    for section in chapter.split("\n### ")[1:]:
        heading, _, body = section.partition("\n")
        blocks = re.findall(r"^(```+)(\w+)\n(.*?)^\1$", body, re.DOTALL | re.MULTILINE)
        files: dict[str, str] = {}
        commands: list[str] = []
        for _, language, block in blocks:
            first, _, rest = block.partition("\n")
            if language == "sh":
                commands += block.strip().splitlines()
            else:
                path = re.fullmatch(r"(?:# |<!-- )(\S+)(?: -->)?", first)
                assert path, f"{heading}: the first line of a block must name its file, got {first!r}"
                files[path[1]] = rest
        recipes[heading] = Recipe(files, tuple(commands))
    return recipes


RECIPES = written_recipes()


def test_there_is_a_recipe_for_every_kind_of_thing() -> None:
    assert [heading.split(" ", 1)[1] for heading in RECIPES] == [
        "guidance rule",
        "schedule",
        "modifier",
        "negative",
        "metric",
        "prompt set",
        "model option",
        "model source",
        "experiment",
        "launcher",
        "tracker",
    ]


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the repository, with the smallest model at hand."""
    folder = tmp_path_factory.mktemp("repository")
    for name in COPIED:
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
        else:
            shutil.copy(source, folder / name)
    return folder


@pytest.mark.parametrize("heading", RECIPES)
def test_following_a_recipe_is_enough(heading: str, copy: Path, tiny_folder: Path, tmp_path: Path) -> None:
    recipe = RECIPES[heading]
    assert recipe.commands
    new_tests: list[str] = []
    for path, content in recipe.files.items():
        target = copy / path
        assert not target.exists(), f"{path} exists: a recipe adds files and changes none"
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(content)
        if target.name.startswith("test_"):
            new_tests.append(path)
    if new_tests:
        in_copy(copy, [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *new_tests])
    for command in recipe.commands:
        program, *arguments = shlex.split(command.partition("  #")[0])
        assert program == "python"
        if arguments[1] == "experiments":  # `size=smoke` makes it small
            in_copy(copy, [sys.executable, *arguments])
            assert "| 3 |" in (copy / "results/smoke" / arguments[2] / "record/README.md").read_text()
            continue
        small = ["prompts.limit=2", f"results_root={tmp_path}", *SMALL]
        if heading != "A model source":
            small.append(f"model.name={tiny_folder}")
        chosen = {argument.partition("=")[0] for argument in arguments}
        added = [override for override in small if override.partition("=")[0] not in chosen]
        in_copy(copy, [sys.executable, *arguments, *added])
        assert list(tmp_path.glob("*/summary.parquet"))


def test_what_recipes_add_keeps_the_floors(copy: Path) -> None:
    """Runs after the recipes, in the copy that they have written to."""
    added = [path for recipe in RECIPES.values() for path in recipe.files if path.startswith("cfg_lab/")]
    assert all((copy / path).exists() for path in added)
    kept = "imports_point_down or circle or few_entries or one_door or display"
    options = ["-q", "-p", "no:cacheprovider", "-k", kept]
    in_copy(copy, [sys.executable, "-m", "pytest", *options, "tests/test_floors.py"])


SMALL = [override for override in QUICK if not override.startswith("samples")] + ["samples=1"]


def in_copy(copy: Path, command: list[str]) -> None:
    done = subprocess.run(
        command, cwd=copy, env=environment(PYTHONPATH=str(copy)), capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{shlex.join(command)}\n{done.stdout}\n{done.stderr}"

"""The architecture: imports point down only, without circles, and some libraries enter by one door."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "cfg_lab"
HYDRA = [
    "cfg_lab.choose.__main__",
    "cfg_lab.suggest.__main__",
    "cfg_lab.sweep",
    "cfg_lab.benchmark",
    "cfg_lab.learn",
    "cfg_lab.commands",
    "cfg_lab.study.config",
    "hydra_plugins",
]
DOORS = {
    "transformers": ["cfg_lab.models"],
    "wandb": ["cfg_lab.track.wandb_tracker"],
    "tensorboard": ["cfg_lab.track.tensorboard_tracker"],
    "torch.utils.tensorboard": ["cfg_lab.track.tensorboard_tracker"],
    "hydra": [*HYDRA, "cfg_lab.study.build"],
    "omegaconf": [
        *HYDRA,
        "cfg_lab.study.build",
        "cfg_lab.tasks.benchmark",
        "cfg_lab.choose.run",
        "cfg_lab.learning",
        "cfg_lab.suggest.cells",
        "cfg_lab.suggest.run",
    ],
    "evaluate": ["cfg_lab.metrics"],
    "datasets": ["cfg_lab.prompts", "cfg_lab.tasks.load", "cfg_lab.export.write", "cfg_lab.learning.tuning"],
    "lm_eval": ["cfg_lab.integrations", "cfg_lab.tasks.load"],
    "optuna": ["cfg_lab.search.proposals", "cfg_lab.suggest.subsets"],
    "peft": ["cfg_lab.learning.lora"],
    "trl": ["cfg_lab.learning.tuning"],
    "matplotlib": ["cfg_lab.analysis", "cfg_lab.track"],
}
"""Libraries, and the only modules that may import them."""


def module_name(path: Path) -> str:
    return ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")


FILES = {
    module_name(path): path
    for folder in ("cfg_lab", "hydra_plugins")
    for path in (ROOT / folder).rglob("*.py")
}


def imports(path: Path) -> set[str]:
    """Every module that a file imports: also inside functions, also for type checking only."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            for alias in node.names:
                submodule = f"{node.module}.{alias.name}"
                found.add(submodule if submodule in FILES else node.module)
    return found


IMPORTS = {name: imports(path) for name, path in FILES.items()}


def written_floors() -> list[list[str]]:
    """The list of floors in CONTRIBUTING, the highest first: modules and packages without "cfg_lab."."""
    (block,) = re.findall(r"## Floors\n.*?\n```\n(.*?)```", (ROOT / "CONTRIBUTING.md").read_text(), re.DOTALL)
    floors = [line.partition("  # ")[0].split() for line in block.splitlines()]
    return [[name.rstrip("/").removesuffix(".py").replace("/", ".") for name in floor] for floor in floors]


def room(module: str, rooms: dict[str, int]) -> str | None:
    """The entry of the list that a module belongs to: the longest that fits."""
    short = module.removeprefix("cfg_lab.")
    parts = short.split(".")
    fits = [".".join(parts[:count]) for count in range(len(parts), 0, -1)]
    return next((name for name in fits if name in rooms), None)


def test_imports_point_down() -> None:
    floors = written_floors()
    height = {name: -number for number, names in enumerate(floors) for name in names}
    for module, imported in IMPORTS.items():
        if module == "cfg_lab":  # the door to all rooms
            continue
        here = room(module, height)
        assert here is not None, f"{module} is on no floor in CONTRIBUTING.md"
        for other in imported & FILES.keys():
            there = room(other, height)
            assert there is not None, f"{module} imports {other}"
            assert here == there or height[there] < height[here], f"{module} imports {other}, not below it"


def test_no_import_circle() -> None:
    state: dict[str, str] = defaultdict(lambda: "new")

    def visit(module: str, path: list[str]) -> None:
        assert state[module] != "open", f"circle: {' -> '.join([*path[path.index(module) :], module])}"
        if state[module] == "new":
            state[module] = "open"
            for other in sorted(IMPORTS[module] & FILES.keys()):
                visit(other, [*path, module])
            state[module] = "done"

    for module in FILES:
        visit(module, [])


def test_the_package_has_few_entries() -> None:
    """A reader finds every part at a glance. Each command of a user is an entry of its own."""
    entries = {path.name for path in PACKAGE.iterdir()} - {"__init__.py", "__pycache__", "conf"}
    assert len(entries) <= 30, sorted(entries)


def test_values_do_not_import_their_display() -> None:
    """Nothing that the decoder, the rules, prompts, negatives, models or metrics import makes HTML."""
    for module, imported in IMPORTS.items():
        if module.split(".")[1:2] in (
            ["decoding"],
            ["guidance"],
            ["prompts"],
            ["negatives"],
            ["models"],
            ["metrics"],
        ):
            assert not imported & {"html", "rich", "matplotlib"}, module
            assert "_repr_html_" not in FILES[module].read_text(), module


def test_libraries_enter_by_one_door() -> None:
    for module, imported in IMPORTS.items():
        for library, doors in DOORS.items():
            if any(f"{name}.".startswith(f"{library}.") for name in imported):
                assert any(f"{module}.".startswith(f"{door}.") for door in doors), (
                    f"{module} imports {library}"
                )


def test_importing_the_package_is_cheap_and_every_name_is_there() -> None:
    code = (
        "import sys, time; begin = time.process_time(); import cfg_lab; took = time.process_time() - begin;"
        "heavy = {'torch', 'transformers', 'pandas', 'numpy', 'hydra'} & set(sys.modules);"
        "assert not heavy, heavy; assert took < 0.2, took;"
        "assert {*cfg_lab.__all__} <= {*dir(cfg_lab)}; [getattr(cfg_lab, name) for name in cfg_lab.__all__]"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.parametrize(
    ("name", "kept_out"),
    [
        ("analysis.summary", ("torch", "matplotlib")),
        ("token_html", ("torch", "pandas")),
        ("load_results", ("torch", "matplotlib")),
        ("guidance.UnionGuidance", ("transformers", "pandas")),
        ("InputError", ("torch", "pandas")),
    ],
)
def test_a_name_brings_only_what_it_needs(name: str, kept_out: tuple[str, ...]) -> None:
    code = f"import sys, cfg_lab; cfg_lab.{name}; assert not {set(kept_out)} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The architecture: imports point down only, and some libraries enter by one door."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "cfg_lab"
FLOORS = [
    {
        "records",
        "costs",
        "paths",
        "guidance",
        "sampling",
        "stats",
        "resampling",
        "formats",
        "inline",
        "console",
    },
    {"decoding"},
    {"models", "prompts", "negatives", "metrics", "store", "tracking", "progress", "analysis"},
    {"planning", "harness", "generation", "results", "scoring", "page", "mirror"},
    {"sweep", "score", "report", "track"},
]
DOORS = {
    "transformers": {"models"},
    "wandb": {"tracking"},
    "hydra": {"sweep"},
    "evaluate": {"metrics"},
}
# Within a floor: harness runs what planning plans and has it scored; a tracker is shown what the page shows;
# score and track say things as sweep does; within floor 0 values build on each other.
NEIGHBOURS = {
    *(("harness", "planning"), ("harness", "scoring"), ("mirror", "page"), ("mirror", "results")),
    *(("score", "sweep"), ("sweep", "report"), ("track", "sweep"), ("track", "report")),
}


def unit(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path) -> set[str]:
    """Every module a file imports, also inside functions, but not for type checking only."""
    tree = ast.parse(path.read_text())
    found: set[str] = set()
    typing_only = {
        node
        for block in ast.walk(tree)
        if isinstance(block, ast.If) and isinstance(block.test, ast.Name) and block.test.id == "TYPE_CHECKING"
        for node in ast.walk(block)
    }
    for node in ast.walk(tree):
        if node in typing_only:
            continue
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
            if node.module == "cfg_lab":
                found |= {f"cfg_lab.{alias.name}" for alias in node.names}
    return found


FILES = [path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py"]


def test_every_module_has_a_floor() -> None:
    assert {unit(path) for path in FILES} == set().union(*FLOORS)


def test_imports_point_down() -> None:
    floor = {name: number for number, names in enumerate(FLOORS) for name in names}
    for path in FILES:
        here = unit(path)
        for module in imports(path):
            if not module.startswith("cfg_lab.") or (there := module.split(".")[1]) == here:
                continue
            down = floor[there] < floor[here] or floor[here] == 0 == floor[there]
            assert down or (here, there) in NEIGHBOURS, f"{path.name} (floor {floor[here]}) imports {module}"


def test_libraries_enter_by_one_door() -> None:
    for path in FILES:
        for library, doors in DOORS.items():
            if any(module.split(".")[0] == library for module in imports(path)):
                assert unit(path) in doors, f"{path} imports {library}"


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
        ("inline.token_html", ("torch", "pandas")),
        ("load_results", ("torch", "matplotlib")),
        ("guidance.UnionGuidance", ("transformers", "pandas")),
        ("InputError", ("torch", "pandas")),
    ],
)
def test_a_name_brings_only_what_it_needs(name: str, kept_out: tuple[str, ...]) -> None:
    code = f"import sys, cfg_lab; cfg_lab.{name}; assert not {set(kept_out)} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)

"""The folder of Hydra configs, and the names of its options."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

CONFIG = next(
    (folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir()), _PACKAGE
)
"""The folder of Hydra configs: inside the package when installed, beside the package in a checkout."""


def option_names(group: str) -> list[str]:
    """The options of a config group, as a user writes them: ["empty", "own", …] for "negatives"."""
    folder = CONFIG / group
    # A folder inside a group is another group. Only in `model` it is the first half of a hub id.
    paths = folder.rglob("*.yaml") if group == "model" else folder.glob("*.yaml")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in paths)

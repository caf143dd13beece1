"""The Hydra config folder, and the names of the options in it."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

CONFIG = next(
    (folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir()), _PACKAGE
)
"""The Hydra configs: inside an installed package, beside it in a checkout."""


def option_names(group: str) -> list[str]:
    """Names of the options of a config group, as a user writes them."""
    folder = CONFIG / group
    # A folder in a group is a group of its own; in `model` it is the first half of a hub id.
    paths = folder.rglob("*.yaml") if group == "model" else folder.glob("*.yaml")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in paths)

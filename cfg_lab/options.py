"""The folder of Hydra configs, and the names of its options."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).resolve().parent

CONFIG = next(
    (folder for folder in (_PACKAGE / "conf", _PACKAGE.parent / "conf") if folder.is_dir()), _PACKAGE
)
"""The folder of Hydra configs: inside the package when installed, beside the package in a git checkout."""


def option_names(group: str) -> list[str]:
    """The options of a config group, as a user writes them: ["empty", "own", …] for "negatives".

    A config group is a folder in conf. Each YAML file in the folder is one option.
    """
    folder = CONFIG / group
    # A folder inside a group is usually another group. In `model` it is the first half of a model's hub id.
    paths = folder.rglob("*.yaml") if group == "model" else folder.glob("*.yaml")
    return sorted(str(path.relative_to(folder).with_suffix("")) for path in paths)


RENAMED_KEYS: dict[str, str] = {
    "guidance.alpha": "guidance.scale (1 + alpha; for guidance=preadd 1 - alpha)",
    "guidance.agree_below": "guidance/stopping=on_agreement guidance.stopping.threshold",
    "guidance.agree_steps": "guidance/stopping=on_agreement guidance.stopping.steps",
    "guidance.modifiers.zero_star": "guidance/modifiers=[zero_star]",
    "guidance.modifiers.norm_bound": "guidance/modifiers=[apg] guidance.modifiers.apg.norm_bound",
    "guidance.modifiers.projection": "guidance/modifiers=[apg] guidance.modifiers.apg.parallel",
    "guidance.modifiers.rescale": "guidance/modifiers=[rescale] guidance.modifiers.rescale.share",
    "guidance.modifiers.plausibility": (
        "guidance/modifiers=[plausible] guidance.modifiers.plausible.threshold"
    ),
}
"""Config key of an earlier version -> the keys and options that replace the old key."""

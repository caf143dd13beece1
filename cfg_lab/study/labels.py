"""Labels of cells: the settings in which a cell differs from other cells, as tables show them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pandas as pd
import yaml

from cfg_lab.analysis.frame import value_label, varying


def labels_of_overrides(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """The label of each cell of a sweep: its overrides that differ between cells, {"guidance.scale": "2"}.

    Args:
        overrides: for each cell, its overrides in the form "key=value".
    """
    parsed = [
        dict(override.lstrip("+~").split("=", 1) for override in cell_overrides if "=" in override)
        for cell_overrides in overrides
    ]
    varying = [key for key in parsed[0] if len({values.get(key) for values in parsed}) > 1]
    return [{key: values[key] for key in varying if key in values} for values in parsed]


def labels_of_summary(summary: pd.DataFrame, config_file: str | None) -> list[Mapping[str, str]]:
    """The label of each row of a summary: the values of the settings that the folder's last sweep varied.

    If two cells would have the same label, all settings that differ between cells are used instead.

    Args:
        summary: one row per cell, with its settings.
        config_file: content of the folder's config.yaml, None if the folder has no such file.
    """
    last_labels: list[dict[str, Any]] = yaml.safe_load(config_file)["cells"] if config_file else []
    keys = [key for key in dict.fromkeys(key for label in last_labels for key in label) if key in summary]
    if not keys or summary[keys].astype(str).duplicated().any():
        keys = varying(summary)
    return [{key: value_label(row[key]) for key in keys} for _, row in summary.iterrows()]

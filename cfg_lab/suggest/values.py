"""Reading the values of cells: in one order of prompts and samples, so that they can be compared in pairs."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from cfg_lab.analysis.stats.clustered_means import Floats


def values_by_cell(
    frame: pd.DataFrame, cells: Sequence[str], column: str = "reward"
) -> tuple[dict[str, Floats], list[str]]:
    """A column of some cells in one order of prompts and samples.

    Returns:
        Cell -> values [texts], NaN for missing texts; and the prompt of each text.
    """
    table = frame.drop_duplicates(["cell", "prompt_id", "sample"]).pivot(
        index=["prompt_id", "prompt", "sample"], columns="cell", values=column
    )
    prompts = [str(prompt) for prompt in table.index.get_level_values("prompt")]
    return {cell: np.asarray(table[cell], np.float64) for cell in dict.fromkeys(cells)}, prompts


def text_count(frames: Sequence[pd.DataFrame]) -> tuple[int, int]:
    """The number of different texts in some frames, and of their tokens."""
    every = pd.concat([frame[["completion", "tokens"]] for frame in frames]).drop_duplicates("completion")
    return len(every), int(every["tokens"].map(len).sum())

"""The state of a training on disk: it is written after every update, so that a killed training loses one."""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import pandas as pd
import pyarrow as pa
import torch

from cfg_lab.errors import InputError, StoreError
from cfg_lab.learning.policy_network import PolicyNetwork
from cfg_lab.study.parquet_files import write_file


@dataclass(kw_only=True, eq=False)
class TrainingState:
    """What changes during a training. All draws are functions of the seed and of the number of updates.

    Attributes:
        network: the network.
        optimizer: its optimizer.
        began: when the training began, in seconds since 1970.
        seconds: how long the updates took.
        history: the numbers of each update so far, as name -> number.
    """

    network: PolicyNetwork
    optimizer: torch.optim.Adam
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    history: list[dict[str, float]] = field(default_factory=list[dict[str, float]])

    def write(self, folder: Path, identity: str) -> None:
        """Write the state to checkpoint.pt, and the history also to updates.parquet.

        Args:
            folder: the results folder.
            identity: everything that the training depends on, as text.
        """
        content = io.BytesIO()
        state = {
            "identity": identity,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "began": self.began,
            "seconds": self.seconds,
            "history": self.history,
        }
        torch.save(state, content)
        write_file(folder / "checkpoint.pt", content.getvalue())
        table = pa.Table.from_pandas(pd.DataFrame(self.history), preserve_index=False)
        write_file(folder / "updates.parquet", table)

    def read(self, folder: Path, identity: str) -> bool:
        """Go on with the state in a folder. Return False if there is none.

        Raises:
            InputError: the folder has the state of another training.
            StoreError: the file is damaged.
        """
        path = folder / "checkpoint.pt"
        if not path.exists():
            return False
        try:
            state = cast("dict[str, Any]", torch.load(path, weights_only=True))
            stored = state["identity"]
            if stored == identity:
                self.network.load_state_dict(state["network"])
                self.optimizer.load_state_dict(state["optimizer"])
                self.began, self.seconds = state["began"], state["seconds"]
                self.history = list(state["history"])
        except Exception as error:  # torch raises many kinds for a damaged file
            raise StoreError(f"{path} is damaged ({error}); delete it to train from the beginning") from error
        if stored != identity:
            raise InputError(
                f"name={folder.name!r}: {folder} holds a policy that was trained with other settings; choose "
                "another name, or delete the folder"
            )
        return True

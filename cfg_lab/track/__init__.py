"""Trackers: services that results are logged to. Only this package uses the libraries of these services."""

from cfg_lab.track.tensorboard_tracker import TensorBoardTracker
from cfg_lab.track.tracker import CellResult, NoProgress, NoTracker, ProgressLog, StudyResult, Tracker
from cfg_lab.track.wandb_tracker import WandbTracker

__all__ = [
    "CellResult",
    "NoProgress",
    "NoTracker",
    "ProgressLog",
    "StudyResult",
    "TensorBoardTracker",
    "Tracker",
    "WandbTracker",
]

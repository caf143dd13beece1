"""Trackers: results are mirrored to where they are compared with others. Only this package knows wandb."""

from cfg_lab.track.tracker import CellResult, NoTracker, StudyResult, Tracker
from cfg_lab.track.wandb_tracker import WandbTracker

__all__ = ["CellResult", "NoTracker", "StudyResult", "Tracker", "WandbTracker"]

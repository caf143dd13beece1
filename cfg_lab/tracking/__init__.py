"""Mirroring results to where they are compared with others. The only place that knows wandb."""

from cfg_lab.tracking.tracker import CellResult, NoTracker, StudyResult, Tracker, TrackingError
from cfg_lab.tracking.wandb_tracker import WandbTracker

__all__ = ["CellResult", "NoTracker", "StudyResult", "Tracker", "TrackingError", "WandbTracker"]

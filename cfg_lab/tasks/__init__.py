"""Benchmark tasks: questions with possible answers, of which a model chooses one by likelihood."""

from cfg_lab.tasks.item import Item, TaskOptions

__all__ = ["Item", "TaskOptions"]

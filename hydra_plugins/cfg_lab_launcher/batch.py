"""A Hydra launcher that runs all points of a sweep as one study, and a sweeper that hands it all of them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig


class BatchLauncher(Launcher):
    """Composes every job of the sweep before any is run, and runs them together."""

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        from cfg_lab.sweep import run_or_exit  # torch and all: not for --help

        configs = self._compose(job_overrides)
        rows = run_or_exit(configs, job_overrides)
        return [
            JobReturn(overrides=overrides, cfg=config, _return_value=row, status=JobStatus.COMPLETED)
            for overrides, config, row in zip(job_overrides, configs, rows, strict=True)
        ]


class GridSweeper(BasicSweeper):
    """Hydra's own grid, in one piece, and without writing or composing anything before the launcher does."""

    def sweep(self, arguments: list[str]) -> Any:
        assert self.launcher is not None
        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides([*self._parse_config(), *arguments])
        (jobs,) = self.split_arguments(overrides, max_batch_size=None)
        return [self.launcher.launch(jobs, initial_job_idx=0)]


_HERE = "hydra_plugins.cfg_lab_launcher.batch"
_store = ConfigStore.instance().store
_store(group="hydra/launcher", name="batch", node={"_target_": f"{_HERE}.BatchLauncher"}, provider="cfg_lab")
_store(
    group="hydra/sweeper",
    name="grid",
    node={"_target_": f"{_HERE}.GridSweeper", "max_batch_size": None, "params": {}},
    provider="cfg_lab",
)

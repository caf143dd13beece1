"""Hydra's launchers `slurm` and `local`: they decode a sweep on many workers. See `cfg_lab.workers`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from hydra.core.utils import JobReturn

from hydra_plugins.cfg_lab_launcher.batch import BatchLauncher, compose

# Modules that need torch are imported inside functions, so that `--help` is fast.


class WorkersLauncher(BatchLauncher):
    """Decodes all cells of a sweep on the workers of an engine.

    Args:
        retries: how often a failed shard is submitted again.
        wait: whether to wait for the results.
        settings: arguments of the engine.
    """

    def __init__(self, *, retries: int, wait: bool, **settings: Any) -> None:
        super().__init__()
        self.retries, self.wait, self.settings = retries, wait, settings

    def engine(self) -> Any:
        """The engine that runs the jobs.

        Raises:
            InputError: a setting is wrong.
        """
        raise NotImplementedError

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the whole sweep. The results are in the results folder, not in what this function returns."""
        from cfg_lab.study.console import errors_in_a_sentence
        from cfg_lab.sweep import run_on_workers_or_exit
        from cfg_lab.workers.engine import check_launcher_count

        with errors_in_a_sentence():
            check_launcher_count("retries", self.retries, 0)
            engine = self.engine()
            configs = compose(self.loader, self.config, job_overrides)
        run_on_workers_or_exit(configs, job_overrides, engine, retries=self.retries, wait=self.wait)
        return []


class SlurmLauncher(WorkersLauncher):
    """Decodes a sweep on a Slurm cluster. The other settings are arguments of `SlurmEngine`."""

    def engine(self) -> Any:
        """See `WorkersLauncher.engine`."""
        from cfg_lab.workers.slurm import SlurmEngine

        return SlurmEngine(**self.settings)


class LocalLauncher(WorkersLauncher):
    """Decodes a sweep with processes of this machine. The other settings are arguments of `LocalEngine`."""

    def engine(self) -> Any:
        """See `WorkersLauncher.engine`."""
        from cfg_lab.workers.local import LocalEngine

        return LocalEngine(**self.settings)

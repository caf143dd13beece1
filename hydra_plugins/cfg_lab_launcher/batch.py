"""A sweeper that expands the grid of a sweep, and a launcher that runs all cells as one batch."""

from __future__ import annotations

import pickle
import re
from collections.abc import Collection, Sequence
from functools import partial
from typing import Any

from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.config_loader import ConfigLoader
from hydra.core.config_store import ConfigStore
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override, OverrideType
from hydra.core.utils import JobReturn, JobStatus
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from hydra.utils import get_method
from omegaconf import DictConfig, OmegaConf, open_dict

# Modules that need torch are imported inside functions, so that `--help` is fast.


class BatchLauncher(Launcher):
    """Runs all cells of a sweep together in this process.

    Args:
        run: dotted path of the function that runs the cells. It is given their configs and overrides, and
            returns one result per config.
    """

    def __init__(self, run: str = "cfg_lab.sweep.run_or_exit") -> None:
        self.run = run

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Store the sweep's config and its loader for `launch`. Hydra calls this once, before `launch`."""
        self.loader, self.config = hydra_context.config_loader, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run the whole sweep. The return value of each job is what `run` returns for the job."""
        from cfg_lab.study.console import errors_in_a_sentence

        with errors_in_a_sentence():
            configs = compose(self.loader, self.config, job_overrides)
        results: Sequence[Any] = get_method(self.run)(configs, job_overrides)
        return [
            JobReturn(overrides=overrides, cfg=config, _return_value=result, status=JobStatus.COMPLETED)
            for overrides, config, result in zip(job_overrides, configs, results, strict=True)
        ]


class GridSweeper(BasicSweeper):
    """Expands the values on the command line to a grid, and gives the launcher all cells of the grid at once.

    Hydra's own sweeper writes files and composes every config before it launches. This sweeper does neither.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Create the launcher. Hydra calls this once, before `sweep`.

        The launcher's jobs run `run_job`, which decodes and scores one cell. `task_function`, the function
        that Hydra passes, is not used: it would write the page and log to the tracker once per cell, instead
        of once per sweep.
        """
        from cfg_lab.study.provenance import command_line
        from cfg_lab.sweep import run_job

        job = partial(run_job, command=command_line())
        super().setup(hydra_context=hydra_context, task_function=job, config=config)

    def sweep(self, arguments: list[str]) -> Any:
        """Run the sweep that command-line overrides describe. If a job fails, the command ends."""
        assert self.launcher is not None
        assert self.hydra_context is not None
        assert self.config is not None
        from cfg_lab.errors import InputError
        from cfg_lab.study.console import errors_in_a_sentence

        loader = self.hydra_context.config_loader
        parser = OverridesParser.create(config_loader=loader)
        with errors_in_a_sentence():
            check_grid(parser.parse_overrides([*self._parse_config(), *arguments]))
        jobs = self._jobs(arguments, parser)
        if type(self.launcher) is BatchLauncher:
            return self.launcher.launch(jobs, initial_job_idx=0)

        from cfg_lab.sweep import run_in_jobs_or_exit

        with errors_in_a_sentence():
            if self.config.hydra.job.config_name != "sweep":
                raise InputError(
                    f"hydra/launcher={self.config.hydra.runtime.choices['hydra/launcher']} runs a sweep in "
                    "several jobs, but a benchmark evaluates all guidance rules together; leave "
                    "hydra/launcher unset and submit the whole command as one job"
                )
        if isinstance(self.launcher, BatchLauncher):
            return self.launcher.launch(jobs, initial_job_idx=0)
        with errors_in_a_sentence():
            configs = compose(loader, self.config, jobs)
        return run_in_jobs_or_exit(configs, jobs, partial(_launch, self.launcher, jobs))

    def _jobs(self, arguments: list[str], parser: OverridesParser) -> list[list[str]]:
        """The overrides of each cell. They come from the experiment's grid and from the command line."""
        overrides = parser.parse_overrides(arguments)
        grid = parser.parse_overrides(applicable_grid(self._parse_config(), overrides))
        (jobs,) = self.split_arguments([*grid, *overrides], max_batch_size=None)
        return jobs


def check_grid(overrides: Sequence[Override]) -> None:
    """Raise InputError if an override is an interval, which has no values that a grid could take."""
    from cfg_lab.errors import InputError

    for override in overrides:
        if override.is_interval_sweep():
            raise InputError(
                f"{override.input_line!r} is an interval, which a grid cannot try out; add "
                "hydra/sweeper=optuna to search it, or list values, such as 1,2,3 or range(1,4)"
            )


def applicable_grid(grid: Sequence[str], overrides: Sequence[Override]) -> list[str]:
    """The lines of an experiment's grid that apply beside the overrides of a command line.

    - If the command line sets the same key, its override replaces the line: it comes later.
    - The scales of a grid suit its guidance rules only. If the command line chooses another rule, the scales
      are those of the command line, or else the default scale of that rule.
    - If the command line names no experiment, the grid is that of the default study. No line of it applies if
      the command line sets a guidance rule or one of its values: `guidance.scale=2` makes one cell.

    Args:
        grid: lines such as "guidance.scale=1,3".
        overrides: of the command line.
    """
    keys = {override.key_or_group for override in overrides}
    groups = {re.split("[./]", key)[0] for key in keys}
    if "guidance" in groups and "experiment" not in groups:
        return []
    return [line for line in grid if line.split(".")[0] not in keys]


def _launch(launcher: Launcher, jobs: Sequence[Sequence[str]]) -> None:
    """Run all jobs. If a job has failed, raise the exception of the first job that failed."""
    for job in launcher.launch(jobs, initial_job_idx=0):
        # `job.return_value` would also raise the exception, but print an additional line first.
        result: Any = job._return_value  # pyright: ignore[reportPrivateUsage]
        if isinstance(result, Exception):
            result.add_note(f"in the job with the overrides {' '.join(job.overrides or [])}")
            raise result


def compose(loader: ConfigLoader, config: DictConfig, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
    """Compose the config of each job.

    Hydra takes about 60 ms to compose one config. Jobs that differ only in plain values share this work: only
    the config of the first of these jobs is composed. For each other job, this config is copied, and the
    job's values are set in the copy. Copies are made by pickle, which is 8 times as fast as deepcopy.

    Args:
        loader: Hydra's config loader.
        config: the config of the sweep.
        jobs: for each job, its overrides.

    Raises:
        InputError: an override names a key or an option that does not exist.
    """
    from cfg_lab.study.config import composition_errors_in_a_sentence

    parser = OverridesParser.create(config_loader=loader)
    lines = sorted({line for job in jobs for line in job})
    overrides = dict(zip(lines, parser.parse_overrides(lines), strict=True))
    groups: Collection[str] = config.hydra.runtime.choices
    plain = {
        line: override for line, override in overrides.items() if _sets_plain_value(override, groups, config)
    }
    composed: dict[tuple[str, ...], bytes] = {}
    configs: list[DictConfig] = []
    with composition_errors_in_a_sentence():
        for number, job in enumerate(jobs):
            kind = tuple(plain[line].key_or_group if line in plain else line for line in job)
            if kind not in composed:
                composed[kind] = pickle.dumps(loader.load_sweep_config(config, list(job)))
            job_config: DictConfig = pickle.loads(composed[kind])
            for override in (plain[line] for line in job if line in plain):
                OmegaConf.update(job_config, override.key_or_group, override.value(), merge=True)
            with open_dict(job_config):
                job_config.hydra.job.id = job_config.hydra.job.num = number
                job_config.hydra.overrides.task = list(job)
            configs.append(job_config)
    return configs


def _sets_plain_value(override: Override, groups: Collection[str], config: DictConfig) -> bool:
    """Whether an override only sets an existing key to a plain value, such as "guidance.scale=2".

    A plain value is not a list, a mapping or the name of an option.
    """
    return (
        override.type == OverrideType.CHANGE
        and override.package is None
        and override.key_or_group not in groups
        # Groups of which several options can be chosen are not among Hydra's choices.
        and "/" not in override.key_or_group
        and not OmegaConf.is_config(OmegaConf.select(config, override.key_or_group))
        and not isinstance(override.value(), dict | list)
    )


_MODULE = "hydra_plugins.cfg_lab_launcher.batch"
_store = ConfigStore.instance().store
for _name, _command in (("batch", "sweep"), ("benchmark", "benchmark")):
    _store(
        group="hydra/launcher",
        name=_name,
        node={"_target_": f"{_MODULE}.BatchLauncher", "run": f"cfg_lab.{_command}.run_or_exit"},
        provider="cfg_lab",
    )
_store(
    group="hydra/sweeper",
    name="grid",
    node={"_target_": f"{_MODULE}.GridSweeper", "max_batch_size": None, "params": {}},
    provider="cfg_lab",
)

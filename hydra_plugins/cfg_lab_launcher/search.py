"""Hydra's sweeper `optuna`: it searches a space of settings instead of trying every combination.

    python -m cfg_lab.sweep hydra/sweeper=optuna 'guidance.scale=interval(1,5)' guidance=cfg,union,apg \
        negatives=own,empty 'objective=[+sentiment,-perplexity]' trials=40

See `cfg_lab.search` for everything that does not need Hydra.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from itertools import chain, islice, product
from typing import TYPE_CHECKING, Any, cast

from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import DictConfig, OmegaConf, open_dict

from hydra_plugins.cfg_lab_launcher.batch import BatchLauncher, GridSweeper, applicable_grid, compose

# Modules that need torch or Optuna are imported inside functions, so that `--help` is fast.

if TYPE_CHECKING:
    from cfg_lab.search.definition import Search
    from cfg_lab.search.objectives import Objectives
    from cfg_lab.search.proposals import SearchSettings
    from cfg_lab.search.space import Parameter
    from cfg_lab.study.cell import Study
    from hydra_plugins.cfg_lab_launcher.workers import WorkersLauncher

_MOST_CHECKED = 64
"""Largest number of combinations of options that are composed before a search begins."""


class OptunaSweeper(GridSweeper):
    """Searches the space of the command line.

    Args:
        sampler, seed, batch, startup: see `cfg_lab.search.proposals.SearchSettings`.
        finalists, default: see `cfg_lab.search.definition.Search`.
        params: the grid of an experiment. It belongs to the space if the command line names the experiment.
    """

    def __init__(
        self,
        *,
        sampler: Any,
        seed: Any,
        batch: Any,
        startup: Any,
        finalists: Any,
        default: Any,
        params: dict[str, str] | None = None,
        max_batch_size: None = None,
    ) -> None:
        super().__init__(max_batch_size, params)
        self.settings = {"sampler": sampler, "seed": seed, "batch": batch, "startup": startup}
        self.finalists, self.default = finalists, default

    def sweep(self, arguments: list[str]) -> Any:
        """Run the search that command-line overrides describe."""
        from cfg_lab.study.console import errors_in_a_sentence

        with errors_in_a_sentence():
            return self._search(arguments)

    def _search(self, arguments: list[str]) -> list[dict[str, Any]]:
        from cfg_lab.commands import command_console, show_results
        from cfg_lab.report.search_table import search_table, search_verdict
        from cfg_lab.search.definition import check_space, identity_of
        from cfg_lab.search.proposals import check_whole
        from cfg_lab.search.run import run_search
        from cfg_lab.study.config import build
        from cfg_lab.study.formats import count
        from cfg_lab.study.scoring import main_columns

        self._check_launcher()
        console = command_console()
        space, fixed = self._space(arguments)
        settings, default = self._checked_settings()
        check_whole("trials", self._config.trials, 1)
        objective: Any = self._config.objective
        if OmegaConf.is_config(objective):
            objective = OmegaConf.to_container(objective, resolve=True)
        draft = self._problem(space, fixed, settings, default, None)
        check_space(draft)
        first = self._checked_study(draft)
        objectives = self._objectives(objective, first)
        search = self._problem(space, fixed, settings, default, objectives)
        tracker = build(self._configs([self._first_job(draft)])[0], "tracking")
        console.print(f"[bold]{first.name}[/]: a search of {count(search.trials, 'trial')}", highlight=False)
        search_id = identity_of(search.problem, self._study([self._first_job(draft)]))
        result, jobs = run_search(search, search_id, first.store, console)
        held_out = self._study(list({tuple(job): job for job in jobs}.values()))
        rows = show_results(
            held_out, main_columns(held_out.metrics), tracker, console, page=bool(self._config.report)
        )
        console.print(search_table(result, console.width))
        for line in search_verdict(result):
            console.print(line, markup=False, highlight=False, soft_wrap=True)
        return rows

    @property
    def _config(self) -> DictConfig:
        assert self.config is not None
        return self.config

    def _check_launcher(self) -> None:
        """Raise InputError if the launcher or the command cannot run a search."""
        from cfg_lab.errors import InputError

        if self._config.hydra.job.config_name != "sweep":
            raise InputError(
                "hydra/sweeper=optuna is for cfg_lab.sweep; a benchmark evaluates a whole grid at once"
            )
        if type(self.launcher) is BatchLauncher:
            return
        name = self._config.hydra.runtime.choices["hydra/launcher"]
        if self._workers is None:
            raise InputError(
                f"hydra/launcher={name} runs whole cells as jobs, but a search decodes batches; use "
                "hydra/launcher=slurm or local, or leave hydra/launcher unset"
            )
        if not self._workers.wait:
            raise InputError(
                "hydra.launcher.wait is false, but a search waits for each batch before it proposes the "
                "next; leave hydra.launcher.wait=true"
            )

    def _space(self, arguments: list[str]) -> tuple[tuple[Parameter, ...], tuple[str, ...]]:
        """The parameters of the search, and the overrides that all trials share."""
        from cfg_lab.errors import InputError
        from hydra_plugins.cfg_lab_launcher.search_space import read_space

        assert self.hydra_context is not None
        parser = OverridesParser.create(config_loader=self.hydra_context.config_loader)
        overrides = parser.parse_overrides(arguments)
        names_experiment = any(override.key_or_group == "experiment" for override in overrides)
        lines = applicable_grid(self._parse_config(), overrides) if names_experiment else []
        for override in overrides:
            if override.key_or_group == "prompts.half":
                raise InputError(
                    f"{override.input_line!r} cannot be set, because a search chooses on the half selection "
                    "and reports on the half held_out; leave prompts.half out"
                )
        return read_space([*parser.parse_overrides(lines), *overrides])

    def _checked_settings(self) -> tuple[SearchSettings, tuple[str, ...]]:
        from cfg_lab.errors import InputError
        from cfg_lab.search.proposals import SearchSettings, check_whole

        check_whole("hydra.sweeper.finalists", self.finalists, 1)
        lines: Any = [] if self.default is None else self.default
        if (
            not isinstance(lines, Sequence)
            or isinstance(lines, str)
            or not all(map(_is_setting, cast("Any", lines)))
        ):
            raise InputError(
                "hydra.sweeper.default must be a list of overrides of guidance and negatives, such as "
                f'["guidance.scale=3","negatives=own"], got {cast("Any", lines)!r}'
            )
        return SearchSettings(**self.settings), tuple(cast("Sequence[str]", lines))

    def _problem(
        self,
        space: tuple[Parameter, ...],
        fixed: tuple[str, ...],
        settings: SearchSettings,
        default: tuple[str, ...],
        objectives: Objectives | None,
    ) -> Search:
        """The search; without objectives one that can only be checked."""
        from cfg_lab.search.definition import Search
        from cfg_lab.search.loop import Problem
        from cfg_lab.search.objectives import Objectives

        return Search(
            problem=Problem(space=space, objectives=objectives or Objectives(aims=()), settings=settings),
            fixed=fixed,
            trials=self._config.trials,
            finalists=self.finalists,
            default=default,
            study_of=self._study,
            decode=self._decode,
        )

    def _first_job(self, search: Search) -> list[str]:
        texts = {parameter.key: parameter.ends[0] for parameter in search.problem.space}
        return search.job(texts, "selection")

    def _checked_study(self, search: Search) -> Study:
        """Build cells with every combination of options (the first 64) and both ends of every range.

        So a key that only some options have, and a value out of range, are found before anything is written.

        Returns:
            The study of these cells and of the references, on both halves of the prompts.
        """
        from cfg_lab.errors import InputError
        from cfg_lab.search.space import Choice

        space = search.problem.space
        choices = [parameter for parameter in space if isinstance(parameter, Choice)]
        others = [parameter for parameter in space if not isinstance(parameter, Choice)]
        points: list[dict[str, str]] = []
        combinations = islice(product(*(choice.options for choice in choices)), _MOST_CHECKED)
        single = [  # every option at least once, also of a space with more combinations
            tuple(option if choice is other else other.options[0] for other in choices)
            for choice in choices
            for option in choice.options
        ]
        for options in dict.fromkeys(chain(combinations, single)):
            by_key = {choice.key: option for choice, option in zip(choices, options, strict=True)}
            for end in (0, -1) if others else (0,):
                values = by_key | {other.key: other.ends[end] for other in others}
                points.append({parameter.key: values[parameter.key] for parameter in space})
        jobs: list[list[str]] = []
        for point in points:
            jobs += [search.job(point, half) for half in ("selection", "held_out")]
            jobs += [job for half in ("selection", "held_out") for job in search.references(point, half)]
        try:
            return self._study(list({tuple(job): job for job in jobs}.values()))
        except InputError as error:
            if len(choices) and "is not a config key" in str(error):
                raise InputError(
                    f"{error} (a search needs keys that exist with every option of "
                    f"{', '.join(choice.key for choice in choices)}; search such a key with its option alone)"
                ) from error
            raise

    def _objectives(self, value: Any, study: Study) -> Objectives:
        from cfg_lab.errors import InputError
        from cfg_lab.search.objectives import parse_objectives

        configured = self._configs_half
        if configured is not None:
            raise InputError(
                f"prompts.half is {configured!r}, but a search chooses on the half selection and reports on "
                "the half held_out; leave prompts.half=null"
            )
        return parse_objectives(value, study.metrics)

    @property
    def _configs_half(self) -> Any:
        return OmegaConf.select(self._config, "prompts.half")

    def _configs(self, jobs: Sequence[Sequence[str]]) -> list[DictConfig]:
        """Compose the configs of cells. The keys of the search are no settings of a cell."""
        from hydra_plugins.cfg_lab_launcher.search_space import SEARCH_KEYS

        assert self.hydra_context is not None
        configs = compose(self.hydra_context.config_loader, self._config, jobs)
        for config in configs:
            with open_dict(config):
                for key in SEARCH_KEYS:
                    config.pop(key, None)
        return configs

    def _study(self, jobs: Sequence[Sequence[str]]) -> Study:
        """The study whose cells have the given overrides."""
        from cfg_lab.study.build import build_study
        from cfg_lab.study.labels import labels_of_overrides

        return build_study(self._configs(jobs), labels_of_overrides(jobs))

    @property
    def _workers(self) -> WorkersLauncher | None:
        """The launcher, if it decodes on workers.

        Hydra loads every plugin module anew, so the class must be imported when all are loaded.
        """
        from hydra_plugins.cfg_lab_launcher.workers import WorkersLauncher

        return self.launcher if isinstance(self.launcher, WorkersLauncher) else None

    @cached_property
    def _engine(self) -> Any:
        assert self._workers is not None
        return self._workers.engine()

    def _decode(self, study: Study) -> None:
        """Decode and score a study, here or on workers."""
        from cfg_lab.commands import command_console
        from cfg_lab.study.run import run_study
        from cfg_lab.sweep import decode_on_workers

        console = command_console()
        if self._workers is not None:
            decode_on_workers(study, self._engine, self._workers.retries, console)
        else:
            run_study(study, console)


def _is_setting(line: Any) -> bool:
    """Whether a line is an override of guidance or negatives."""
    from cfg_lab.search.definition import group_of

    return isinstance(line, str) and "=" in line and group_of(line) in ("guidance", "negatives")

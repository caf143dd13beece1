"""Cells of a suggestion: composed configs like those of a sweep, decoded into the results folder."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, cast

import pandas as pd
import yaml
from omegaconf import DictConfig, OmegaConf, open_dict
from rich.console import Console

from cfg_lab.errors import InputError
from cfg_lab.metrics import Metric, columns_of
from cfg_lab.models import LanguageModel
from cfg_lab.options import CONFIG
from cfg_lab.prompts import Phrase, Prompt
from cfg_lab.prompts.halves import Half
from cfg_lab.prompts.phrases import write_phrases
from cfg_lab.study.aim import Aim, check_per_text, parse_aim
from cfg_lab.study.build import build_study
from cfg_lab.study.cell import Study
from cfg_lab.study.config import build, compose_config
from cfg_lab.study.joined_results import joined_results
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.results_folder import results_folder, study_name
from cfg_lab.study.run import decode_model, prepare_study
from cfg_lab.study.scoring import score_missing

DIVERGENCE = "kl_from_plain"
"""The column by which strengths of guidance are compared."""


@dataclass(frozen=True, kw_only=True)
class CellPlan:
    """One cell: what to steer away from, and how strongly.

    Attributes:
        name: name of the method in tables.
        negatives: option of conf/negatives.
        values: values of keys of this option.
        scale: the guidance scale.
        instruction: whether only the negative context is decoded, as a prompt: plain classifier-free guidance
            at scale 0, whatever the rule of the study is.
        guidance: option of conf/guidance; "" is the rule of the study.
    """

    name: str
    negatives: str
    values: Mapping[str, Any] = field(default_factory=dict[str, Any])
    scale: float = 1.0
    instruction: bool = False
    guidance: str = ""


PLAIN = CellPlan(name="plain", negatives="none")
"""Decoding without guidance."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Bench:
    """Decodes and scores cells of one model and one prompt set, and keeps them in a results folder.

    Attributes:
        config: a config as `cfg_lab.sweep` composes it, with the names of the chosen options in
            hydra.runtime.choices. Its negatives and its scale are replaced by those of each cell.
        aim: what is wanted of texts.
        command: the command line to store in the results.
        console: where to show progress.
    """

    config: DictConfig
    aim: str
    command: str
    console: Console
    _halves: dict[Half, list[Prompt]] = field(init=False, default_factory=dict[Half, list[Prompt]])

    def __post_init__(self) -> None:
        prompts = self.config.prompts
        if prompts.get("half") is not None:
            raise InputError(
                f"prompts.half is {prompts.half!r}, but both halves are needed: one to choose with, one to "
                "report on; leave it null"
            )
        if "half" not in prompts:
            raise InputError(
                f"prompts={self.config.hydra.runtime.choices.prompts} has no key half, which splits prompts "
                "into those to choose with and those to report on"
            )

        choice = self.config.hydra.runtime.choices.negatives
        if not {"template", "mode", "system"} <= {*self.config.negatives}:
            raise InputError(
                f"negatives={choice} has no phrases; leave it custom, and set negatives.template, "
                "negatives.mode and negatives.system as the found phrases are to be written"
            )
        for key in ("phrases", "heaviest"):
            value = self.config.negatives.get(key)
            if value is not None:
                raise InputError(
                    f"negatives.{key} is {value!r}, which has no effect here: phrases are what is looked "
                    "for; 'candidates=[…]' adds your own"
                )

    @cached_property
    def name(self) -> str:
        """Name of the study."""
        return study_name(self.config.get("name"))

    @cached_property
    def root(self) -> Path:
        """The results folder. It has the held-out cells; what the choice is based on is in subfolders."""
        return results_folder(self.config.get("results_root"), self.name)

    @cached_property
    def metrics(self) -> list[Metric]:
        """The metrics of the config."""
        metrics: list[Metric] = list(build(self.config, "metrics").values())
        if not any(DIVERGENCE in columns_of(metric) for metric in metrics):
            raise InputError(
                f"metrics must include {DIVERGENCE}, by which strengths of guidance are compared; got "
                f"{', '.join(self.config.metrics)}"
            )
        return metrics

    @cached_property
    def reward(self) -> Aim:
        """The aim, with its metric."""
        aim = parse_aim(self.aim, self.metrics)
        check_per_text(aim)
        return aim

    @cached_property
    def model(self) -> LanguageModel:
        """The model. It stays loaded."""
        return build(self.config, "model")()

    def prompts(self, half: Half, limit: int | None = None) -> list[Prompt]:
        """The first prompts of a half, at most `limit`, and not more than prompts.limit of the config."""
        if half not in self._halves:
            self._halves[half] = build(self._config(PLAIN, half, None), "prompts")
        return list(self._halves[half][:limit])

    @cached_property
    def template(self) -> dict[str, Any]:
        """The values of the config's negatives that say how phrases are written: template, mode, system."""
        node = cast("dict[str, Any]", OmegaConf.to_container(self.config.negatives, resolve=True))
        return {key: node[key] for key in ("template", "mode", "system") if key in node}

    def away_from(
        self, phrases: Sequence[Phrase] | Sequence[str], scale: float = 1.0, name: str = ""
    ) -> CellPlan:
        """A cell that steers away from phrases, written as the config says."""
        weighted = [phrase if isinstance(phrase, Phrase) else Phrase(phrase) for phrase in phrases]
        text = write_phrases(weighted)
        return CellPlan(
            name=name or text, negatives="custom", values={"phrases": text, **self.template}, scale=scale
        )

    def study(
        self,
        plans: Sequence[CellPlan],
        half: Half,
        *,
        limit: int | None = None,
        samples: int | None = None,
        folder: str = "",
    ) -> Study:
        """A study with one cell per plan.

        Args:
            half: the half of the prompts.
            limit: largest number of prompts; None takes all that prompts.limit of the config allows.
            samples: texts per prompt; None takes those of the config.
            folder: subfolder of the results folder.
        """
        configs = [self._config(plan, half, limit) for plan in plans]
        for config in configs:
            if folder:
                config.results_root, config.name = str(self.root), folder
            if samples is not None:
                config.samples = samples
        study = build_study(configs, [{"method": plan.name} for plan in plans], self.command)
        model = self.model
        cells = [replace(cell, model=lambda: model) for cell in study.cells]
        return replace(study, cells=cells, metrics=self.metrics)

    def negative_of(self, plan: CellPlan) -> Any:
        """The negative of a plan, as an object."""
        return build(self._config(plan, "selection", None), "negatives")

    def run(self, study: Study) -> None:
        """Decode and score what is missing of a study. The model stays loaded.

        Raises:
            InputError, StoreError, NotANumberError: as `cfg_lab.study.run.run_study`.
        """
        # Each step asks for cells of earlier steps again. It need not say each time that they are there.
        prepared = prepare_study(study, Console(quiet=True))
        (missing,) = prepared.missing.values()
        total = sum(text.request.max_new_tokens for text in missing.values())
        if total:
            with ProgressBar(self.console, "decoding", total, "tokens") as bar:
                decode_model(study, self.model, list(missing.values()), bar)
        score_missing(study.store, study.metrics, self.console, {cell.id for cell in study.cells})

    def selection(
        self,
        plans: Sequence[CellPlan],
        *,
        limit: int,
        samples: int | None = None,
        columns: Sequence[str] = (),
    ) -> tuple[pd.DataFrame, list[str]]:
        """The texts of some cells on the first prompts of the selection half, with their rewards.

        Args:
            limit, samples: as in `study`.
            columns: further columns of metrics to score and to return.

        Returns:
            One row per text, as `cfg_lab.load_results` gives it, with the columns that a choice needs, and
            `reward`; and the ids of the cells in the order of the plans.
        """
        study = self.study(plans, "selection", limit=limit, samples=samples, folder="selection")
        needed = {self.reward.column, DIVERGENCE, *columns}
        study = replace(study, metrics=[m for m in self.metrics if needed & set(columns_of(m))])
        self.run(study)
        return self.results(study, columns), [cell.id for cell in study.cells]

    def answers(self, questions: Sequence[str], *, max_new_tokens: int, samples: int) -> pd.DataFrame:
        """What the model answers to some questions, without guidance: one row per text."""
        config = self._config(PLAIN, "selection", None)
        with open_dict(config):
            config.prompts = {
                "_target_": "cfg_lab.prompts.inline",
                "prompts": [{"text": question} for question in questions],
            }
            config.hydra.runtime.choices.prompts = "inline"
            config.results_root, config.name = str(self.root), "questions"
            config.samples, config.max_new_tokens = samples, max_new_tokens
        study = build_study([config], [{"method": "question"}], self.command)
        model = self.model
        cells = [replace(cell, model=lambda: model) for cell in study.cells]
        study = replace(study, cells=cells, metrics=[])
        self.run(study)
        return joined_results(study.store, ["text", "tokens"], cell_ids(study))

    def results(self, study: Study, columns: Sequence[str] = ()) -> pd.DataFrame:
        """The texts of a study's cells: the scores of aim, divergence and `columns`, and `reward`."""
        column = self.reward.column
        names = list(dict.fromkeys([column, DIVERGENCE, "tokens", "text", "prompt_negative", *columns]))
        frame = joined_results(study.store, names, list(dict.fromkeys(cell.id for cell in study.cells)))
        return frame.assign(reward=self.reward.sign * frame[column])

    @cached_property
    def _pickled_config(self) -> bytes:
        """The config for making copies: pickle copies a config 8 times as fast as deepcopy."""
        return pickle.dumps(self.config)

    def _config(self, plan: CellPlan, half: Half, limit: int | None) -> DictConfig:
        """The config of a cell, as a sweep would compose it."""
        config = cast("DictConfig", pickle.loads(self._pickled_config))
        with open_dict(config):
            config.negatives = {**_option("negatives", plan.negatives), **plan.values}
            config.hydra.runtime.choices.negatives = plan.negatives
            choices = config.hydra.runtime.choices
            rule = "cfg" if plan.instruction else plan.guidance
            if plan.instruction or rule not in ("", choices.guidance):
                config.guidance, parts = guidance_option(rule)
                for name in [name for name in choices if name.startswith("guidance/")]:
                    del choices[name]
                choices.update({"guidance": rule, **parts})
            config.guidance["scale"] = 0 if plan.instruction else plan.scale
            config.prompts.half = half
            limits = [number for number in (limit, config.prompts.limit) if number is not None]
            config.prompts.limit = min(limits) if limits else None
        return config


@lru_cache
def _guidance_option(option: str) -> tuple[Any, dict[str, str]]:
    config = compose_config("sweep", [f"guidance={option}"])
    choices = cast("dict[str, str]", OmegaConf.to_container(config.hydra.runtime.choices))
    return config.guidance, {name: choice for name, choice in choices.items() if name.startswith("guidance/")}


def guidance_option(option: str) -> tuple[Any, dict[str, str]]:
    """The config node of an option of conf/guidance, and the options of its parts, such as guidance/schedule.

    Raises:
        InputError: there is no such option.
    """
    node, parts = _guidance_option(option)
    return copy.deepcopy(node), parts


def _option(group: str, name: str) -> dict[str, Any]:
    """The YAML of an option of a config group."""
    return yaml.safe_load((CONFIG / group / f"{name}.yaml").read_text(encoding="utf-8"))


def cell_ids(study: Study) -> list[str]:
    """The ids of a study's cells."""
    return [cell.id for cell in study.cells]

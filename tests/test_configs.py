"""Every YAML composes and describes an object that can be made."""

from __future__ import annotations

import inspect
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf

from cfg_lab import analysis
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.paths import CONFIG, option_names

GROUPS = ["model", "prompts", "negatives", "guidance", "sampling", "metrics", "tracking"]
GROUPS += ["guidance/schedule", "guidance/adaptive", "guidance/modifiers"]
OPTIONS = [(group, option) for group in GROUPS for option in option_names(group)]


@pytest.mark.parametrize(("group", "option"), OPTIONS)
def test_every_option(group: str, option: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "prompts.csv"
    path.write_text("text\nHi\n")
    fill: dict[tuple[str, str], list[str]] = {
        ("prompts", "file"): [f"prompts.path={path}"],
        ("prompts", "dataset"): [f"prompts.name={tmp_path}", "prompts.split=train"],
        ("negatives", "custom"): ["negatives.phrases='ugly:0.8, low'"],
        ("negatives", "base"): ["negatives.models.base.name=m"],
        ("negatives", "experts"): ["negatives.models.expert.name=m", "negatives.models.anti_expert.name=n"],
        ("metrics", "classifier"): ["metrics.classifier.model=m", "metrics.classifier.label=l"],
        ("metrics", "evaluate"): ["metrics.evaluate.module=m", "metrics.evaluate.column=c"],
    }
    choice = f"[{option}]" if group == "metrics" else option
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"{group}={choice}", *fill.get((group, option), [])])
    made: Any = instantiate(OmegaConf.select(config, group.replace("/", ".")), _convert_="all")
    assert made
    if group == "model":
        assert isinstance(made, partial)
        assert made.keywords["name"]


def test_every_argument_is_visible_with_its_default() -> None:
    """A YAML leaf names every argument of what it calls."""
    hidden = {"head"}  # names the trained head; not a choice
    for group, option in OPTIONS:
        choice = f"[{option}]" if group == "metrics" else option
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("sweep", overrides=[f"{group}={choice}"])
        node: Any = OmegaConf.select(config, group.replace("/", "."))
        leaf = node[option] if group == "metrics" else node
        target = leaf._target_
        call: Any = get_class(target) if target.split(".")[-1][0].isupper() else get_method(target)
        arguments = inspect.signature(call).parameters
        if any(one.kind == one.VAR_KEYWORD for one in arguments.values()):  # presets pass the rest on
            rest = set(inspect.signature(ClassifierFreeGuidance).parameters) - {"scale", "normalise_weights"}
            arguments = {*arguments} - {"rule"} | rest
        missing = {*arguments} - set(leaf) - hidden
        assert not missing, f"conf/{group}/{option}.yaml does not show {missing}"


@pytest.mark.parametrize(
    "option", sorted({*option_names("metrics")} - {"classifier", "evaluate", "evaluator"})
)
def test_every_column_of_a_metric_says_what_it_measures(option: str) -> None:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"metrics=[{option}]"])
    (metric,) = instantiate(config.metrics, _convert_="all").values()
    for column in metric.score([]):
        assert analysis.meaning(column), f"analysis/glossary.py does not say what {column} measures"

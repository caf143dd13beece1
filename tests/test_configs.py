"""Every YAML composes and describes an object that can be made."""

from __future__ import annotations

import inspect
import math
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from hydra.utils import get_class, get_method, instantiate
from omegaconf import OmegaConf

from cfg_lab import Prompt, analysis
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.metrics import needs_whole_cell
from cfg_lab.options import CONFIG, option_names
from tests.texts import text

GROUPS = ["model", "prompts", "negatives", "guidance", "sampling", "metrics", "tracking"]
GROUPS += ["guidance/schedule", "guidance/adaptive", "guidance/modifiers", "guidance/stopping"]
LISTS = ("metrics", "guidance/modifiers")  # groups of which several options can be chosen
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
    choice = f"[{option}]" if group in LISTS else option
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"{group}={choice}", *fill.get((group, option), [])])
    made: Any = instantiate(OmegaConf.select(config, group.replace("/", ".")), _convert_="all")
    assert made
    if group == "model":
        assert isinstance(made, partial)
        assert made.keywords["name"]


def test_every_argument_is_visible_with_its_default() -> None:
    """A YAML leaf names every argument of what it calls."""
    for group, option in OPTIONS:
        choice = f"[{option}]" if group in LISTS else option
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("sweep", overrides=[f"{group}={choice}"])
        node: Any = OmegaConf.select(config, group.replace("/", "."))
        leaf = node[option] if group in LISTS else node
        target = leaf._target_
        call: Any = get_class(target) if target.split(".")[-1][0].isupper() else get_method(target)
        arguments = inspect.signature(call).parameters
        if any(one.kind == one.VAR_KEYWORD for one in arguments.values()):  # presets pass the rest on
            rest = set(inspect.signature(ClassifierFreeGuidance).parameters) - {"scale", "normalise_weights"}
            arguments = {*arguments} - {"arguments"} | rest
        missing = {*arguments} - set(leaf)
        assert not missing, f"conf/{group}/{option}.yaml does not show {missing}"


JUDGED = sorted({*option_names("metrics")} - {"classifier", "evaluate", "evaluator"})


@pytest.mark.parametrize("option", JUDGED)
def test_every_column_of_a_metric_says_what_it_measures(option: str) -> None:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"metrics=[{option}]"])
    (metric,) = instantiate(config.metrics, _convert_="all").values()
    for column in metric.score([]):
        assert analysis.meaning(column), f"{type(metric).__name__} does not say what {column} measures"


@pytest.mark.parametrize("option", JUDGED)
def test_every_column_of_a_metric_lies_within_its_bounds(option: str) -> None:
    """Of texts that go to the ends: empty, equal, one word over and over, the reference itself."""
    least_texts = ["metrics.mauve.min_texts=20"] if option == "mauve" else []
    prompts = range(20 if option == "mauve" else 3)  # MAUVE needs 20 references, self-BLEU 3 prompts
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"metrics=[{option}]", *least_texts])
    (metric,) = instantiate(config.metrics, _convert_="all").values()
    written = [
        "",
        "no " * 20,
        "I love this wonderful day.",
        "You are a fucking idiot",
        "The cat sat",
        "7 \n\n !",
    ]
    texts = [
        text(
            words,
            prompt=Prompt(id=str(i), text="The cat", negative="sad:-1, bleak", reference="The cat sat"),
            guided_log_probs=(-0.0,) * len(words.split()),
            tokens_read=(9, 3),
            tokens_read_in_full=(9, 6),
            parameters=(100, 100),
        )
        for i in prompts
        for words in written
    ]
    for column, values in metric.score(texts).items():
        scored = [value for value in values if not math.isnan(value)]
        # The single values of a metric of the whole cell are the jackknife's; their mean is the cell's value.
        bounded = scored if not needs_whole_cell(metric) else [sum(scored) / len(scored)] if scored else []
        assert bounded, f"{column} is NaN for every text"
        least, greatest = analysis.bounds(column)
        assert all(least - 1e-6 <= value <= greatest + 1e-6 for value in bounded), column

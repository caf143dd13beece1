"""Every value of every config key gives a study, or is refused in one sentence."""

from __future__ import annotations

import json
import logging
import math
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel
from cfg_lab.options import CONFIG
from cfg_lab.study.build import build_study
from cfg_lab.study.config import build
from cfg_lab.study.plan import plan
from cfg_lab.study.scoring import prepare_metrics
from tests.policies import write_policy
from tests.students import write_student
from tests.test_configs import LISTS, OPTIONS
from tests.test_loading import classifier

VALUES: list[Any] = [
    *(None, True, "", " ", "text", "a\nb", "\udcff", "${nothing}", "../folder"),
    *(-1, 0, 1, -0.5, 2.5, 10**6, 10**30, math.nan, math.inf),
    *([], [1], ["a", "b"], {}, {"a": 1}, {"_target_": "text"}, {1: None}),
]
"""Values of every kind: missing, empty, text for a number, negative, huge, not a number, list, mapping."""

SWEEP = ("", "sweep")
"""The keys at the top of conf/sweep.yaml, as if they were an option."""

NEEDED: dict[tuple[str, str], list[str]] = {
    ("model", "student"): ["model.path=student", "model.name=student"],
    ("prompts", "file"): ["prompts.path=prompts.csv"],
    ("prompts", "dataset"): ["prompts.name=folder", "prompts.split=train"],
    ("prompts", "xsum"): ["prompts.longest=60"],
    ("negatives", "custom"): ["negatives.phrases='ugly:0.8, low'"],
    ("negatives", "file"): ["negatives.path=negatives.yaml"],
    ("negatives", "amateur"): ["negatives.models.amateur.skip_layers=[0,1]"],
    ("negatives", "base"): ["negatives.models.base.name=model"],
    ("negatives", "experts"): [
        "negatives.models.expert.name=model",
        "negatives.models.anti_expert.name=model",
    ],
    ("guidance/adaptive", "policy"): ["guidance.adaptive.path=policy.json"],
    ("metrics", "classifier"): ["metrics.classifier.model=classifier", "metrics.classifier.label=good"],
    ("metrics", "evaluate"): ["metrics.evaluate.module=measure.py", "metrics.evaluate.column=letters"],
    ("metrics", "evaluator"): ["metrics.evaluator.model=model"],
}
"""Overrides with which the option can run in the folder of the test."""

MEASURE = """
import datasets
import evaluate
class Letters(evaluate.Metric):
    def _info(self):
        features = datasets.Features({"predictions": datasets.Value("string")})
        return evaluate.MetricInfo(description="", citation="", features=features)
    def _compute(self, predictions):
        return {"letters": len(predictions[0])}
"""


def shows(message: str, value: Any) -> bool:
    """Whether a message shows a value, a part of it, or that there is none."""
    parts = [value, *(value if isinstance(value, list | dict) else [])]
    if value == "${nothing}":
        parts = ["nothing"]
    nothing = value in (None, [], {}) or value != value
    return any(repr(part) in message or str(part) in message for part in parts) or (
        nothing and any(word in message for word in (" no ", "got {}"))
    )


def keys_of(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(what it is an argument of, the key) for every key in a node of YAML. Of a list, the first item."""
    if isinstance(node, list):
        yield from keys_of(node[0], f"{path}.0") if node else ()
    if not isinstance(node, dict):
        return
    target = node.get("_target_", path)
    for name, value in node.items():
        if name not in ("_partial_", "defaults"):
            yield f"{target} {name}", f"{path}.{name}"
            yield from keys_of(value, f"{path}.{name}")


def keys_by_option() -> dict[tuple[str, str], list[str]]:
    """Option -> its keys. An argument of a class is in one option of each group, not in all that set it."""
    known: set[tuple[str, str]] = set()
    top = yaml.safe_load((CONFIG / "sweep.yaml").read_text())
    groups = ["model", "prompts", "negatives", "guidance", "sampling", "metrics", "tracking"]
    keys = {SWEEP: [*groups, *(key for key in top if key not in ("defaults", "hydra"))]}
    for group, option in OPTIONS:
        if option == "early_exits":  # as amateur, with three models instead of one
            continue
        node = yaml.safe_load((CONFIG / group / f"{option}.yaml").read_text())
        option_keys = dict(keys_of(node, group.replace("/", ".")))
        if group == "guidance":  # the groups in its `defaults`
            option_keys |= {
                f"rule {part}": f"guidance.{part}" for part in ("schedule", "adaptive", "stopping")
            }
        new = {what: key for what, key in option_keys.items() if (group, what) not in known}
        known |= {(group, what) for what in new}
        if new:
            keys[group, option] = list(new.values())
    return keys


KEYS = keys_by_option()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Path:
    """A folder with prompts, a model, a student, a classifier, a module of `evaluate` and more."""
    folder = tmp_path_factory.mktemp("values")
    (folder / "folder").mkdir()
    for path in ("prompts.csv", "folder/prompts.csv"):
        (folder / path).write_text("text,negative,reference\nHi,bad,Ho\n")
    (folder / "negatives.yaml").write_text("phrases: [{phrase: bad, weight: 0.5}, {phrase: low}]")
    (folder / "measure.py").write_text(MEASURE)
    write_policy(folder / "policy.json")
    shutil.copytree(tiny_folder, folder / "model")
    config = json.loads((folder / "model/config.json").read_text())
    config["max_position_embeddings"] = 50_000  # each letter of an article is a token
    (folder / "model/config.json").write_text(json.dumps(config))
    classifier(folder / "classifier")
    write_student(folder / "student", folder / "model")
    return folder


def composed(group: str, option: str) -> DictConfig:
    """A small study with an option. Of Hydra's own node, only the names of the chosen options stay."""
    small = {"metrics": "[length]", "prompts": "design", "model.name": "model", "tracking": "none"}
    choice = {} if not group else {group: f"[{option}]" if group in LISTS else option}
    overrides = [f"{key}={value}" for key, value in ({**small, **choice}).items()]
    overrides += ["prompts.limit=1", *NEEDED.get((group, option), [])]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=overrides, return_hydra_config=True)
    choices = config.hydra.runtime.choices
    OmegaConf.set_struct(config, False)
    config.hydra = {"runtime": {"choices": choices}}
    return config


@pytest.fixture
def no_logging() -> Iterator[None]:
    """Libraries log wrong paths and names. Processes of pytest cannot exchange those that are not UTF-8.

    `logging.disable` also reaches loggers that have logged before, which keep in mind that they may.
    """
    logging.disable(logging.CRITICAL)
    yield
    logging.disable(logging.NOTSET)


class ObjectCache:
    """Builds the objects of a config, and those of groups that do not change only once."""

    def __init__(self, group: str) -> None:
        self.changed = group.partition("/")[0]
        self.built: dict[str, Any] = {}

    def build(self, config: DictConfig, key: str) -> Any:
        if not self.changed or key == self.changed:
            return build(config, key)
        if key not in self.built:
            self.built[key] = build(config, key)
        return self.built[key]


def check(config: DictConfig, objects: ObjectCache, model: LanguageModel) -> None:
    """What a sweep does before it writes anything. The model is loaded only if its config changes."""
    study = build_study([config], [{}])
    objects.build(config, "tracking")
    (cell,) = study.cells
    assert list(plan(cell, cell.model() if objects.changed in ("", "model") else model, study.max_rows))
    prepare_metrics(study.metrics)


@pytest.mark.usefixtures("no_logging")
@pytest.mark.parametrize(("group", "option"), KEYS, ids=[f"{group}={option}" for group, option in KEYS])
def test_every_value_of_every_key_is_a_study_or_is_refused_in_a_sentence(
    group: str, option: str, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No value ends in a traceback, in a sentence without the key, or in several lines."""
    objects = ObjectCache(group)
    monkeypatch.chdir(folder)
    monkeypatch.setattr("cfg_lab.study.build.environment_file", str)
    monkeypatch.setattr("cfg_lab.study.build.build", objects.build)
    config = composed(group, option)
    model = build(config, "model")()
    check(config, objects, model)  # else every value would be refused
    faults: list[str] = []
    for key in KEYS[group, option]:
        name = key.rpartition(".")[2]
        before = OmegaConf.select(config, key, throw_on_missing=False)
        for value in VALUES:
            OmegaConf.update(config, key, value, merge=False, force_add=True)
            try:
                check(config, objects, model)
            except InputError as error:
                message = str(error)
                named = name.removesuffix("s") in message
                if not (named and shows(message, value) and "\n" not in message):
                    faults.append(f"{key}={value!a}: {message!a}")
            except Exception as error:
                faults.append(f"{key}={value!a}: {type(error).__name__}: {error!a}")
        OmegaConf.update(config, key, before, merge=False)
    assert not faults, "\n".join(faults)

"""Options of conf: what they need, and the metrics that they describe."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from cfg_lab.metrics import Metric
from cfg_lab.options import CONFIG, option_names

REQUIRED: dict[tuple[str, str], list[str]] = {
    ("model", "student"): ["model.path=student"],
    ("prompts", "file"): ["prompts.path=prompts.csv"],
    ("prompts", "dataset"): ["prompts.name=folder", "prompts.split=train"],
    ("negatives", "custom"): ["negatives.phrases='ugly:0.8, low'"],
    ("negatives", "file"): ["negatives.path=negatives.yaml"],
    ("negatives", "base"): ["negatives.models.base.name=m"],
    ("negatives", "experts"): ["negatives.models.expert.name=m", "negatives.models.anti_expert.name=n"],
    ("guidance/adaptive", "policy"): ["guidance.adaptive.path=policy.json"],
    ("metrics", "classifier"): ["metrics.classifier.model=m", "metrics.classifier.label=l"],
    ("metrics", "evaluate"): ["metrics.evaluate.module=m", "metrics.evaluate.column=c"],
}
"""Overrides that give a value to every argument without one."""


def packaged_metrics() -> list[Metric]:
    """One metric of every option."""
    metrics: list[Metric] = []
    for option in option_names("metrics"):
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            required = REQUIRED.get(("metrics", option), [])
            config = compose("sweep", overrides=[f"metrics=[{option}]", *required])
        metrics += instantiate(config.metrics, _convert_="all").values()
    return metrics


METRICS = {type(metric).__name__: metric for metric in packaged_metrics()}
OFFLINE = {name: METRICS[name] for name in METRICS.keys() - {"Classifier", "EvaluateModule", "Evaluator"}}
"""Metrics that load nothing but what this project packages."""

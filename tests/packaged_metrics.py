"""The metrics of conf/metrics, made as a sweep makes them."""

from __future__ import annotations

from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from cfg_lab.metrics import Metric
from cfg_lab.options import CONFIG, option_names


def packaged_metrics() -> list[Metric]:
    """One metric of every option."""
    needed = {
        "classifier": ["metrics.classifier.model=m", "metrics.classifier.label=l"],
        "evaluate": ["metrics.evaluate.module=m", "metrics.evaluate.column=c"],
    }
    metrics: list[Metric] = []
    for option in option_names("metrics"):
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("sweep", overrides=[f"metrics=[{option}]", *needed.get(option, [])])
        metrics += instantiate(config.metrics, _convert_="all").values()
    return metrics


METRICS = {type(metric).__name__: metric for metric in packaged_metrics()}
OFFLINE = {name: METRICS[name] for name in METRICS.keys() - {"Classifier", "EvaluateModule", "Evaluator"}}
"""Metrics that load nothing but what this project packages."""

"""Metrics: a value or more for each text. One small file a metric, chosen in conf/metrics."""

from cfg_lab.metrics.classifier import Classifier
from cfg_lab.metrics.cost import Cost
from cfg_lab.metrics.diversity import Diversity
from cfg_lab.metrics.evaluate_module import EvaluateModule
from cfg_lab.metrics.length import Length
from cfg_lab.metrics.metric import Metric, scorer_key
from cfg_lab.metrics.perplexity import Perplexity
from cfg_lab.metrics.sentiment import Sentiment
from cfg_lab.metrics.toxicity import Toxicity

__all__ = [
    "Classifier",
    "Cost",
    "Diversity",
    "EvaluateModule",
    "Length",
    "Metric",
    "Perplexity",
    "Sentiment",
    "Toxicity",
    "scorer_key",
]

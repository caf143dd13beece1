"""Metrics. A metric gives one or more columns of scores, with one value per text.

Each metric has its own file. The options in conf/metrics choose the metrics of a sweep.
"""

from cfg_lab.metrics.answer import Answer
from cfg_lab.metrics.cards import packaged_cards
from cfg_lab.metrics.classifier import Classifier
from cfg_lab.metrics.code import Code
from cfg_lab.metrics.column_info import ColumnInfo
from cfg_lab.metrics.copying import Copying
from cfg_lab.metrics.cost import Cost
from cfg_lab.metrics.diversity import Diversity
from cfg_lab.metrics.entropy import Entropy
from cfg_lab.metrics.evaluate_module import EvaluateModule
from cfg_lab.metrics.evaluator import Evaluator
from cfg_lab.metrics.formality import Formality
from cfg_lab.metrics.guided_likelihood import GuidedLikelihood
from cfg_lab.metrics.kl_from_plain import KLFromPlain
from cfg_lab.metrics.language import Language
from cfg_lab.metrics.leakage import Leakage
from cfg_lab.metrics.length import Length
from cfg_lab.metrics.mauve import Mauve
from cfg_lab.metrics.metric import Metric, columns_of, needs_whole_cell, scorer_key
from cfg_lab.metrics.multiple_choice import MultipleChoice
from cfg_lab.metrics.perplexity import Perplexity
from cfg_lab.metrics.readability import Readability
from cfg_lab.metrics.relevance import Relevance
from cfg_lab.metrics.repetition import Repetition
from cfg_lab.metrics.rouge import Rouge
from cfg_lab.metrics.self_bleu import SelfBleu
from cfg_lab.metrics.sentiment import Sentiment
from cfg_lab.metrics.text import Choice, Text
from cfg_lab.metrics.topic import Topic
from cfg_lab.metrics.toxicity import Toxicity
from cfg_lab.metrics.translation import Translation
from cfg_lab.metrics.vendi import Vendi

__all__ = [
    "Answer",
    "Choice",
    "Classifier",
    "Code",
    "ColumnInfo",
    "Copying",
    "Cost",
    "Diversity",
    "Entropy",
    "EvaluateModule",
    "Evaluator",
    "Formality",
    "GuidedLikelihood",
    "KLFromPlain",
    "Language",
    "Leakage",
    "Length",
    "Mauve",
    "Metric",
    "MultipleChoice",
    "Perplexity",
    "Readability",
    "Relevance",
    "Repetition",
    "Rouge",
    "SelfBleu",
    "Sentiment",
    "Text",
    "Topic",
    "Toxicity",
    "Translation",
    "Vendi",
    "columns_of",
    "needs_whole_cell",
    "packaged_cards",
    "scorer_key",
]

"""Rules that combine the branches' distributions into one. One small file a rule.

All share one convention: scale 1 is off, above 1 steers away from the negatives.
"""

from cfg_lab.guidance.adaptive import Adaptive, ByDivergence, ByEntropy, KLBudget, NotAdaptive
from cfg_lab.guidance.classifier_free import ClassifierFreeGuidance, context_aware, experts, preadd
from cfg_lab.guidance.contrastive import ContrastiveDecoding
from cfg_lab.guidance.dola import Dola
from cfg_lab.guidance.log_probs import log_probs
from cfg_lab.guidance.modifiers import Modifiers
from cfg_lab.guidance.rule import Guidance, Rule, shares
from cfg_lab.guidance.schedules import Constant, Cosine, Exponential, Interval, Linear, Schedule
from cfg_lab.guidance.self_debiasing import SelfDebiasing
from cfg_lab.guidance.union import UnionGuidance

__all__ = [
    "Adaptive",
    "ByDivergence",
    "ByEntropy",
    "ClassifierFreeGuidance",
    "Constant",
    "ContrastiveDecoding",
    "Cosine",
    "Dola",
    "Exponential",
    "Guidance",
    "Interval",
    "KLBudget",
    "Linear",
    "Modifiers",
    "NotAdaptive",
    "Rule",
    "Schedule",
    "SelfDebiasing",
    "UnionGuidance",
    "context_aware",
    "experts",
    "log_probs",
    "preadd",
    "shares",
]

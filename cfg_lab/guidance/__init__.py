"""Guidance rules: formulas that combine the branches' distributions into one.

All rules share one convention: at scale 1 guidance is off, above 1 it steers away from the negatives. A rule
also carries a schedule, an adaptive strength, modifiers and a stopping condition; each of them works with
every rule.
"""

from cfg_lab.guidance.adaptive import (
    Adaptive,
    Branches,
    ByDivergence,
    ByEntropy,
    ByJSD,
    EntropyGate,
    KLBudget,
    NotAdaptive,
)
from cfg_lab.guidance.classifier_free import ClassifierFreeGuidance, context_aware, experts, preadd
from cfg_lab.guidance.contrastive import ContrastiveDecoding
from cfg_lab.guidance.dola import Dola
from cfg_lab.guidance.log_probs import log_probs
from cfg_lab.guidance.modifiers import AdaptiveProjection, Modifier, Plausibility, Rescale, ZeroStar
from cfg_lab.guidance.policy import LearnedScale, load_policy
from cfg_lab.guidance.rule import Guidance, Rule, is_off, shares
from cfg_lab.guidance.schedules import Constant, Cosine, Exponential, Interval, Linear, Schedule
from cfg_lab.guidance.self_debiasing import SelfDebiasing
from cfg_lab.guidance.stopping import NeverStop, StopOnAgreement, Stopping
from cfg_lab.guidance.union import UnionGuidance

__all__ = [
    "Adaptive",
    "AdaptiveProjection",
    "Branches",
    "ByDivergence",
    "ByEntropy",
    "ByJSD",
    "ClassifierFreeGuidance",
    "Constant",
    "ContrastiveDecoding",
    "Cosine",
    "Dola",
    "EntropyGate",
    "Exponential",
    "Guidance",
    "Interval",
    "KLBudget",
    "LearnedScale",
    "Linear",
    "Modifier",
    "NeverStop",
    "NotAdaptive",
    "Plausibility",
    "Rescale",
    "Rule",
    "Schedule",
    "SelfDebiasing",
    "StopOnAgreement",
    "Stopping",
    "UnionGuidance",
    "ZeroStar",
    "context_aware",
    "experts",
    "is_off",
    "load_policy",
    "log_probs",
    "preadd",
    "shares",
]

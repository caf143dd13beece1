"""A policy of the scale that uses all its shares on small random models."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from cfg_lab.guidance import ClassifierFreeGuidance, LearnedScale
from cfg_lab.guidance.policy import describe, policy_as_json

POLICY = LearnedScale(
    shares=(1.0, 0.0, 0.4),
    hidden=((-2.4, 2.2, 0.0, 0.0, 0.0), (-3.0, 0.0, 2.0, -2.0, 0.0), (-2.0, 0.0, 0.0, 0.0, 3.0)),
    output=((0.0, 1.5, 0.3, 0.0), (0.0, -1.5, -0.3, 0.0), (0.1, 0.0, 0.0, 1.0)),
    length=10,
    rule=describe(ClassifierFreeGuidance()),
    trained_scale=4.0,
)
"""Reads entropy, divergence, margin and length."""


def write_policy(path: Path, trained_scale: float = 1.5) -> None:
    """Write `POLICY` to a file."""
    path.write_text(policy_as_json(replace(POLICY, trained_scale=trained_scale), {}))

"""Sequences that are guided and sampled together."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.decoding.beam import Beam, Extension
from cfg_lab.decoding.lane import Lane
from cfg_lab.decoding.model import CausalModel
from cfg_lab.decoding.sampling import BeamSearch, Greedy, Sampler
from cfg_lab.decoding.sequence import Sequence
from cfg_lab.decoding.trace import Alternatives
from cfg_lab.guidance import Guidance


@dataclass(eq=False)
class Group:
    """Live sequences alike in guidance, sampler and branches: one call a step serves them all."""

    guidance: Guidance | None
    sampler: Sampler
    beam: Beam | None
    top: int
    vocab: int  # tokens that the models of all branches know, also of those that do not run now
    sequences: list[Sequence]
    positive: Tensor  # [members] row numbers
    negatives: Tensor  # [members, branches] row numbers
    weights: Tensor  # [members, branches] float32
    keys: Tensor  # [members] noise keys
    steps: Tensor  # [members] new tokens so far


@dataclass(eq=False)
class Chosen:
    """The outcome of a step for one group: for each member, or for each extension of a beam."""

    group: Group
    tokens: Tensor  # [chosen]
    trace: Tensor  # [chosen, 6], in the order of Trace's fields
    extensions: list[Extension] | None
    alternatives: list[Alternatives]


def group_of(
    members: list[Sequence], lanes: Mapping[str | None, Lane], models: Mapping[str | None, CausalModel]
) -> Group:
    """The group of sequences that are alike."""
    device, first = models[None].device, members[0]
    request = first.request
    names = [name for name, _ in request.contexts[: len(first.rows)]]
    rows = torch.tensor(
        [[lanes[name].offset + row for name, row in zip(names, one.rows, strict=True)] for one in members],
        device=device,
    )
    weights = [[branch.weight for branch in one.request.branches[: len(names) - 1]] for one in members]
    return Group(
        guidance=request.guidance if len(names) > 1 else None,
        sampler=request.sampling if not isinstance(request.sampling, BeamSearch | None) else Greedy(),
        beam=first.beam if isinstance(first.beam, Beam) else None,
        top=request.top,
        vocab=min(models[name].vocab_size for name, _ in request.contexts),
        sequences=members,
        positive=rows[:, 0],
        negatives=rows[:, 1:],
        weights=torch.tensor(weights, dtype=torch.float32, device=device),
        keys=torch.tensor([one.request.noise_key for one in members], device=device),
        steps=torch.tensor([len(one.tokens) for one in members], device=device),
    )

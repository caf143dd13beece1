"""Groups of sequences that are guided and sampled by one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from cfg_lab.decoding.beam_state import BeamState, Extension
from cfg_lab.decoding.distributions import Distributions, guide
from cfg_lab.decoding.measurements import alternatives, measure
from cfg_lab.decoding.model import CausalModel
from cfg_lab.decoding.model_rows import ModelRows
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.decoding.sampling import BeamSearch, Greedy, Sampler, position_keys
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.decoding.trace import Alternatives
from cfg_lab.guidance import Guidance


@dataclass(eq=False)
class Group:
    """Running sequences that are guided by one call and sampled by one call.

    They have the same guidance rule and the same sampler, and their branches run on the same models. Their
    scales, weights and contexts may differ. The hypotheses of a beam search are a group of their own.

    Attributes:
        guidance: the guidance rule; None if no negative runs.
        beam: the beam search; None if the group is not a beam search.
        top: number of likeliest tokens that the traces keep for each step and distribution.
        vocab: size of the smallest vocabulary of all branches' models. Branches that do not run now count
            too, because they may read the chosen token later.
        models: name of the model of each running branch, the positive branch first. None stands for the
            model that runs the positive contexts.
    """

    states: list[RequestState]
    sequences: list[SequenceState]  # of all states, in order
    guidance: Guidance | None
    sampler: Sampler
    beam: BeamState | None
    top: int
    vocab: int
    models: list[str | None]
    positive_rows: Tensor  # [sequences], row numbers in the logits of `Batch.forward`
    negative_rows: Tensor  # [sequences, branches]
    weights: Tensor  # [sequences, branches], float32
    noise_keys: Tensor  # [sequences], int64
    steps: Tensor  # [sequences], int64, number of new tokens so far

    def guide(self, logits: Tensor) -> Distributions:
        """Combine the branches of each sequence into one guided distribution per sequence.

        `logits` [rows, vocab] are the logits of the whole batch. The result has one row per sequence.
        """
        scales = [state.scale for state in self.states for _ in state.sequences]
        return guide(
            self.guidance,
            logits[self.positive_rows, : self.vocab],
            logits[self.negative_rows, : self.vocab],
            self.weights,
            torch.tensor(scales, dtype=torch.float32, device=logits.device),
        )

    def sample(self, step: Distributions) -> StepResult:
        """Choose the next token of each sequence, or the best extensions of a beam search."""
        if self.beam is None:
            extensions = None
            tokens = self.sampler.choose(step.guided, position_keys(self.noise_keys, self.steps))
        else:
            extensions = self.beam.best_extensions(step.guided)
            tokens = torch.tensor([extension.token for extension in extensions], device=step.guided.device)
            step = step.select([extension.parent for extension in extensions])
        return StepResult(
            group=self,
            tokens=tokens,
            trace=measure(step, tokens),
            alternatives=alternatives(step, self.top) if self.top else [None] * len(tokens),
            extensions=extensions,
        )


@dataclass(eq=False)
class StepResult:
    """The outcome of one step for one group, with one entry per sequence.

    In a beam search there is one entry per extension instead, that is, per hypothesis with one more token.
    """

    group: Group
    tokens: Tensor  # [entries], int64
    trace: Tensor  # [entries, fields], in the order of TRACE_FIELDS
    alternatives: list[Alternatives] | list[None]
    extensions: list[Extension] | None


def group_key(state: RequestState) -> tuple[object, ...]:
    """The key by which running requests are grouped.

    Requests with equal keys can be guided by one call and sampled by one call.
    """
    request = state.request
    return (
        state if isinstance(state, BeamState) else request.sampling,
        request.guidance if state.running_branches > 1 else None,
        tuple(model for model, _ in request.contexts),
        state.running_branches,
        request.top,
    )


def make_group(
    states: list[RequestState],
    model_rows: Mapping[str | None, ModelRows],
    models: Mapping[str | None, CausalModel],
) -> Group:
    """Make one group of running requests that have the same `group_key`.

    Args:
        states: the requests, at least one.
        model_rows: maps the name of a model to the rows of this model.
        models: maps the name of a model to the model. None is the name of the model that runs the positive
            contexts.
    """
    device, first = models[None].device, states[0]
    request = first.request
    names = [name for name, _ in request.contexts[: first.running_branches]]
    sequences = [sequence for state in states for sequence in state.sequences]
    row_numbers = torch.tensor(
        [
            [model_rows[name].first_row + row for name, row in zip(names, sequence.rows, strict=True)]
            for sequence in sequences
        ],
        device=device,
    )  # [sequences, 1 + branches]
    weights = [
        [branch.weight for branch in sequence.request.branches[: len(names) - 1]] for sequence in sequences
    ]
    return Group(
        states=states,
        sequences=sequences,
        guidance=request.guidance if len(names) > 1 else None,
        sampler=request.sampling if not isinstance(request.sampling, BeamSearch | None) else Greedy(),
        beam=first if isinstance(first, BeamState) else None,
        top=request.top,
        vocab=min(models[name].vocab_size for name, _ in request.contexts),
        models=names,
        positive_rows=row_numbers[:, 0],
        negative_rows=row_numbers[:, 1:],
        weights=torch.tensor(weights, dtype=torch.float32, device=device),
        noise_keys=torch.tensor([sequence.request.noise_key for sequence in sequences], device=device),
        steps=torch.tensor([len(sequence.tokens) for sequence in sequences], device=device),
    )

"""Groups of sequences that are guided and sampled by one call."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol, cast

import torch
from torch import Tensor

from cfg_lab.decoding.beam_state import BeamState, Extension
from cfg_lab.decoding.distributions import Distributions, guide
from cfg_lab.decoding.measurements import Likeliest, alternatives, likeliest, measure
from cfg_lab.decoding.model import CausalModel
from cfg_lab.decoding.model_rows import ModelRows
from cfg_lab.decoding.noise import position_keys
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.decoding.sampling import BeamSearch, Greedy, Sampler, Sampling, SamplingSettings, draw
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.decoding.trace import Alternatives
from cfg_lab.guidance import Guidance


@dataclass(eq=False)
class Group:
    """Running sequences that are guided by one call and sampled by one call.

    They have guidance rules with the same formula, samplers of the same kind, and branches that run on the
    same models. Scales, schedules, weights, contexts, temperatures and truncations may differ: they are
    tensors with a value for each sequence. So all scales of a grid are one group. The hypotheses of a beam
    search are a group of their own.

    Attributes:
        formula: the formula of the guidance rules; None if no negative runs.
        beam: the beam search; None if the group is not a beam search.
        top: number of likeliest tokens that the traces keep for each step and distribution.
        vocab: size of the smallest vocabulary of all branches' models. Branches that do not run now count
            too, because they may read the chosen token later.
    """

    states: list[RequestState]
    sequences: list[SequenceState]  # of all states, in order
    formula: Guidance | None
    sampler: Sampler  # with `settings`, only one of the samplers
    settings: SamplingSettings | None  # [sequences], of a group whose samplers are `Sampling`; else None
    beam: BeamState | None
    top: int
    vocab: int
    positive_rows: Tensor  # [sequences], row numbers in the logits of `Batch.forward`
    negative_rows: Tensor  # [sequences, branches]
    weights: Tensor  # [sequences, branches], float32
    noise_keys: Tensor  # [sequences], int64
    steps: Tensor  # [sequences], int64, number of new tokens so far

    def guide(self, logits: Tensor) -> Distributions:
        """Combine the branches of each sequence into one guided distribution per sequence.

        `logits` [rows, vocab] are the logits of the whole batch. The result has one row per sequence.
        """
        negative_logits = logits.index_select(0, self.negative_rows.flatten())  # faster than logits[rows]
        scales = [state.scale for state in self.states for _ in state.sequences]
        return guide(
            self.formula,
            logits.index_select(0, self.positive_rows)[:, : self.vocab],
            negative_logits.view(*self.negative_rows.shape, logits.shape[1])[..., : self.vocab],
            self.weights,
            torch.tensor(scales, dtype=torch.float32, device=logits.device),
            self.steps,
        )

    def sample(self, step: Distributions) -> StepResult:
        """Choose the next token of each sequence, or the best extensions of a beam search."""
        if self.beam is None:
            extensions = None
            keys = position_keys(self.noise_keys, self.steps)
            if self.settings is None:
                tokens = self.sampler.choose(step.guided, keys)
            else:
                tokens = draw(step.guided, keys, self.settings)
        else:
            extensions = self.beam.best_extensions(step.guided)
            tokens = torch.tensor([extension.token for extension in extensions], device=step.guided.device)
            step = step.select([extension.parent for extension in extensions])
        return StepResult(
            group=self,
            tokens=tokens,
            trace=measure(step, tokens),
            likeliest=likeliest(step, self.top) if self.top else None,
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
    likeliest: Likeliest | None  # None if the traces keep no likeliest tokens
    extensions: list[Extension] | None

    def alternatives(self) -> list[Alternatives] | list[None]:
        """The likeliest tokens of each entry; None for each entry if the traces keep none."""
        if self.likeliest is None:
            return [None] * len(self.tokens)
        tokens = cast("list[list[list[int]]]", self.likeliest.tokens.tolist())
        log_probs = cast("list[list[list[float]]]", self.likeliest.log_probs.tolist())
        return [alternatives(*of_entry) for of_entry in zip(tokens, log_probs, strict=True)]


def group_key(state: RequestState) -> tuple[object, ...]:
    """The key by which running requests are grouped.

    Requests with equal keys can be guided by one call and sampled by one call.
    """
    request = state.request
    return (
        state if isinstance(state, BeamState) else _kind_of(request.sampling),
        state.formula if state.running_branches > 1 else None,
        tuple(model for model, _ in request.contexts),
        state.running_branches,
        request.top,
    )


def _kind_of(sampler: object) -> object:
    """Samplers of equal kinds can choose tokens in one call."""
    return Sampling if type(sampler) is Sampling else sampler


class NumberedRows(Protocol):
    """The rows of one model, which are counted after those of the models before it."""

    @property
    def first_row(self) -> int: ...


def row_numbers(sequence: SequenceState, model_rows: Mapping[str | None, NumberedRows]) -> list[int]:
    """The row of each running branch of a sequence, counted over the rows of all models."""
    contexts = sequence.request.contexts[: len(sequence.rows)]
    return [model_rows[name].first_row + row for (name, _), row in zip(contexts, sequence.rows, strict=True)]


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
    rows = torch.tensor(
        [row_numbers(sequence, model_rows) for sequence in sequences], device=device
    )  # [sequences, 1 + branches]
    samplers = [sequence.request.sampling for sequence in sequences]
    settings = None
    if _kind_of(samplers[0]) is Sampling:
        settings = SamplingSettings.of(cast("list[Sampling]", samplers), device)
    weights = [
        [branch.weight for branch in sequence.request.branches[: len(names) - 1]] for sequence in sequences
    ]
    return Group(
        states=states,
        sequences=sequences,
        formula=first.formula if len(names) > 1 else None,
        sampler=request.sampling if not isinstance(request.sampling, BeamSearch | None) else Greedy(),
        settings=settings,
        beam=first if isinstance(first, BeamState) else None,
        top=request.top,
        vocab=min(models[name].vocab_size for name, _ in request.contexts),
        positive_rows=rows[:, 0],
        negative_rows=rows[:, 1:],
        weights=torch.tensor(weights, dtype=torch.float32, device=device),
        noise_keys=torch.tensor([sequence.request.noise_key for sequence in sequences], device=device),
        steps=torch.tensor([len(sequence.tokens) for sequence in sequences], device=device),
    )

"""A group of sequences in a static batch: guided, sampled and measured on the device, without the host."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from cfg_lab.decoding.distributions import guide
from cfg_lab.decoding.measurements import alternatives, likeliest, measure
from cfg_lab.decoding.noise import position_keys
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import Sampling, SamplingSettings, draw_on_device
from cfg_lab.decoding.static_buffer import row_bucket
from cfg_lab.decoding.step_graphs import StepGraphs
from cfg_lab.decoding.trace import TRACE_FIELDS, Alternatives
from cfg_lab.decoding.transfer import HostCopy, to_device
from cfg_lab.guidance.rule import Guidance, is_off

_NEGATIVE, _DIVERGENCE = map(TRACE_FIELDS.index, ("negative", "divergence"))

GOES_ON, STOPPED, FULL = 0, 1, 2
"""A text after its newest token: it goes on, has ended by a stop token, or has `max_new_tokens` tokens."""


class StepValues(NamedTuple):
    """What one step has computed, with one entry per sequence of a group."""

    tokens: list[int]
    states: list[int]  # GOES_ON, STOPPED or FULL
    trace: list[list[float]]  # in the order of TRACE_FIELDS
    alternatives: list[Alternatives] | list[None]


class StaticGroup:
    """Sequences whose next tokens are chosen by one call; see `cfg_lab.decoding.group.Group`.

    All that varies is a tensor on the device, with an entry for each sequence. The tensors stay at their
    addresses while sequences come and go. Entries beyond the sequences, up to a bucket, are computed too, on
    a row that nobody reads.

    Args:
        request: a request of the group; all others have the same `static_key`.
        formula: the formula of the guidance rules; None if no negative runs.
        capacity: largest number of sequences.
        vocab: number of tokens that can be chosen.
        longest: the largest `max_new_tokens` of all requests with this key.
        stop_count: the largest number of stop tokens of all requests.
        logits: [rows of all models + 1, vocab], float32, the logits of this step.
        next_ids: [rows of all models + 1], int64; the chosen tokens are written there. The last row is for
            the entries that nobody reads.

    Attributes:
        count: number of sequences.
    """

    def __init__(
        self,
        request: Request,
        formula: Guidance | None,
        *,
        capacity: int,
        vocab: int,
        longest: int,
        stop_count: int,
        logits: Tensor,
        next_ids: Tensor,
    ) -> None:
        self.formula, self.vocab = formula, vocab
        self.top = min(request.top, vocab)
        self.logits, self.next_ids, self.device = logits, next_ids, logits.device
        self.count = 0
        capacity, branches = row_bucket(capacity), len(request.branches)

        def zeros(*shape: int, dtype: torch.dtype = torch.long) -> Tensor:
            return torch.zeros(capacity, *shape, dtype=dtype, device=self.device)

        self.rows = zeros(1 + branches)  # in `logits` and `next_ids`, the positive branch first
        self.weights = zeros(branches, dtype=torch.float32)
        # Planned for each token. Only one for all tokens if the schedule is constant.
        self.scales = torch.ones(
            capacity, longest if _varies(request) else 1, dtype=torch.float32, device=self.device
        )
        self.noise_keys = zeros()
        self.steps = zeros()  # number of new tokens so far
        self.limits = zeros()  # max_new_tokens
        self.stop_ids = zeros(stop_count)  # filled up with -1
        sampling = request.sampling if isinstance(request.sampling, Sampling) else None
        self.settings = None if sampling is None else SamplingSettings.of([sampling] * capacity, self.device)
        distributions = 3 if branches else 2
        likeliest_count = distributions * self.top
        self._likeliest_shape = distributions, self.top
        self._ints = zeros(2 + likeliest_count)  # the token, how the text goes on, the likeliest tokens
        self._floats = zeros(len(TRACE_FIELDS) + likeliest_count, dtype=torch.float32)

    def set_requests(
        self, requests: Sequence[Request], steps: Sequence[int], rows: Sequence[Sequence[int]]
    ) -> None:
        """Replace the sequences.

        Args:
            requests: the request of each sequence, at most the capacity.
            steps: number of new tokens of each sequence so far.
            rows: for each sequence the row of each branch in `logits`.
        """
        self.count = len(requests)
        if not requests:
            return
        beyond = row_bucket(len(requests)) - len(requests)
        no_row = [len(self.next_ids) - 1] * self.rows.shape[1]
        self._put(self.rows, [*rows, *[no_row] * beyond])
        if self.weights.shape[1]:
            weights = [[branch.weight for branch in request.branches] for request in requests]
            self._put(self.weights, [*weights, *weights[-1:] * beyond])
            width = self.scales.shape[1]
            scales = np.stack([_planned_scales(request.guidance, width) for request in requests])
            self.scales[: len(scales)] = to_device(torch.from_numpy(scales), self.device)
        self._put(self.noise_keys, [request.noise_key for request in requests])
        self._put(self.steps, steps)
        self._put(self.limits, [request.max_new_tokens for request in requests])
        if count := self.stop_ids.shape[1]:
            stops = [[*request.stop_ids, *[-1] * count][:count] for request in requests]
            self._put(self.stop_ids, stops)
        if self.settings is not None:
            samplers = [request.sampling for request in requests]
            new = SamplingSettings.of([s for s in samplers if isinstance(s, Sampling)], torch.device("cpu"))
            for tensor, values in zip(self.settings.tensors, new.tensors, strict=True):
                tensor[: len(values)] = to_device(values, self.device)

    def run(self, graphs: StepGraphs) -> HostCopy:
        """Choose the next token of each sequence. Return copies of the ints and the floats of all entries."""
        size = row_bucket(self.count)
        graphs.run((id(self), size), lambda: self._operations(size), [self.next_ids, self.steps])
        return HostCopy([self._ints[: self.count], self._floats[: self.count]])

    def read(self, copy: HostCopy) -> StepValues:
        """The values of a step, from the copies that `run` has started. Waits until they are there."""
        ints, floats = copy.read()
        fields = len(TRACE_FIELDS)
        trace = cast("list[list[float]]", floats[:, :fields].tolist())
        likeliest_tokens: list[Alternatives] | list[None] = [None] * len(ints)
        if self.top:
            shape = (len(ints), *self._likeliest_shape)
            tokens = cast("list[list[list[int]]]", ints[:, 2:].reshape(shape).tolist())
            log_probs = cast("list[list[list[float]]]", floats[:, fields:].reshape(shape).tolist())
            # Where guidance is off, the negatives count as not run.
            counts = [2 if math.isnan(numbers[_NEGATIVE]) else 3 for numbers in trace]
            likeliest_tokens = [
                alternatives(of_token[:count], of_log_prob[:count])
                for of_token, of_log_prob, count in zip(tokens, log_probs, counts, strict=True)
            ]
        return StepValues(
            tokens=cast("list[int]", ints[:, 0].tolist()),
            states=cast("list[int]", ints[:, 1].tolist()),
            trace=trace,
            alternatives=likeliest_tokens,
        )

    def _operations(self, size: int) -> None:
        """The operations of one step of the first `size` entries. On CUDA they are recorded."""
        rows, weights, steps = self.rows[:size], self.weights[:size], self.steps[:size]
        last = self.scales.shape[1] - 1  # texts that have ended run on
        scales = self.scales[:size].gather(1, steps.clamp(max=last)[:, None])[:, 0]
        logits = self.logits[rows, : self.vocab]  # [size, 1 + branches, vocab]
        step = guide(self.formula, logits[:, 0], logits[:, 1:], weights, scales, steps)
        if self.formula is not None:
            # Without guidance at this token, the negatives count as not run.
            step = step._replace(scales=torch.where(is_off(scales), 1, step.scales))
        keys = position_keys(self.noise_keys[:size], steps)
        if self.settings is None:
            tokens = step.guided.argmax(-1)
        else:
            tokens = draw_on_device(step.guided, keys, self.settings.first(size))
        trace = measure(step, tokens)
        for field in (_NEGATIVE, _DIVERGENCE):
            trace[:, field].masked_fill_(is_off(scales), torch.nan)
        stopped = (self.stop_ids[:size] == tokens[:, None]).any(1)
        full = steps + 1 >= self.limits[:size]
        ints, floats = self._ints[:size], self._floats[:size]
        ints[:, 0] = tokens
        ints[:, 1] = torch.where(stopped, STOPPED, torch.where(full, FULL, GOES_ON))
        floats[:, : len(TRACE_FIELDS)] = trace
        if self.top:
            best = likeliest(step, self.top)
            ints[:, 2:] = best.tokens.flatten(1)
            floats[:, len(TRACE_FIELDS) :] = best.log_probs.flatten(1)
        self.next_ids[rows] = tokens[:, None]
        steps += 1

    def _put(self, tensor: Tensor, values: Sequence[object]) -> None:
        """Copy values to the first entries of a tensor on the device."""
        tensor[: len(values)] = to_device(torch.tensor(values, dtype=tensor.dtype), self.device)


def static_key(request: Request, formula: Guidance | None) -> tuple[object, ...]:
    """The key by which requests are grouped: requests with equal keys are guided and sampled by one call."""
    sampling = request.sampling
    truncations = None
    if isinstance(sampling, Sampling):
        truncations = sampling.top_k > 0, sampling.top_p < 1, sampling.min_p > 0
    return (
        truncations,
        formula if request.branches else None,
        _varies(request),
        tuple(model for model, _ in request.contexts),
        request.top,
    )


def _varies(request: Request) -> bool:
    """Whether the planned scale depends on the number of the token."""
    guidance = request.guidance
    if guidance is None or not request.branches:
        return False
    return len({guidance.scale_at(step) for step in range(request.max_new_tokens)}) > 1


@lru_cache(maxsize=1024)
def _planned_scales(guidance: Guidance, count: int) -> npt.NDArray[np.float32]:
    """The planned scales of the first `count` tokens."""
    return np.array([guidance.scale_at(step) for step in range(count)], np.float32)

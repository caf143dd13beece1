"""A batch whose steps run on the device without waiting for the host. It is made for GPUs.

A step of `Batch` waits for the GPU several times: the chosen tokens decide in Python what comes next, and
Python starts every operation. This batch computes the same texts in another way:

- A step has shapes from a small set of buckets, and all that varies is a tensor (`static_buffer`,
  `static_group`). On CUDA each of its parts is recorded once and then replayed (`step_graphs`).
- The chosen tokens stay on the device, where the next step reads them. The host reads them one step later,
  while the device computes. A text that has ended runs on until then, and what it gives is dropped.
- Each branch has a row of its own. The rows of ended texts are only freed when that halves the step, or lets
  waiting requests begin.
- A negative runs at all steps, also where its schedule turns guidance off. The trace shows it as not run.

What depends on the host at every token stays with `Batch`: beam search, stop strings, guidance that ends by a
stopping condition, and rules and samplers that are not part of this package (`runs_on_device`). So do models
whose steps cannot be static (`CausalModel.static_length`).
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import torch

from cfg_lab.decoding.group import row_numbers
from cfg_lab.decoding.model import CausalModel, Context, context_after
from cfg_lab.decoding.model_rows import Owner
from cfg_lab.decoding.not_a_number import not_a_number
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.decoding.row_needs import most_rows, row_needs
from cfg_lab.decoding.sampling import Greedy, Sampling
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.decoding.static_buffer import row_bucket
from cfg_lab.decoding.static_group import GOES_ON, StaticGroup, static_key
from cfg_lab.decoding.static_rows import StaticRows
from cfg_lab.decoding.step_graphs import StepGraphs
from cfg_lab.decoding.trace import TRACE_FIELDS
from cfg_lab.decoding.transfer import HostCopy
from cfg_lab.guidance.rule import Rule
from cfg_lab.guidance.stopping import NeverStop

_GUIDED = TRACE_FIELDS.index("guided")

_STEPS_AHEAD = 1
"""Number of steps that are started before the host has read what the step before has chosen."""

_SHARE_OF_ROWS = 8
"""Waiting requests begin when at least one in so many rows can be freed for them."""


def runs_on_device(request: Request) -> bool:
    """Whether nothing in a request needs the host at every token."""
    guidance = request.guidance
    if request.stop_when is not None or type(request.sampling) not in {type(None), Greedy, Sampling}:
        return False
    if guidance is None:
        return True
    if not isinstance(guidance, Rule) or not isinstance(guidance.stopping, NeverStop):
        return False
    # What is recorded must depend on nothing but its arguments. Nobody knows that of other people's code.
    parts = (guidance, guidance.adaptive, *guidance.modifiers)
    return all(type(part).__module__.startswith("cfg_lab.guidance.") for part in parts)


@dataclass(eq=False)
class _Text:
    """A running text. Its newest token may not have been read yet.

    Attributes:
        first_step: number of the batch's step that has chosen its first token, or would have.
        key: the key of its group.
    """

    state: RequestState
    first_step: int
    key: tuple[object, ...]

    @property
    def sequence(self) -> SequenceState:
        return self.state.sequences[0]

    @property
    def has_ended(self) -> bool:
        return self.state.finish_reason is not None


class StaticBatch:
    """Waiting and running requests, all of which run on the device. It is used like `Batch`.

    Args:
        models, max_rows, waiting: as for `Batch`.

    Attributes:
        running: requests that have rows and have not ended.
        finished: requests whose texts have ended, until the caller removes them.
        graphs: runs the operations of the steps.
    """

    def __init__(
        self, models: Mapping[str | None, CausalModel], max_rows: int, waiting: Iterable[RequestState]
    ) -> None:
        self.models = models
        self.waiting = deque(waiting)
        self.finished: deque[RequestState] = deque()
        self.graphs = StepGraphs(models[None].device)
        self.live_rows = 0
        self._texts: list[_Text] = []
        self._live = 0  # number of texts that have not ended
        self._steps = 0
        self._started: deque[list[tuple[StaticGroup, list[_Text], HostCopy]]] = deque()
        self._groups: dict[tuple[object, ...], tuple[StaticGroup, list[_Text]]] = {}
        self._prepare(max_rows)

    def _prepare(self, max_rows: int) -> None:
        """Allocate the rows of all models, and the tensors between models and groups."""
        requests = [state.request for state in self.waiting]
        needs = row_needs(self.models, requests)
        self.model_rows: dict[str | None, StaticRows] = {}
        first_row = 0
        for name, (count, length) in needs.items():
            # A text that has ended runs on for a step, and needs a column more.
            columns = length + _STEPS_AHEAD + 32 * (count > max_rows)
            rows = StaticRows(self.models[name], min(max_rows, count), columns + 1, first_row)
            self.model_rows[name] = rows
            first_row += rows.capacity
        for state in self.waiting:
            for name, context in self._contexts(state):
                self.model_rows[name].prefixes.expect(context)
        device = self.models[None].device
        vocab = max(self.models[name].vocab_size for name in needs)
        self._next_ids = torch.zeros(first_row + 1, dtype=torch.long, device=device)
        # A model with a smaller vocabulary than another leaves its last logits at -inf.
        self._logits = torch.full((first_row + 1, vocab), -math.inf, dtype=torch.float32, device=device)
        self._logits[-1] = 0
        self._longest = max(request.max_new_tokens for request in requests)
        self._stop_count = max(len(request.stop_ids) for request in requests)

    @property
    def running(self) -> list[RequestState]:
        return [text.state for text in self._texts if not text.has_ended]

    def step(self) -> int:
        """Start one step, and read the step before. Return the number of new tokens that were read."""
        if self._should_repack():
            self._repack()
        self.live_rows = 0
        if self._live:
            self._start()
        new_tokens = 0
        while len(self._started) > (_STEPS_AHEAD if self._live else 0):
            new_tokens += self._read()
        if not self._live:
            self._repack()
        return new_tokens

    def _contexts(self, state: RequestState) -> list[tuple[str | None, Context]]:
        """A pair (model name, context) for each branch of a request."""
        tokens = tuple(state.sequences[0].tokens)
        return [(name, context_after(self.models[name], ids, tokens)) for name, ids in state.request.contexts]

    def _should_repack(self) -> bool:
        """Whether freeing the rows of ended texts halves the step, or lets waiting requests begin.

        Recording a step of another shape costs as much as many steps.
        """
        if not self._live:
            return bool(self.waiting)
        ended = Counter[str | None]()
        for text in self._texts:
            if text.has_ended:
                ended += most_rows(text.sequence.request)
        for name, count in ended.items():
            rows = self.model_rows[name]
            live = rows.buffer.live
            if self.waiting and count >= rows.rows // _SHARE_OF_ROWS:
                return True
            if 2 * row_bucket(live - count) <= row_bucket(live) or not rows.buffer.has_room():
                return True
        return False

    def _repack(self) -> None:
        """Free the rows of ended texts, admit waiting requests, and divide all texts into groups again."""
        self._texts = [text for text in self._texts if not text.has_ended]
        unfinished = {id(text.sequence) for text in self._texts}
        for rows in self.model_rows.values():
            kept = {row for row, (sequence, _) in enumerate(rows.owners) if id(sequence) in unfinished}
            rows.keep(kept, self._next_ids)
        self._admit()
        self._live = len(self._texts)
        by_key: dict[tuple[object, ...], list[_Text]] = defaultdict(list)
        for text in self._texts:
            by_key[text.key].append(text)
        for key, texts in by_key.items():
            if key not in self._groups:
                self._groups[key] = self._new_group(texts[0].state), []
        for key, (group, texts) in self._groups.items():
            texts[:] = by_key.get(key, [])
            group.set_requests(
                [text.sequence.request for text in texts],
                [self._steps - text.first_step for text in texts],
                [row_numbers(text.sequence, self.model_rows) for text in texts],
            )

    def _admit(self) -> None:
        """Give rows to waiting requests, in order, until the next one needs more rows than are free."""
        free = Counter({name: rows.rows - rows.buffer.live for name, rows in self.model_rows.items()})
        new: dict[str | None, list[tuple[Context, Owner]]] = defaultdict(list)
        while self.waiting:
            state = self.waiting[0]
            needed = most_rows(state.request)
            if any(count > free[name] for name, count in needed.items()):
                break
            free.subtract(needed)
            self.waiting.popleft()
            (sequence,) = state.sequences
            key = static_key(state.request, state.formula)
            self._texts.append(_Text(state, self._steps - len(sequence.tokens), key))
            contexts = self._contexts(state)
            sequence.rows = [0] * len(contexts)
            for branch, (name, context) in enumerate(contexts):
                new[name].append((context, (sequence, branch)))
        for name, contexts in new.items():
            self.model_rows[name].admit(contexts, self._next_ids)

    def _new_group(self, state: RequestState) -> StaticGroup:
        request = state.request
        return StaticGroup(
            request,
            state.formula if request.branches else None,
            capacity=self.model_rows[None].rows,
            vocab=min(self.models[name].vocab_size for name, _ in request.contexts),
            longest=self._longest,
            stop_count=self._stop_count,
            logits=self._logits,
            next_ids=self._next_ids,
        )

    def _start(self) -> None:
        """Start one step of all running texts. On CUDA this returns before the step is computed."""
        for rows in self.model_rows.values():
            self.live_rows += rows.buffer.live
            rows.forward(self.graphs, self._next_ids, self._logits)
        self._started.append(
            [(group, [*texts], group.run(self.graphs)) for group, texts in self._groups.values() if texts]
        )
        self._steps += 1

    def _read(self) -> int:
        """Read the oldest step that has not been read. Return the number of new tokens."""
        new_tokens = 0
        for group, texts, copy in self._started.popleft():
            values = group.read(copy)
            for text, token, state, trace, likeliest in zip(texts, *values, strict=True):
                if text.has_ended:
                    continue
                if math.isnan(trace[_GUIDED]):
                    raise not_a_number(self.models, group.formula, text.sequence, trace)
                text.sequence.append(token, trace, likeliest)
                new_tokens += 1
                if state != GOES_ON:
                    text.state.update_finish_reason()
                    self.finished.append(text.state)
                    self._live -= 1
        return new_tokens

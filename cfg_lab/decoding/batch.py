"""The batch: requests that wait, requests that run, and the rows of every model.

One step, in the order in which `Decoder` calls it:

1. fork: if sequences that share a row have chosen different tokens, the row is copied, so that each of these
   tokens has its own row.
2. admit: waiting requests get rows, one per branch, while enough rows are free. Each context is prefilled
   except for its last token.
3. forward: every model reads one token in each of its live rows.
4. guide: the guidance rule combines the branches of each sequence into one distribution of its next token.
5. sample: each sequence chooses its next token. The noise of this choice is a hash of the request and the
   position.
6. record: each chosen token and its trace values are appended to its sequence.
7. release: the rows of finished texts are freed, and also the rows of negatives that the next token does not
   need. A request whose guidance starts at the next token waits until rows for its negatives are free.

The text of a request does not depend on the other requests, on their order or on the number of rows:

- A row attends only to its own keys and values, and its positions count from its own first token.
- Branches share a row only as long as they have read the same tokens.
- Guidance rules and samplers treat each sequence by itself.
- The noise is a function of the request and the position. No random number generator is used.

Only the last bits of floating-point sums can differ: the hardware may add the numbers in another order if the
batch has another shape.

Names of dimensions in shapes: `rows` are the live rows of all models, and `sequences` are the sequences of
one group (a set of requests that one call guides). `branches` are the negatives that run, and `vocab` are
the tokens of the vocabulary.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from cfg_lab.decoding.beam_state import BeamState
from cfg_lab.decoding.group import Group, StepResult, group_key, make_group
from cfg_lab.decoding.model import CausalModel, Context, context_after
from cfg_lab.decoding.model_rows import ModelRows, Owner
from cfg_lab.decoding.not_a_number import not_a_number
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.decoding.row_needs import row_needs
from cfg_lab.decoding.sequence_state import SequenceState
from cfg_lab.decoding.trace import TRACE_FIELDS

_GUIDED = TRACE_FIELDS.index("guided")

_CACHED_NUMBERS = 400_000
"""Number of float32 values, about 1.5 MB, that several operations can read from the cache of a CPU core."""


class Batch:
    """Waiting and running requests, and the rows of each model.

    Args:
        models: maps a name to a model. Branches refer to models by these names. The key None stands for the
            model that runs the positive contexts.
        max_rows: largest number of rows of each model.
        waiting: requests in the order of admission.

    Attributes:
        running: requests that have rows.
        finished: requests whose texts have ended, until the caller removes them.
        groups: the running requests, divided into groups. All requests of a group are guided by one call,
            and their tokens are sampled by one call.
        live_rows: number of rows of all models that the last step has run. A row that branches share counts
            once.
        model_rows: maps the name of a model to the rows of this model.
    """

    def __init__(
        self, models: Mapping[str | None, CausalModel], max_rows: int, waiting: Iterable[RequestState]
    ) -> None:
        self.models = models
        self.waiting = deque(waiting)
        self.running: list[RequestState] = []
        self.finished: deque[RequestState] = deque()
        self.groups: list[Group] = []
        self.live_rows = 0
        # The longest request fits. If others will follow it, 32 more columns make moves of the columns rare.
        self.model_rows = {
            name: ModelRows(models[name], min(max_rows, rows), length + 32 * (rows > max_rows))
            for name, (rows, length) in row_needs(models, [s.request for s in self.waiting]).items()
        }
        for state in self.waiting:
            for sequence in state.sequences:
                sequence.rows = []  # it may have run in an earlier batch
            self._expect(state)
        # On a CPU the distributions of one group should fit the CPU's cache. A GPU needs large groups.
        on_cpu = models[None].device.type == "cpu"
        self._max_group_rows = max(1, _CACHED_NUMBERS // models[None].vocab_size) if on_cpu else max_rows

    def step(self) -> int:
        """Run one step, as the module says. Return the number of new tokens; a beam search counts as one."""
        self.fork()
        self.admit()
        self.live_rows = sum(rows.buffer.live for rows in self.model_rows.values())
        logits = self.forward()
        self.record(self.guide_and_sample(logits))
        new_tokens = len(self.running)
        self.release()
        return new_tokens

    def fork(self) -> None:
        """Copy each row whose sequences have chosen different tokens. Then each token has its own row."""
        copied = [rows.fork() for rows in self.model_rows.values()]
        if any(copied):
            self._regroup()

    def admit(self) -> None:
        """Give rows to waiting requests, in order, until the next one needs more rows than are free.

        The number of free rows is computed as if no running request shared a row with another branch. So
        there are still enough rows when shared rows are copied later.
        """
        if not self.waiting:
            return
        free_rows = Counter({name: rows.buffer.rows for name, rows in self.model_rows.items()})
        for state in self.running:
            free_rows.subtract(state.rows_needed)
        new_owners: dict[str | None, dict[Context, list[Owner]]] = defaultdict(lambda: defaultdict(list))
        while self.waiting:
            state = self.waiting[0]
            needed = state.rows_needed
            if any(count > free_rows[name] for name, count in needed.items()):
                break
            free_rows.subtract(needed)
            self.running.append(self.waiting.popleft())
            for sequence in state.sequences:
                contexts = self._contexts(state, sequence)
                sequence.rows = [0] * len(contexts)
                for branch, (name, context) in enumerate(contexts):
                    new_owners[name][context].append((sequence, branch))
        for name, owners in new_owners.items():
            self.model_rows[name].admit(owners)
        if new_owners:
            self._regroup()

    def forward(self) -> Tensor:
        """Run every model on its live rows, one model after another. Return logits [rows, vocab], float32.

        The logits of a model with a smaller vocabulary than another model are padded with -inf.
        """
        logits = [rows.forward() for rows in self.model_rows.values()]
        if len(logits) == 1:
            return logits[0]
        vocab, device = max(of_model.shape[1] for of_model in logits), logits[0].device
        return torch.cat(
            [
                torch.nn.functional.pad(of_model.to(device), (0, vocab - of_model.shape[1]), value=-math.inf)
                for of_model in logits
            ]
        )

    def guide_and_sample(self, logits: Tensor) -> list[StepResult]:
        """Choose the next token of every running sequence from logits [rows, vocab].

        A group is a set of requests that one call guides and one call samples. A group is sampled right after
        it is guided, while its distributions are still in the cache of the CPU.
        """
        results: list[StepResult] = []
        for group in self.groups:
            # The distributions of the previous group are freed only after those of this group are computed.
            # Otherwise their memory would be returned to the system and allocated again for every group.
            distributions = group.guide(logits)
            results.append(group.sample(distributions))
        return results

    def record(self, results: list[StepResult]) -> None:
        """Append each chosen token and its trace values to its text, and find out which texts have ended.

        Raises:
            ModelError: the guided log-prob of a chosen token is NaN. A model gave it (NotANumberError), or
                the guidance rule did.
        """
        for result in results:
            group, extensions = result.group, result.extensions
            if extensions is None:
                sequences = group.sequences
            else:
                sequences = [group.sequences[extension.parent].copy() for extension in extensions]
            tokens = cast("list[int]", result.tokens.tolist())
            trace = cast("list[list[float]]", result.trace.tolist())
            for sequence, token, numbers, alternatives in zip(
                sequences, tokens, trace, result.alternatives(), strict=True
            ):
                if math.isnan(numbers[_GUIDED]):
                    raise not_a_number(self.models, group.formula, sequence, numbers)
                sequence.append(token, numbers, alternatives)
            if group.beam is None or extensions is None:
                for state in group.states:
                    state.update_finish_reason()
            else:
                self._move_to_parents(group.beam, group.beam.advance(extensions, sequences))
            group.steps += 1

    def release(self) -> None:
        """Free the rows that the next step does not need, and move ended texts from running to finished."""
        starting = [state for state in self.running if _needs_more_rows(state)]
        # Copies come first: if memory runs out here, nothing has changed yet.
        for state in starting:
            for sequence in state.sequences:
                _, context = self._contexts(state, sequence)[0]
                self.model_rows[None].save_prefix(sequence.rows[0], context)
        finished: list[RequestState] = []
        still_running: list[RequestState] = []
        # A beam search may have moved all its hypotheses off a row.
        changed = any(isinstance(state, BeamState) for state in self.running)
        for state in self.running:
            if state.finish_reason is not None:
                self._release_rows(state, 0)
                finished.append(state)
            elif _needs_more_rows(state):
                self._wait_for_rows(state)
            else:
                still_running.append(state)
                needed = len(state.contexts)
                if needed == state.running_branches:
                    continue
                self._release_rows(state, needed)
            changed = True
        if changed:
            self.running = still_running
            self.finished += finished
            for rows in self.model_rows.values():
                rows.free_unowned()
            self._regroup()

    def _contexts(self, state: RequestState, sequence: SequenceState) -> list[tuple[str | None, Context]]:
        """A pair (model name, context) for each branch that a sequence needs for its next token."""
        tokens = tuple(sequence.tokens)
        return [(name, context_after(self.models[name], ids, tokens)) for name, ids in state.contexts]

    def _expect(self, state: RequestState) -> None:
        """Count the contexts that a waiting request will start with."""
        for sequence in state.sequences:
            for name, context in self._contexts(state, sequence):
                self.model_rows[name].prefixes.expect(context)

    def _wait_for_rows(self, state: RequestState) -> None:
        """Make a running request wait, because its negatives now need rows.

        Its rows are freed, and the request is put first in the queue.
        """
        self._expect(state)
        self._release_rows(state, 0)
        self.waiting.appendleft(state)

    def _release_rows(self, state: RequestState, first_branch: int) -> None:
        """Remove branch `first_branch` and all later branches of a request from the rows that they run on."""
        for sequence in state.sequences:
            for branch in range(first_branch, len(sequence.rows)):
                self._rows_of(sequence, branch).release((sequence, branch))
            del sequence.rows[first_branch:]

    def _move_to_parents(self, beam: BeamState, parents: list[int]) -> None:
        """Move each hypothesis of a beam search to the rows of its parent.

        A new hypothesis is its parent, a hypothesis of the previous step, and one more token. The KV cache in
        the parent's rows covers all tokens but this one, so the new hypothesis continues in these rows.

        Args:
            parents: for each new hypothesis the index of its parent.
        """
        rows_before = [[*hypothesis.rows] for hypothesis in beam.sequences]
        self._release_rows(beam, 0)
        for hypothesis, parent in zip(beam.sequences, parents, strict=True):
            hypothesis.rows = [*rows_before[parent]]
            for branch, row in enumerate(hypothesis.rows):
                self._rows_of(hypothesis, branch).share(row, (hypothesis, branch))

    def _rows_of(self, sequence: SequenceState, branch: int) -> ModelRows:
        """The `ModelRows` of the model that runs a branch of a sequence."""
        name, _ = sequence.request.contexts[branch]
        return self.model_rows[name]

    def _regroup(self) -> None:
        """Divide the running requests into groups again, after rows were added, copied or freed."""
        first_row = 0
        for rows in self.model_rows.values():
            rows.first_row = first_row
            first_row += rows.buffer.live
        by_key: dict[tuple[object, ...], list[RequestState]] = defaultdict(list)
        for state in self.running:
            by_key[group_key(state)].append(state)
        self.groups = []
        for states in by_key.values():
            size = max(1, self._max_group_rows // states[0].running_branches)
            for first in range(0, len(states), size):
                self.groups.append(make_group(states[first : first + size], self.model_rows, self.models))


def _needs_more_rows(state: RequestState) -> bool:
    """Whether the next token of a running request needs negatives, and these negatives have no rows yet."""
    return state.finish_reason is None and len(state.contexts) > state.running_branches

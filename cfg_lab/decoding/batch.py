"""A batch and what happens to it at a step: part, admit, forward, guide, sample, record, release.

Sequences whose branches have seen the same tokens share rows: the cells of a grid begin alike, and where
they choose alike (greedily, or with the same noise) stay so for a while. They part when they choose
differently.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Protocol, cast

import torch
from torch import Tensor

from cfg_lab.decoding.columns import Columns, Prefix
from cfg_lab.decoding.trace import measure
from cfg_lab.guidance import Guidance, log_probs
from cfg_lab.records import Completion, FinishReason, Request, Trace
from cfg_lab.sampling import Greedy, Sampler, position_keys

Context = tuple[int, ...]

_CACHED_NUMBERS = 400_000
"""float32 numbers that several passes may go over within a CPU core's own cache, about 1.5 MB."""


class CausalModel(Protocol):
    """What the decoder asks of a model."""

    @property
    def name(self) -> str: ...
    @property
    def device(self) -> torch.device: ...
    @property
    def context_length(self) -> int: ...
    @property
    def vocab_size(self) -> int: ...

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, columns: Columns, keep: int = 1
    ) -> Tensor:
        """Run ids [rows, q] at positions [rows, q], writing keys and values to the columns.

        mask [rows, width] bool says which columns a row may look at, its own included, and goes with q = 1;
        None is causal attention to every column from `columns.low` on. Returns the logits of the last
        `keep` positions, [rows, keep, vocab] float32.
        """
        ...


class NotANumberError(RuntimeError):
    """The model's logits are not numbers. `model`, `request` and `step` say where."""

    def __init__(self, model: str, request: Request, step: int) -> None:
        super().__init__(
            f"model {model!r} gave logits that are not numbers at step {step} of the prompt with token ids "
            f"{list(request.positive[:8])}…; a wider dtype (model.dtype=float32) may help"
        )
        self.model, self.request, self.step = model, request, step


@dataclass(eq=False)
class Sequence:
    """A request being decoded: the row of each context, while it is live, and what has come so far."""

    request: Request
    rows: list[int] = field(default_factory=list[int])
    tokens: list[int] = field(default_factory=list[int])
    trace: list[list[float]] = field(default_factory=list[list[float]])

    @property
    def contexts(self) -> list[Context]:
        """What each row has to have seen: the context of its branch and the new tokens."""
        contexts = [self.request.positive, *(branch.ids for branch in self.request.branches)]
        return [(*context, *self.tokens) for context in contexts] if self.tokens else contexts

    @property
    def longest(self) -> int:
        """Tokens of the longest row once all new tokens are there."""
        return max(map(len, self.contexts)) + self.request.max_new_tokens - len(self.tokens)

    def finish_reason(self) -> FinishReason | None:
        request = self.request
        if self.tokens[-1] in request.stop_ids or (request.stop_when and request.stop_when(self.tokens)):
            return "stop"
        return "length" if len(self.tokens) == request.max_new_tokens else None

    def completion(self, reason: FinishReason) -> Completion:
        return Completion(
            request=self.request,
            tokens=tuple(self.tokens),
            finish_reason=reason,
            trace=Trace.of(self.trace),
        )


@dataclass(eq=False)
class Group:
    """Live sequences alike in guidance, sampler and number of branches: one call a step serves them all."""

    guidance: Guidance | None
    sampler: Sampler
    sequences: list[Sequence]
    positive: Tensor  # [members] row numbers
    negatives: Tensor  # [members, branches] row numbers
    weights: Tensor  # [members, branches] float32
    keys: Tensor  # [members] noise keys
    steps: Tensor  # [members] new tokens so far


@dataclass(eq=False)
class Chosen:
    """The outcome of a step for one group."""

    group: Group
    tokens: Tensor  # [members]
    trace: Tensor  # [members, 6], in the order of Trace's fields


class Batch:
    """Live sequences, the waiting ones, and the key-value buffer the live ones share."""

    def __init__(self, model: CausalModel, max_rows: int, waiting: Iterable[Sequence]) -> None:
        self.model = model
        self.waiting = deque(waiting)
        self.live: list[Sequence] = []
        self.groups: list[Group] = []
        self.owners: list[list[tuple[Sequence, int]]] = []  # of each live row: sequences and their branches
        wanted = sum(sequence.request.rows for sequence in self.waiting)
        rows = min(max_rows, wanted)
        # The longest sequence fits; where others will follow, some room makes it rare to move the buffer.
        longest = max(sequence.longest for sequence in self.waiting)
        self.columns = Columns(rows, longest + (32 if wanted > rows else 0), model.device)
        self.next_ids = torch.zeros(rows, 1, dtype=torch.long, device=model.device)
        # On a CPU what a step works on should stay in its cache; a GPU wants much at once.
        on_cpu = model.device.type == "cpu"
        self.group_rows = max(1, _CACHED_NUMBERS // model.vocab_size) if on_cpu else rows
        self.prefill_tokens = 2048 if on_cpu else 16384
        self.prefixes: dict[Context, Prefix] = {}
        self.wanted = Counter(context[:-1] for sequence in self.waiting for context in sequence.contexts)

    def widest(self) -> int:
        """Rows the widest unfinished request needs."""
        return max(sequence.request.rows for sequence in [*self.live, *self.waiting])

    def admit(self) -> None:
        """Give free rows to waiting sequences.

        A context's last token is not prefilled but fed at the next step, so that the step treats new and
        old rows alike.
        """
        # Rows that are shared now may be needed later, one each.
        free = self.columns.rows - sum(len(sequence.rows) for sequence in self.live)
        newcomers: list[Sequence] = []
        while self.waiting and self.waiting[0].request.rows <= free:
            newcomers.append(self.waiting.popleft())
            free -= newcomers[-1].request.rows
        if not newcomers:
            return
        self.live += newcomers
        owners: dict[Context, list[tuple[Sequence, int]]] = defaultdict(list)
        for sequence in newcomers:
            sequence.rows = [0] * sequence.request.rows
            for branch, context in enumerate(sequence.contexts):
                owners[context].append((sequence, branch))
                self.wanted[context[:-1]] -= 1
        self._prefill({context[:-1] for context in owners} - self.prefixes.keys())
        rows = self.columns.admit([self.prefixes[context[:-1]] for context in owners])
        for row, (context, owning) in zip(rows, owners.items(), strict=True):
            self._own(row, owning)
            self.next_ids[row] = context[-1]
            if not self.wanted[context[:-1]]:
                self.prefixes.pop(context[:-1], None)
        self._regroup()

    def forward(self) -> Tensor:
        """Run the model on every live row: logits [rows, vocab] float32."""
        columns = self.columns
        logits = self.model.forward(
            self.next_ids[: columns.live], columns.positions(), columns.mask(), columns
        )
        columns.advance()
        return logits[:, 0]

    def guide_and_sample(self, logits: Tensor) -> list[Chosen]:
        """Combine each sequence's branches into one distribution and choose its next token."""
        chosen: list[Chosen] = []
        for group in self.groups:
            positive = log_probs(logits[group.positive])  # [members, vocab]
            negatives = log_probs(logits[group.negatives])  # [members, branches, vocab]
            guided = positive
            if group.guidance is not None:
                guided = log_probs(group.guidance.combine(positive, negatives, group.weights, group.steps))
            tokens = group.sampler.choose(guided, position_keys(group.keys, group.steps))
            trace = measure(guided, positive, negatives, group.weights, tokens)
            chosen.append(Chosen(group, tokens, trace))
        return chosen

    def record(self, chosen: list[Chosen]) -> None:
        """Append the chosen tokens and their trace to the sequences."""
        for choice in chosen:
            group = choice.group
            tokens = cast("list[int]", choice.tokens.tolist())
            traces = cast("list[list[float]]", choice.trace.tolist())
            for sequence, token, numbers in zip(group.sequences, tokens, traces, strict=True):
                step = len(sequence.tokens)
                if math.isnan(numbers[0]):
                    raise NotANumberError(self.model.name, sequence.request, step)
                scale = group.guidance.scale_at(step) if group.guidance is not None else 1.0
                sequence.tokens.append(token)
                sequence.trace.append([*numbers, scale])
            group.steps += 1

    def release(self) -> list[Completion]:
        """Free the rows of finished sequences; live rows stay without gaps."""
        finished: list[Completion] = []
        unfinished: list[Sequence] = []
        for sequence in self.live:
            reason = sequence.finish_reason()
            if reason is None:
                unfinished.append(sequence)
            else:
                finished.append(sequence.completion(reason))
                for branch, row in enumerate(sequence.rows):
                    self.owners[row].remove((sequence, branch))
        if finished:
            self.live = unfinished
            for row in reversed(range(self.columns.live)):
                if not self.owners[row]:
                    self.columns.drop(row)  # the last row now stands at `row`
                    last = self.owners.pop()
                    if last:
                        self._own(row, last)
            self._regroup()
        return finished

    def part(self) -> None:
        """Give sequences that have shared a row and chosen different tokens rows of their own, and feed the
        chosen tokens to all rows."""
        sources: list[int] = []
        parted: list[list[tuple[Sequence, int]]] = []
        for row, owning in enumerate(self.owners):
            by_token: dict[int, list[tuple[Sequence, int]]] = defaultdict(list)
            for sequence, branch in owning:
                by_token[sequence.tokens[-1]].append((sequence, branch))
            self.owners[row], *others = by_token.values()
            sources += [row] * len(others)
            parted += others
        if parted:
            for row, owning in zip(self.columns.fork(sources), parted, strict=True):
                self._own(row, owning)
            self._regroup()
        tokens = [owning[0][0].tokens[-1] for owning in self.owners]
        self.next_ids[: len(tokens), 0] = torch.tensor(tokens, dtype=torch.long)

    def _own(self, row: int, owning: list[tuple[Sequence, int]]) -> None:
        """These branches of these sequences are run on this row, an old one or the next."""
        self.owners[row : row + 1] = [owning]
        for sequence, branch in owning:
            sequence.rows[branch] = row

    def _prefill(self, missing: set[Context]) -> None:
        """Compute keys and values of contexts; what a chunk's contexts begin with alike is computed once."""
        self.prefixes.setdefault((), [])
        for chunk in _chunks(sorted(missing - {()}, key=len), self.prefill_tokens):
            shared = chunk[0][: min(_shared(chunk), len(chunk[0]) - 1)] if len(chunk) > 1 else ()
            (start,) = self._run([shared], (), []) if shared else [[]]
            self.prefixes.update(zip(chunk, self._run(chunk, shared, start), strict=True))

    def _run(self, contexts: list[Context], shared: Context, start: Prefix) -> list[Prefix]:
        """Keys and values of contexts that begin with `shared`, whose own are `start`. The rest is padded on
        the right, where causal attention never looks."""
        device, done = self.model.device, len(shared)
        width = max(map(len, contexts))
        ids = torch.tensor([[*context, *[0] * (width - len(context))] for context in contexts])[:, done:]
        positions = torch.arange(done, width).expand(len(contexts), -1)
        scratch = Columns(len(contexts), width, device)
        scratch.admit([start] * len(contexts))
        self.model.forward(ids.to(device), positions.to(device), None, scratch)
        return [scratch.prefix(row, len(context)) for row, context in enumerate(contexts)]

    def _regroup(self) -> None:
        """Work out, at every change of membership, which sequences are guided and sampled together."""
        alike: dict[tuple[Guidance | None, Sampler, int], list[Sequence]] = defaultdict(list)
        for sequence in self.live:
            request = sequence.request
            guidance = request.guidance if request.branches else None
            alike[guidance, request.sampling or Greedy(), request.rows].append(sequence)
        self.groups = []
        for (guidance, sampler, rows), members in alike.items():
            size = max(1, self.group_rows // rows)
            for first in range(0, len(members), size):
                some = members[first : first + size]
                self.groups.append(Group(guidance, sampler, some, *_tensors(some, self.model.device)))


def _tensors(members: list[Sequence], device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """positive, negatives, weights, keys and steps of a Group."""
    rows = torch.tensor([sequence.rows for sequence in members], device=device)
    weights = [[branch.weight for branch in sequence.request.branches] for sequence in members]
    return (
        rows[:, 0],
        rows[:, 1:],
        torch.tensor(weights, dtype=torch.float32, device=device),
        torch.tensor([sequence.request.noise_key for sequence in members], device=device),
        torch.tensor([len(sequence.tokens) for sequence in members], device=device),
    )


def _shared(contexts: list[Context]) -> int:
    """How many tokens all contexts begin with."""
    low, high = min(contexts), max(contexts)  # in the order of tokens, not of length
    return next(
        (n for n, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), min(len(low), len(high))
    )


def _chunks(contexts: list[Context], tokens: int) -> Iterator[list[Context]]:
    """Contexts, sorted by length, in chunks of at most so many padded tokens."""
    chunk: list[Context] = []
    for context in contexts:
        if chunk and len(context) * (len(chunk) + 1) > tokens:
            yield chunk
            chunk = []
        chunk.append(context)
    if chunk:
        yield chunk

"""A batch and what happens to it at a step: part, admit, forward, guide, sample, record, release.

Each model has a lane of rows; a sequence has a row in the lane of each of its branches.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict, deque
from collections.abc import Iterable, Mapping
from typing import cast

import torch
from torch import Tensor

from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.group import Chosen, Group, group_of
from cfg_lab.decoding.lane import Lane, Owner
from cfg_lab.decoding.measurements import alternatives, measure
from cfg_lab.decoding.model import CausalModel, Context, NotANumberError, context
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import position_keys
from cfg_lab.decoding.sequence import Sequence
from cfg_lab.guidance import log_probs

_CACHED_NUMBERS = 400_000
"""float32 numbers that several passes may go over within a CPU core's own cache, about 1.5 MB."""


class Batch:
    """Live sequences, the waiting ones, and a lane of rows for each model.

    Args:
        models: by the name that branches call them; the positive's under None.
        max_rows: of each lane.
    """

    def __init__(
        self, models: Mapping[str | None, CausalModel], max_rows: int, waiting: Iterable[Sequence]
    ) -> None:
        self.models = models
        self.waiting = deque(waiting)
        self.live: list[Sequence] = []
        self.groups: list[Group] = []
        needed: Counter[str | None] = Counter()
        longest: Counter[str | None] = Counter()
        wanted: dict[str | None, Counter[Context]] = defaultdict(Counter)
        for sequence in self.waiting:
            needed += rows_of(sequence.request)
            for name, ids in sequence.request.contexts:
                begun = len(context(models[name], ids, ()).ids)
                longest[name] = max(longest[name], begun + sequence.request.max_new_tokens)
            for name, seen in (seen for one in sequence.together for seen in self._contexts(one)):
                wanted[name][seen.before] += 1
        # The longest sequence fits; where others will follow, some room makes it rare to move the columns.
        self.lanes = {
            name: Lane(
                models[name], min(max_rows, rows), longest[name] + 32 * (rows > max_rows), wanted[name]
            )
            for name, rows in needed.items()
        }
        # On a CPU what is guided at once should stay in its cache; a GPU wants much at once.
        on_cpu = models[None].device.type == "cpu"
        self.group_rows = max(1, _CACHED_NUMBERS // models[None].vocab_size) if on_cpu else max_rows

    def admit(self) -> None:
        """Give free rows to waiting sequences. Rows that are shared now may be needed later, one each."""
        free = Counter({name: lane.columns.rows for name, lane in self.lanes.items()})
        for sequence in self.live:
            free.subtract(name for name, _ in sequence.contexts)
        newcomers: dict[str | None, dict[Context, list[Owner]]] = defaultdict(lambda: defaultdict(list))
        begun = len(self.live)
        while self.waiting:
            together = self.waiting[0].together
            needed = Counter(name for one in together for name, _ in one.contexts)
            if any(rows > free[name] for name, rows in needed.items()):
                break
            free.subtract(needed)
            self.waiting.popleft()
            self.live += together
            for sequence in together:
                sequence.rows = [0] * len(sequence.contexts)
                for number, (name, seen) in enumerate(self._contexts(sequence)):
                    newcomers[name][seen].append((sequence, number))
        for name, owners in newcomers.items():
            self.lanes[name].admit(owners)
        if len(self.live) > begun:
            self._regroup()

    def forward(self) -> Tensor:
        """Run the models on every live row: logits [rows, vocab] float32, of all lanes one after another."""
        logits = [lane.forward() for lane in self.lanes.values()]
        if len(logits) == 1:
            return logits[0]
        vocab, device = max(one.shape[1] for one in logits), logits[0].device
        return torch.cat(
            [
                torch.nn.functional.pad(one.to(device), (0, vocab - one.shape[1]), value=-math.inf)
                for one in logits
            ]
        )

    def guide_and_sample(self, logits: Tensor) -> list[Chosen]:
        """Combine each sequence's branches into one distribution and choose its next token."""
        chosen: list[Chosen] = []
        for group in self.groups:
            positive = log_probs(logits[group.positive, : group.vocab])  # [members, vocab]
            negatives = log_probs(logits[group.negatives, : group.vocab])  # [members, branches, vocab]
            scales = torch.tensor([one.scale for one in group.sequences], device=positive.device)
            guided = positive
            if group.guidance is not None:
                guided, scales = group.guidance.guide(positive, negatives, group.weights, scales)
            extensions = None
            weights = group.weights
            if group.beam is None:
                tokens = group.sampler.choose(guided, position_keys(group.keys, group.steps))
            else:
                extensions = group.beam.choose(guided)
                tokens = torch.tensor([one.token for one in extensions], device=guided.device)
                parents = [one.parent for one in extensions]
                guided, positive, negatives = guided[parents], positive[parents], negatives[parents]
                weights, scales = weights[parents], scales[parents]
            trace = measure(guided, positive, negatives, weights, tokens, scales)
            top = alternatives(guided, positive, negatives, weights, group.top) if group.top else []
            chosen.append(Chosen(group, tokens, trace, extensions, top))
        return chosen

    def record(self, chosen: list[Chosen]) -> None:
        """Append the chosen tokens and their trace to the sequences."""
        for choice in chosen:
            group = choice.group
            tokens = cast("list[int]", choice.tokens.tolist())
            traces = cast("list[list[float]]", choice.trace.tolist())
            members = group.sequences
            if choice.extensions is not None:
                members = [members[one.parent].copy() for one in choice.extensions]
            for number, (sequence, token, numbers) in enumerate(zip(members, tokens, traces, strict=True)):
                if math.isnan(numbers[0]):
                    broken = [None] if math.isnan(numbers[1]) else [name for name, _ in sequence.contexts[1:]]
                    names = dict.fromkeys(self.models[name].name for name in broken)
                    raise NotANumberError(" or ".join(names), sequence.request, len(sequence.tokens))
                sequence.append(token, numbers)
                if group.top:
                    sequence.alternatives.append(choice.alternatives[number])
            if choice.extensions is not None and group.beam is not None:
                self._follow(group.sequences, group.beam.advance(choice.extensions, members))
            group.steps += 1

    def release(self) -> list[Completion]:
        """Free the rows of finished sequences, and those of negatives that the next token does not need."""
        going = [one for one in self.live if one.finish_reason() is None]
        coming = [one for one in going if len(one.contexts) > len(one.rows)]
        for sequence in coming:  # first what may run out of memory, while nothing has changed yet
            seen = self._contexts(sequence)[0][1]
            self.lanes[None].keep(sequence.rows[0], seen)
        finished: list[Completion] = []
        unfinished: list[Sequence] = []
        changed = any(sequence.beam for sequence in self.live)  # hypotheses have gone on from others' rows
        for sequence in self.live:
            reason = sequence.finish_reason()
            needed = len(sequence.contexts)
            if reason is None and len(sequence.rows) == needed:
                unfinished.append(sequence)
                continue
            changed = True
            if reason is not None:
                self._disown(sequence, 0)
                if sequence is sequence.together[0]:
                    finished.append(sequence.completion(reason))
            elif needed < len(sequence.rows):
                self._disown(sequence, needed)
                unfinished.append(sequence)
            else:
                self._wait(sequence)
        if changed:
            self.live = unfinished
            for lane in self.lanes.values():
                lane.sweep()
            self._regroup()
        return finished

    def part(self) -> None:
        """Sequences that shared a row and have chosen different tokens get rows of their own."""
        parted = [lane.part() for lane in self.lanes.values()]
        if any(parted):
            self._regroup()

    def widest(self) -> int:
        """Rows of one lane that the widest unfinished request needs."""
        return max(max(rows_of(sequence.request).values()) for sequence in [*self.live, *self.waiting])

    def _contexts(self, sequence: Sequence) -> list[tuple[str | None, Context]]:
        """What each row has to have seen, with the name of its lane."""
        tokens = tuple(sequence.tokens)
        return [(name, context(self.models[name], ids, tokens)) for name, ids in sequence.contexts]

    def _wait(self, sequence: Sequence) -> None:
        """Guidance comes on: the sequence waits, before all others, for the rows of its negatives."""
        for name, seen in self._contexts(sequence):
            self.lanes[name].wanted[seen.before] += 1
        self._disown(sequence, 0)
        if sequence is sequence.together[0]:
            self.waiting.appendleft(sequence)

    def _disown(self, sequence: Sequence, first: int) -> None:
        """Give up the sequence's rows from number `first` on."""
        for number in range(first, len(sequence.rows)):
            self._lane(sequence, number).disown((sequence, number))
        del sequence.rows[first:]

    def _follow(self, hypotheses: list[Sequence], parents: list[int]) -> None:
        """Each hypothesis goes on from the rows of its parent."""
        rows = [[*sequence.rows] for sequence in hypotheses]
        for sequence in hypotheses:
            self._disown(sequence, 0)
        for sequence, parent in zip(hypotheses, parents, strict=True):
            sequence.rows = [*rows[parent]]
            for number, row in enumerate(sequence.rows):
                self._lane(sequence, number).owners[row].append((sequence, number))

    def _lane(self, sequence: Sequence, number: int) -> Lane:
        """The lane of a sequence's row."""
        return self.lanes[sequence.request.contexts[number][0]]

    def _regroup(self) -> None:
        """Work out, at every change of membership, which sequences are guided and sampled together."""
        offset = 0
        for lane in self.lanes.values():
            lane.offset = offset
            offset += lane.columns.live
        alike: dict[tuple[object, ...], list[Sequence]] = defaultdict(list)
        for one in self.live:
            request, running = one.request, len(one.rows)
            guidance = request.guidance if running > 1 else None
            names = tuple(name for name, _ in request.contexts)
            alike[guidance, one.beam or request.sampling, names, running, request.top].append(one)
        self.groups = []
        for members in alike.values():
            # Hypotheses of a beam search are judged together, whatever their number.
            size = len(members) if members[0].beam else max(1, self.group_rows // len(members[0].rows))
            for first in range(0, len(members), size):
                self.groups.append(group_of(members[first : first + size], self.lanes, self.models))


def rows_of(request: Request) -> Counter[str | None]:
    """How many rows a request needs of each lane at most."""
    return Counter([name for name, _ in request.contexts] * request.beams)

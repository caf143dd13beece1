"""The guided decoder: every branch of every request in one forward a step, the batch kept full.

A request has one cache row a branch: its positive context and each negative that runs. The rows of all
requests advance in lockstep over the columns of one key-value buffer a model (see `columns` and `lane`);
`batch` holds the seven things that happen at a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import replace

import torch

from cfg_lab.decoding.batch import Batch, rows_of
from cfg_lab.decoding.beam import Beam
from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.model import CausalModel, check_length
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.decoding.sequence import Sequence
from cfg_lab.decoding.teacher_forcing import score
from cfg_lab.decoding.trace import Trace
from cfg_lab.errors import InputError


class Decoder:
    """Decodes requests in one batch of at most `max_rows` cache rows.

    What a request decodes to does not depend on the others, on their order or on `max_rows`: in float32
    always up to the last bits of the hardware's sums, which may depend on the shape of a batch.

    Args:
        model: anything that runs over columns; `cfg_lab.load_model` gives one.
        max_rows: rows of each model's key-value buffer; halved, with a warning, when memory runs out.
        others: further models, by the name that branches call them.

    Attributes:
        steps, rows: of all batches so far; a row that several branches share counts once.
    """

    def __init__(
        self, model: CausalModel, max_rows: int = 128, others: Mapping[str, CausalModel] | None = None
    ) -> None:
        if max_rows < 1:
            raise InputError(f"max_rows must be at least 1, got {max_rows}")
        self.models: dict[str | None, CausalModel] = {None: model}
        self.models.update(others or {})
        self.max_rows = max_rows
        self.steps = self.rows = 0

    def decode(
        self, requests: Iterable[Request], on_step: Callable[[int], None] | None = None
    ) -> Iterator[Completion]:
        """Completions as they finish, in no particular order; `Completion.request` tells them apart.

        Args:
            requests: all of them are read and checked before the first is decoded.
            on_step: called after every step with the number of new tokens, for a progress display.

        Raises:
            InputError: a request does not fit the model's context or `max_rows`.
            NotANumberError: the model's logits are not numbers.
        """
        waiting = self._plan(requests)
        while waiting:
            batch = Batch(self.models, self.max_rows, waiting)
            try:
                yield from self._run(batch, on_step)
            except RuntimeError as error:
                if not _out_of_memory(error) or self.max_rows == batch.widest():
                    raise
                self.max_rows = max(self.max_rows // 2, batch.widest())
                warnings.warn(f"out of memory: going on with max_rows={self.max_rows}", stacklevel=2)
            # Nothing is lost: a sequence that has begun is admitted again with its tokens so far.
            begun = [sequence for sequence in batch.live if sequence is sequence.together[0]]
            yield from (one.completion(reason) for one in begun if (reason := one.finish_reason()))
            waiting = [*(one for one in begun if not one.finish_reason()), *batch.waiting]
            del batch  # its buffer, before the next one is allocated

    def _run(self, batch: Batch, on_step: Callable[[int], None] | None) -> Iterator[Completion]:
        while batch.live or batch.waiting:
            with torch.inference_mode():
                batch.part()
                batch.admit()
                self.steps += 1
                self.rows += sum(lane.columns.live for lane in batch.lanes.values())
                chosen = batch.guide_and_sample(batch.forward())
                batch.record(chosen)
                new = sum(one is one.together[0] for one in batch.live)  # a beam search has one text
                finished = batch.release()
            if on_step is not None:
                on_step(new)
            yield from finished

    def score(self, requests: Iterable[Request], continuations: Iterable[Iterable[int]]) -> list[Trace]:
        """What the requests' guided distributions say of given texts, by teacher forcing.

        Args:
            continuations: new tokens of each request, at least one.

        Returns:
            A trace for each, in order; `sum(trace.guided)` is the guided log-likelihood, nats. The requests'
            sampling and stops play no part.

        Raises:
            InputError: a text is empty or longer than the model can see.
        """
        texts: list[tuple[Request, tuple[int, ...]]] = []
        for request, continuation in zip(requests, continuations, strict=True):
            tokens = tuple(continuation)
            # A schedule may come on later than the request itself would have gone on.
            texts.append((replace(request, max_new_tokens=max(len(tokens), request.max_new_tokens)), tokens))
            self._check_lengths(request, len(tokens))
        return score(self.models, texts)

    def check(self, request: Request) -> None:
        """Raise InputError where a request does not fit the models' contexts or `max_rows`."""
        self._check_lengths(request, request.max_new_tokens)
        widest = max(rows_of(request).values())
        if widest > self.max_rows:
            raise InputError(
                f"max_rows must be at least {widest} for a request with {len(request.contexts)} branches "
                f"and {request.beams} beams, got {self.max_rows}"
            )

    def _check_lengths(self, request: Request, new_tokens: int) -> None:
        for name, ids in request.contexts:
            if name not in self.models:
                raise InputError(f"a branch names model {name!r}, which this decoder was not given")
            check_length(self.models[name], ids, new_tokens)

    def _plan(self, requests: Iterable[Request]) -> list[Sequence]:
        """Sequences in the order of admission.

        Those that may run longest first, so that the batch does not end with a few of them; then by length
        of context, so that rows live at the same time use the same columns; and equal contexts next to each
        other, so that their keys and values are computed once and kept no longer than needed.
        """
        sequences: list[Sequence] = []
        seen: dict[tuple[int, ...], int] = {}
        for request in requests:
            self.check(request)
            search = request.sampling
            beam = Beam(request, search) if isinstance(search, BeamSearch) else None
            sequences.append(beam.hypotheses[0] if beam else Sequence(request))
            seen.setdefault(request.positive, len(seen))

        def order(sequence: Sequence) -> tuple[int, int, int]:
            request = sequence.request
            return -request.max_new_tokens, -len(request.positive), seen[request.positive]

        return sorted(sequences, key=order)


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; the CPU's allocator only a message."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)

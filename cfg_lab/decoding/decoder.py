"""The guided decoder: every branch of every request in one forward a step, the batch kept full.

A request owns one cache row a branch: its positive context and each negative that runs. The rows of all
requests advance in lockstep over the columns of one key-value buffer (see `columns`); `batch` holds the
seven things that happen at a step.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

import torch

from cfg_lab.decoding.batch import Batch, CausalModel, Context, Sequence
from cfg_lab.decoding.scoring import score
from cfg_lab.records import Completion, InputError, Request, Trace


class Decoder:
    """Decodes requests in one batch of at most `max_rows` cache rows.

    What a request decodes to does not depend on the others, on their order or on `max_rows`: in float32
    always up to the last bits of the hardware's sums, which may depend on the shape of a batch.

    Args:
        model: anything that runs over columns; `cfg_lab.load_model` gives one.
        max_rows: rows of the key-value buffer; halved, with a warning, when memory runs out.
    """

    def __init__(self, model: CausalModel, max_rows: int = 128) -> None:
        if max_rows < 1:
            raise InputError(f"max_rows must be at least 1, got {max_rows}")
        self.model = model
        self.max_rows = max_rows

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
            batch = Batch(self.model, self.max_rows, waiting)
            try:
                yield from self._run(batch, on_step)
            except RuntimeError as error:
                if not _out_of_memory(error) or self.max_rows == batch.widest():
                    raise
                self.max_rows = max(self.max_rows // 2, batch.widest())
                warnings.warn(f"out of memory: going on with max_rows={self.max_rows}", stacklevel=2)
            # Nothing is lost: a sequence that has begun is admitted again with its tokens so far.
            waiting = [*batch.live, *batch.waiting]
            del batch  # its buffer, before the next one is allocated

    def _run(self, batch: Batch, on_step: Callable[[int], None] | None) -> Iterator[Completion]:
        while batch.live or batch.waiting:
            with torch.inference_mode():
                batch.part()
                batch.admit()
                chosen = batch.guide_and_sample(batch.forward())
                batch.record(chosen)
                finished = batch.release()
            if on_step is not None:
                on_step(len(batch.live) + len(finished))
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
        texts = [(request, tuple(tokens)) for request, tokens in zip(requests, continuations, strict=True)]
        for request, tokens in texts:
            self.check(replace(request, max_new_tokens=max(1, len(tokens))))
        return score(self.model, texts)

    def check(self, request: Request) -> None:
        """Raise InputError where a request does not fit the model's context or `max_rows`."""
        sequence = Sequence(request)
        if sequence.longest > self.model.context_length:
            raise InputError(
                f"a context of {sequence.longest - request.max_new_tokens} tokens and max_new_tokens="
                f"{request.max_new_tokens} exceed the {self.model.context_length} tokens that model "
                f"{self.model.name!r} can see; shorten either"
            )
        if request.rows > self.max_rows:
            raise InputError(
                f"max_rows must be at least {request.rows} for a request with {request.rows} branches, "
                f"got {self.max_rows}"
            )

    def _plan(self, requests: Iterable[Request]) -> list[Sequence]:
        """Sequences in the order of admission.

        Those that may run longest first, so that the batch does not end with a few of them; then by length
        of context, so that rows live at the same time use the same columns; and equal contexts next to each
        other, so that their keys and values are computed once and kept no longer than needed.
        """
        sequences: list[Sequence] = []
        seen: dict[Context, int] = {}
        for request in requests:
            self.check(request)
            sequences.append(Sequence(request))
            seen.setdefault(request.positive, len(seen))

        def order(sequence: Sequence) -> tuple[int, int, int]:
            request = sequence.request
            return -request.max_new_tokens, -len(request.positive), seen[request.positive]

        return sorted(sequences, key=order)


def _out_of_memory(error: RuntimeError) -> bool:
    """CUDA has a class for it; the CPU's allocator only a message."""
    return isinstance(error, torch.OutOfMemoryError) or "allocate memory" in str(error)

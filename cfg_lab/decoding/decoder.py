"""The guided decoder: token ids in, token ids out, for many requests in one batch.

A request needs one row of the KV cache per branch: one for its positive context, and one for each negative
while guidance is on. The rows of all requests advance by one token per step, and rows that become free are
filled with waiting requests. `batch` says what happens at a step; `kv_buffer` has a picture of the cache.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Literal, get_args

import torch

from cfg_lab.decoding.batch import Batch
from cfg_lab.decoding.beam_state import BeamState
from cfg_lab.decoding.completion import Completion
from cfg_lab.decoding.continuation_scores import ContinuationScore, score_continuations
from cfg_lab.decoding.model import CausalModel, check_length
from cfg_lab.decoding.request import NamedContext, Request
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.decoding.row_limit import MaxRows, automatic_rows, check_max_rows
from cfg_lab.decoding.row_needs import widest_request
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.decoding.static_batch import StaticBatch, runs_on_device
from cfg_lab.decoding.static_check import has_static_steps
from cfg_lab.decoding.step_graphs import is_out_of_memory
from cfg_lab.decoding.teacher_forcing import trace_texts
from cfg_lab.decoding.trace import Trace
from cfg_lab.errors import InputError
from cfg_lab.guidance.rule import Guidance

CudaGraphs = Literal["auto", "off"]


def check_cuda_graphs(value: object) -> None:
    """Raise InputError if a value is neither "auto" nor "off"."""
    if value not in get_args(CudaGraphs):
        raise InputError(f"cuda_graphs must be auto or off, got {value!r}")


class Decoder:
    """Decodes many requests in one batch.

    The result of a request does not depend on the other requests, on their order or on `max_rows`. Only the
    last bits of floating-point sums can differ, because they may depend on the shape of the batch.

    Args:
        model: runs the positive contexts, and every branch that names no model. `cfg_lab.load_model` returns
            one.
        max_rows: largest number of rows of each model's KV cache. "auto" is 128, or on a GPU as many as fit
            into its free memory, see `row_limit`. When memory runs out, it is halved and a warning is given.
        other_models: maps a name to a model. It has every model that is named by a branch of a request.
        cuda_graphs: "auto" decodes on CUDA with recorded steps, see `static_batch`. "off" starts every
            operation of a step from Python, which is slower.
        static: whether to use the steps of `static_batch`, for the requests and models that can. None means
            on CUDA. On other devices these steps are slower, and are used by tests.

    Attributes:
        steps: number of steps so far.
        rows: number of rows that ran, summed over all steps so far. At each step, a row that several branches
            share counts once.
    """

    def __init__(
        self,
        model: CausalModel,
        max_rows: MaxRows = "auto",
        other_models: Mapping[str, CausalModel] | None = None,
        *,
        cuda_graphs: CudaGraphs = "auto",
        static: bool | None = None,
    ) -> None:
        check_max_rows(max_rows)
        self.models: dict[str | None, CausalModel] = {None: model}
        self.models.update(other_models or {})
        check_cuda_graphs(cuda_graphs)
        self.max_rows: MaxRows = max_rows
        wanted = model.device.type == "cuda" if static is None else static
        self.static = wanted and cuda_graphs == "auto"
        self.steps = self.rows = 0

    def decode(
        self, requests: Iterable[Request], on_step: Callable[[int], None] | None = None
    ) -> Iterator[Completion]:
        """Yield each completion when it is finished, in no particular order.

        Args:
            requests: the texts to decode. All requests are checked before the first one is decoded. The
                `request` of a completion is the object given here, so the caller can match the two.
            on_step: called after every step with the number of new tokens, for a progress display.

        Raises:
            InputError: a request does not fit the context length of a model or `max_rows`.
            NotANumberError: a model returned logits that are not numbers.
        """
        states = self._in_order_of_admission(requests)
        lengths = self._static_lengths(state.request for state in states)
        on_device: list[RequestState] = []
        others: list[RequestState] = []
        for state in states:
            request = state.request
            fits = all(len(ids) + request.max_new_tokens <= lengths[name] for name, ids in request.contexts)
            (on_device if fits and runs_on_device(request) else others).append(state)
        yield from self._decode(StaticBatch, on_device, on_step)
        yield from self._decode(Batch, others, on_step)

    def _static_lengths(self, requests: Iterable[Request]) -> dict[str | None, int]:
        """For each model the largest number of tokens in a row with which it can run static steps.

        0 if it cannot, or if no request uses it. All rows of a `StaticBatch` are on one device.
        """
        used = {name for request in requests for name, _ in request.contexts}
        device = self.models[None].device
        return {
            name: model.static_length
            if name in used and self.static and model.device == device and has_static_steps(model)
            else 0
            for name, model in self.models.items()
        }

    def _decode(
        self,
        kind: type[Batch | StaticBatch],
        waiting: list[RequestState],
        on_step: Callable[[int], None] | None,
    ) -> Iterator[Completion]:
        """Decode requests, in batches with fewer and fewer rows if memory runs out."""
        while waiting:
            max_rows = self.max_rows
            if max_rows == "auto":
                max_rows = automatic_rows(self.models, [state.request for state in waiting])
            batch = None
            try:
                batch = kind(self.models, max_rows, waiting)
                yield from self._run(batch, on_step)
            except RuntimeError as error:
                unfinished = waiting if batch is None else [*batch.running, *batch.waiting]
                widest = widest_request(state.request for state in unfinished)
                if not is_out_of_memory(error) or max_rows == widest:
                    raise
                self.max_rows = max(max_rows // 2, widest)
                warnings.warn(f"out of memory: going on with max_rows={self.max_rows}", stacklevel=2)
            if batch is None:
                continue
            if isinstance(batch, StaticBatch) and batch.graphs.failure:
                reason = f"a step cannot be recorded: {batch.graphs.failure}"
                warnings.warn(f"decoding runs without CUDA graphs, which is slower: {reason}", stacklevel=2)
            # After running out of memory no token is lost: running requests wait again with their tokens.
            unfinished = [state for state in batch.running if state.finish_reason is None]
            finished = [state for state in batch.running if state.finish_reason is not None]
            yield from (state.completion() for state in [*batch.finished, *finished])
            waiting = [*unfinished, *batch.waiting]
            del batch  # frees its KV cache before the next one is allocated

    def _run(self, batch: Batch | StaticBatch, on_step: Callable[[int], None] | None) -> Iterator[Completion]:
        """Run a batch until no request waits or runs."""
        while batch.running or batch.waiting:
            with torch.inference_mode():
                new_tokens = batch.step()
            self.steps += 1
            self.rows += batch.live_rows
            if on_step is not None:
                on_step(new_tokens)
            while batch.finished:
                yield batch.finished.popleft().completion()

    def trace_texts(self, requests: Iterable[Request], continuations: Iterable[Iterable[int]]) -> list[Trace]:
        """The traces that decoding would record if it chose the tokens of given texts (teacher forcing).

        The sum of `trace.guided` is the guided log-likelihood of a text, in nats.

        Args:
            requests: contexts and guidance of each text. Sampling, stop tokens and `max_new_tokens` have no
                effect.
            continuations: for each request the new tokens of its text, at least one token.

        Returns:
            One trace per request, in the order of the requests, without alternatives.

        Raises:
            InputError: a text is empty, or longer than the context length of a model.
        """
        texts: list[tuple[Request, tuple[int, ...]]] = []
        for request, continuation in zip(requests, continuations, strict=True):
            tokens = tuple(continuation)
            # A schedule may turn guidance on after the last token that the request itself would decode.
            longer = replace(request, max_new_tokens=max(len(tokens), request.max_new_tokens))
            self._check_lengths(longer.contexts, len(tokens), f"max_new_tokens={len(tokens)}")
            texts.append((longer, tokens))
        return trace_texts(self.models, texts)

    def score(
        self,
        requests: Iterable[Request],
        continuations: Iterable[Iterable[int]],
        guidances: Iterable[Guidance],
        on_item: Callable[[int], None] | None = None,
    ) -> list[ContinuationScore]:
        """The log-likelihoods of given continuations under every guidance rule of a grid.

        Each branch runs once for each continuation, whatever the number of rules. Requests with equal
        contexts (several answers to a question, a negative that is the same for all items) share their
        prefill, and so do contexts that all begin with the same tokens.

        Args:
            requests: positive contexts and negative branches. Guidance, sampling, stop tokens and
                `max_new_tokens` of the requests have no effect.
            continuations: for each request the tokens of its continuation, at least one token.
            guidances: the rules of the grid. A request without negatives is scored without guidance.
            on_item: called after each chunk of requests with the number of requests finished so far, for a
                progress display.

        Returns:
            One score per request, in the order of the requests. `guided` of the score has the sum of
            `trace.guided` that `trace_texts` would give for each rule.

        Raises:
            InputError: a continuation is empty, or a context and its continuation, without the last token,
                are longer than the context length of a model.
            NotANumberError: a model returned logits that are not numbers.
        """
        listed, texts = list(requests), [tuple(continuation) for continuation in continuations]
        for request, tokens in zip(listed, texts, strict=True):
            self.check_score(request, tokens)
        return score_continuations(self.models, listed, texts, list(guidances), on_item)

    def check_score(self, request: Request, continuation: Sequence[int]) -> None:
        """Raise InputError if a continuation does not fit the context length of a model; see `score`."""
        # No model reads the last token of a continuation.
        read, what = max(len(continuation) - 1, 0), f"a continuation of {len(continuation)} tokens"
        self._check_lengths(request.contexts_with(request.negatives), read, what)

    def check(self, request: Request) -> None:
        """Raise InputError if a request does not fit the context length of a model or `max_rows`."""
        new_tokens = request.max_new_tokens
        self._check_lengths(request.contexts, new_tokens, f"max_new_tokens={new_tokens}")
        rows = widest_request([request])
        if self.max_rows != "auto" and rows > self.max_rows:
            raise InputError(
                f"max_rows must be at least {rows} for a request with {len(request.contexts)} branches "
                f"and {request.beams} beams (sampling.width), got {self.max_rows}"
            )

    def _check_lengths(self, contexts: Iterable[NamedContext], new_tokens: int, what: str) -> None:
        """Raise InputError if a context does not fit its model; see `check_length`."""
        for name, ids in contexts:
            if name not in self.models:
                raise InputError(f"a branch names model {name!r}, which this decoder was not given")
            check_length(self.models[name], ids, new_tokens, what)

    def _in_order_of_admission(self, requests: Iterable[Request]) -> list[RequestState]:
        """Check requests and sort them for admission to the batch.

        1. Requests with the largest `max_new_tokens` first, so that the batch does not end with a few long
           texts.
        2. Then requests with the longest positive context first. So rows that run at the same time use the
           same columns.
        3. Then requests with the same positive context next to each other. So this context is prefilled once,
           and its saved keys and values are freed soon.
        """
        states: list[RequestState] = []
        first_use: dict[tuple[int, ...], int] = {}  # of each positive context
        for request in requests:
            self.check(request)
            search = request.sampling
            states.append(
                BeamState(request, search) if isinstance(search, BeamSearch) else RequestState(request)
            )
            first_use.setdefault(request.positive, len(first_use))

        def order(state: RequestState) -> tuple[int, int, int]:
            request = state.request
            return -request.max_new_tokens, -len(request.positive), first_use[request.positive]

        return sorted(states, key=order)

"""A check of every model before its first static step: does it give the logits of the ordinary step?

A recorded step repeats operations with new values in the same tensors. Code of a model that decides anything
in Python would keep the decision of the first step, and give wrong texts without an error. So both kinds of
steps run on the same few rows and are compared. A model that does not pass runs with ordinary steps.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from weakref import WeakKeyDictionary

import torch
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.logit_difference import largest_difference, relative_difference, tolerance
from cfg_lab.decoding.model import CausalModel, Context
from cfg_lab.decoding.prefill import prefill_contexts
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.static_buffer import StaticKVBuffer
from cfg_lab.decoding.static_rows import step_logits
from cfg_lab.decoding.step_graphs import StepGraphs, is_out_of_memory

_LENGTHS = (9, 4, 1)  # tokens of each context; the last one of each is read by the first step
_STEPS = 4
_COLUMNS = 1024
_FEWER_ROWS_FROM = 2  # from this step on, the second row is gone and the step has another shape

_results: WeakKeyDictionary[CausalModel, bool] = WeakKeyDictionary()


def has_static_steps(model: CausalModel) -> bool:
    """Whether a model gives the same logits with static steps. It is checked once for each model."""
    if model not in _results:
        _results[model] = _passes(model)
    return _results[model]


@torch.inference_mode()
def _passes(model: CausalModel) -> bool:
    longest = max(_LENGTHS) + _STEPS
    if min(model.context_length, model.static_length) < longest:
        return False
    generator = torch.Generator().manual_seed(0)
    ids = torch.randint(min(5, model.vocab_size - 1), model.vocab_size, (3, longest), generator=generator)
    graphs = StepGraphs(model.device, direct_runs=0)
    try:
        steps = list(zip(_ordinary_steps(model, ids), _static_steps(model, ids, graphs), strict=True))
    except Exception as error:  # the code of a model may raise anything
        if isinstance(error, RuntimeError) and is_out_of_memory(error):
            raise
        _warn(model, f"{type(error).__name__} {error}".partition("\n")[0])
        return False
    if graphs.failure:
        _warn(model, graphs.failure)
        return False
    differences = [
        [relative_difference(*pair) for pair in zip(logits, expected, strict=True)]
        for (expected, _), logits in steps
    ]
    is_exact = all(has_full_precision for (_, has_full_precision), _ in steps)
    difference = largest_difference(differences, exact=is_exact)
    if difference > tolerance(exact=is_exact):
        _warn(model, f"they give other logits; the relative difference is {difference:.2g}")
        return False
    return True


def _warn(model: CausalModel, reason: str) -> None:
    warnings.warn(
        f"model {model.name!r} decodes without CUDA graphs, which is slower, because its steps cannot be "
        f"recorded: {reason}",
        stacklevel=2,
    )


def _prefixes(model: CausalModel, ids: Tensor) -> list[Prefix]:
    """The prefix of each context: its tokens without the last one."""
    beginnings = [
        Context(tuple(int(token) for token in row[: length - 1]))
        for row, length in zip(ids, _LENGTHS, strict=True)
    ]
    prefixes = prefill_contexts(model, beginnings)
    return [prefixes[beginning] for beginning in beginnings]


def _next_ids(ids: Tensor, step: int) -> Tensor:
    """The token that each row reads at a step, [rows]."""
    rows = [0, 1, 2] if step < _FEWER_ROWS_FROM else [0, 2]
    return torch.stack([ids[row, _LENGTHS[row] - 1 + step] for row in rows])


def _ordinary_steps(model: CausalModel, ids: Tensor) -> Iterator[tuple[Tensor, bool]]:
    """Yield the logits [rows, vocab] of each ordinary step, and whether they have full precision."""
    buffer = KVBuffer(3, ids.shape[1] + 1, model.device)
    buffer.admit(_prefixes(model, ids))
    for step in range(_STEPS):
        if step == _FEWER_ROWS_FROM:
            buffer.free(1)  # the last row gets its number
        next_ids = _next_ids(ids, step)[:, None].to(model.device)
        logits = model.forward(next_ids, buffer.positions(), buffer.mask(), buffer)[:, 0]
        buffer.advance()
        dtypes = {keys.dtype for keys, _ in buffer.layers.values()}
        yield logits, dtypes <= {torch.float32, torch.float64}


def _static_steps(model: CausalModel, ids: Tensor, graphs: StepGraphs) -> Iterator[Tensor]:
    """Yield the logits [rows, vocab] of each static step."""
    # Many columns: code that takes the number of columns for a number of tokens shows.
    buffer = StaticKVBuffer(3, min(model.context_length, _COLUMNS), model.device)
    read = torch.zeros(buffer.rows, dtype=torch.long, device=model.device)
    logits = torch.zeros(buffer.rows, model.vocab_size, device=model.device)
    buffer.admit(_prefixes(model, ids))
    for step in range(_STEPS):
        if step == _FEWER_ROWS_FROM:
            buffer.keep([0, 2])
        new = _next_ids(ids, step)
        read[: len(new)] = new.to(model.device)
        (rows, _), columns = buffer.step_shape(), buffer.columns
        graphs.run(
            (rows, columns),
            lambda rows=rows, columns=columns: step_logits(model, buffer, read, rows, columns, logits),
            [buffer.column],
        )
        buffer.advance()
        yield logits[: len(new)].clone()

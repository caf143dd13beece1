"""The largest number of rows of a batch: a number, or "auto".

On a GPU more rows make a step little slower, so "auto" takes as many as fit into its free memory:

1. Each model reads a few tokens. So its weights are on the GPU before its free memory is read. The tensors
   that it keeps of these tokens say what a token and a row need, whatever the architecture: keys and values,
   states of recurrent layers, cross-attention of an encoder-decoder model. They also say on which GPU.
2. A row is as long as the longest context of the waiting requests with its new tokens. Beside it lie its
   prefix, and the distributions of the next token.
3. The rows of all models share their GPUs. The GPU on which the fewest rows fit decides.

If memory runs out all the same, the decoder goes on with half as many rows.

On other devices "auto" is 128. Texts do not depend on the number of rows.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from cfg_lab.decoding.model import CausalModel, Context, context_after
from cfg_lab.decoding.prefill import max_forward_tokens, prefill_contexts
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.request import Request
from cfg_lab.decoding.row_needs import row_needs, widest_request
from cfg_lab.decoding.static_buffer import column_bucket
from cfg_lab.errors import InputError

MaxRows = int | Literal["auto"]

FreeBytes = Callable[[torch.device], int]
"""From a device to its number of free bytes."""

_ROWS = 128
"""The rows of "auto" on devices that are no GPU."""

_MOST_ROWS = 1024
"""The most rows that "auto" takes. A larger batch has the same speed per row on every GPU that we know."""

_ROUNDED_TO = 16
"""A step with other numbers of rows than multiples of this runs with the next multiple."""

_SHARE = 0.8
"""Share of the free memory that is planned. The rest is for activations, and for memory in small pieces."""

_BYTES_PER_LOGIT = 64
"""Bytes for each row and each token of the vocabulary: logits, log-probs, noise, and sorted log-probs."""

_SPARE_COLUMNS = 34
"""Columns that a batch adds to the longest row, so that it seldom has to move columns."""

_PROBE = 8
"""Number of tokens that a model reads to show how much it keeps of them."""


def check_max_rows(max_rows: object) -> None:
    """Raise InputError if a value is neither "auto" nor a whole number of at least 1."""
    is_number = isinstance(max_rows, int) and not isinstance(max_rows, bool) and 1 <= max_rows < 2**63
    if not is_number and max_rows != "auto":
        raise InputError(f"max_rows must be auto or a whole number of at least 1, got {max_rows!r}")


class RowBytes(NamedTuple):
    """What a model keeps on one GPU, in bytes."""

    per_token: int = 0  # of a row: keys and values
    per_row: int = 0  # states and distributions
    per_source_token: int = 0  # of a row: cross-attention keys and values


def rows_that_fit(
    free_bytes: int, bytes_per_row: int, other_bytes: int, *, useful_rows: int, widest_request: int
) -> int:
    """The number of rows of a batch on one GPU.

    Args:
        free_bytes: free memory of the GPU.
        bytes_per_row: memory of one row of each model.
        other_bytes: memory that does not depend on the number of rows.
        useful_rows: number of rows that all requests could use at once.
        widest_request: number of rows that one request needs.

    Returns:
        At least `widest_request`, and else at most 1,024. If not all useful rows fit, a multiple of 16 where
        16 rows fit.
    """
    fitting = max(0, int(_SHARE * free_bytes) - other_bytes) // max(1, bytes_per_row)
    if fitting < useful_rows and fitting >= _ROUNDED_TO:
        fitting -= fitting % _ROUNDED_TO
    return max(widest_request, min(fitting, useful_rows, _MOST_ROWS))


def free_bytes_of_gpu(device: torch.device) -> int:
    """Bytes that are free on a GPU, those included that torch keeps for later tensors."""
    free, _ = torch.cuda.mem_get_info(device)
    return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)


@torch.inference_mode()
def automatic_rows(
    models: Mapping[str | None, CausalModel],
    requests: Sequence[Request],
    free_bytes: FreeBytes = free_bytes_of_gpu,
    device_type: str = "cuda",
) -> int:
    """The number of rows that "auto" stands for: as many as fit on the GPUs; 128 on other devices.

    Args:
        models: maps a name to a model. None is the name of the model of the positive contexts.
        requests: the waiting requests, at least one.
        free_bytes: gives the free memory of a device.
        device_type: the type of the devices whose memory is asked for.
    """
    widest = widest_request(requests)
    if models[None].device.type != device_type:
        return max(_ROWS, widest)
    needs = row_needs(models, requests)
    longest: dict[str | None, Context] = {}
    for request in requests:
        for name, ids in request.contexts:
            context = context_after(models[name], ids, ())
            if _length(context) > _length(longest.get(name, Context(()))):
                longest[name] = context
    needed: dict[torch.device, int] = defaultdict(int)  # by one row of each model
    others: dict[torch.device, int] = defaultdict(int)
    for name, context in longest.items():
        width = column_bucket(needs[name].length + _SPARE_COLUMNS)
        for device, kept in _kept_bytes(models[name], context).items():
            # Its prefix lies beside a row until all rows are filled.
            needed[device] += kept.per_row + kept.per_token * (width + len(context.ids))
            # The padded sources of all rows are one tensor more.
            needed[device] += 2 * kept.per_source_token * len(context.source)
            # The tokens of one forward of the prefill have keys and values of their own.
            prefilled = min(max_forward_tokens(models[name]), needs[name].rows * len(context.ids))
            others[device] += kept.per_token * prefilled
    return min(
        rows_that_fit(
            free_bytes(device),
            bytes_per_row,
            others[device],
            useful_rows=max(need.rows for need in needs.values()),
            widest_request=widest,
        )
        for device, bytes_per_row in needed.items()
        if device.type == device_type
    )


def _length(context: Context) -> int:
    return len(context.ids) + len(context.source)


def _kept_bytes(model: CausalModel, context: Context) -> dict[torch.device, RowBytes]:
    """What a model keeps, measured on the first tokens of a context."""
    probe = Context(context.ids[:_PROBE], context.source[:_PROBE])
    (prefix,) = prefill_contexts(model, [probe]).values()
    kept: dict[torch.device, RowBytes] = defaultdict(RowBytes)
    for device, (tokens, states, memory) in _bytes_by_device(prefix).items():
        kept[device] = RowBytes(
            per_token=-(-tokens // len(probe.ids)),
            per_row=2 * states,  # those of the prefix, too
            per_source_token=-(-memory // max(1, len(probe.source))),
        )
    logits = model.vocab_size * _BYTES_PER_LOGIT
    own = kept[model.device]
    kept[model.device] = own._replace(per_row=own.per_row + logits)
    return kept


def _bytes_by_device(prefix: Prefix) -> dict[torch.device, tuple[int, int, int]]:
    """Bytes of keys and values, of states, and of cross-attention, on each device."""
    tensors: tuple[list[Tensor], ...] = (
        [tensor for layer in prefix.layers.values() for tensor in layer],
        [*prefix.states.values()],
        [tensor for layer in prefix.memory for tensor in layer],
    )
    devices = dict.fromkeys(tensor.device for kind in tensors for tensor in kind)
    counted = {
        device: [sum(tensor.nbytes for tensor in kind if tensor.device == device) for kind in tensors]
        for device in devices
    }
    return {device: (kinds[0], kinds[1], kinds[2]) for device, kinds in counted.items()}

"""The columns of the files in a results folder. Each column is defined here once.

The store takes the schemas of its files from here. Scoring turns the rows of these files back into texts.
`load_results`, the page and the trackers see the columns that are marked as shown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import TYPE_CHECKING, Any

import pandas as pd
import pyarrow as pa

from cfg_lab.decoding.trace import DISTRIBUTIONS, TRACE_FIELDS
from cfg_lab.metrics.text import Choice, Text
from cfg_lab.prompts import Prompt

if TYPE_CHECKING:
    from cfg_lab.decoding.completion import Completion
    from cfg_lab.models import LanguageModel
    from cfg_lab.study.planned_text import PlannedText


@dataclass(frozen=True)
class Column:
    """One column of a file in a results folder.

    Attributes:
        name: name in the file and in the frame of `load_results`.
        type: Arrow type of its values.
        value: function that computes the column's value in one row. Its argument is the object that the row
            describes: a PlannedText for cells, a Decoded for completions.
        shown: whether `load_results` returns the column.
    """

    name: str
    type: pa.DataType
    value: Callable[[Any], Any]
    shown: bool = True


def _schema(columns: tuple[Column, ...]) -> pa.Schema:
    return pa.schema([(column.name, column.type) for column in columns])


def row(columns: tuple[Column, ...], source: Any) -> dict[str, Any]:
    """One row of a file, as column name -> value.

    Each value is computed from `source`, the object that the row describes.
    """
    return {column.name: column.value(source) for column in columns}


# Cells: one row per text of the cell, decoded or not.

_PROMPT_COLUMNS = {"id": "prompt_id", "text": "prompt"}


def prompt_column(field: str) -> str:
    """Name of the column that holds a field of the prompt: "prompt_negative" for "negative"."""
    return _PROMPT_COLUMNS.get(field, f"prompt_{field}")


def _prompt_value(field: str, planned: PlannedText) -> str | tuple[str, ...] | None:
    return getattr(planned.prompt, field)


CELL_COLUMNS = (
    *(
        Column(
            prompt_column(field.name),
            pa.list_(pa.string()) if field.name == "references" else pa.string(),
            partial(_prompt_value, field.name),
            shown=field.name in {"id", "text", "negative"},
        )
        for field in fields(Prompt)
    ),
    Column("sample", pa.int64(), lambda planned: planned.request.sample),
    Column("completion", pa.string(), lambda planned: planned.completion_id),
    Column("score_id", pa.string(), lambda planned: planned.score_id, shown=False),
)
CELL_SCHEMA = _schema(CELL_COLUMNS)


# Completions: one row per decoded text.


@dataclass(frozen=True)
class Decoded:
    """A decoded text, with everything that its row in a file of completions needs.

    Attributes:
        planned: the plan of the text, made before decoding: prompt, request and id.
        completion: the result of decoding: tokens, and the trace (numbers about each step). Tokens of a stop
            string are left out.
        models: the model of each context of the request. The positive context comes first.
        text: the generated text without the prompt, cut before the first stop string.
        other_texts: the next best texts of a beam search, best first.
        choices: in a benchmark, the given answers with their scores, of which `text` is the chosen one.
    """

    planned: PlannedText
    completion: Completion
    models: tuple[LanguageModel, ...]
    text: str
    other_texts: tuple[str, ...] = ()
    choices: tuple[Choice, ...] = ()


def _trace_value(name: str, decoded: Decoded) -> tuple[float, ...]:
    return getattr(decoded.completion.trace, name)


def _alternatives_value(name: str, decoded: Decoded) -> list[list[dict[str, Any]]]:
    return decoded.completion.trace.alternatives_as_text(decoded.models[0].piece)[name]


_TOKEN = pa.struct([("token", pa.int32()), ("piece", pa.string()), ("log_prob", pa.float32())])
_INTEGERS = pa.list_(pa.int64())
_TOKENS = pa.list_(pa.int32())
_CHOICE = pa.struct(
    [
        ("text", pa.string()),
        ("right", pa.bool_()),
        ("tokens", pa.int64()),
        *((name, pa.float64()) for name in ("positive", "negative", "guided", "raw")),
        ("greedy", pa.bool_()),
    ]
)
"""The fields of `Choice`."""

COMPLETION_COLUMNS = (
    Column("id", pa.string(), lambda decoded: decoded.planned.completion_id, shown=False),
    Column("model_name", pa.string(), lambda decoded: decoded.models[0].name),
    Column("model_fingerprint", pa.string(), lambda decoded: decoded.models[0].fingerprint),
    Column("positive_ids", _TOKENS, lambda decoded: decoded.completion.request.positive),
    # Only negatives that ran at some step. The list of a text that was decoded without guidance is empty.
    Column(
        "negative_ids",
        pa.list_(_TOKENS),
        lambda decoded: [branch.ids for branch in decoded.completion.request.branches],
    ),
    Column(
        "negative_weights",
        pa.list_(pa.float64()),
        lambda decoded: [branch.weight for branch in decoded.completion.request.branches],
    ),
    # Fingerprints of the negatives' models; null stands for the model of the positive context.
    Column(
        "negative_models",
        pa.list_(pa.string()),
        lambda decoded: [branch.model for branch in decoded.completion.request.branches],
    ),
    Column("text", pa.string(), lambda decoded: decoded.text),
    Column("others", pa.list_(pa.string()), lambda decoded: decoded.other_texts),
    Column("finish_reason", pa.string(), lambda decoded: decoded.completion.finish_reason),
    Column("tokens_read", _INTEGERS, lambda decoded: decoded.completion.tokens_read),
    Column("tokens_read_in_full", _INTEGERS, lambda decoded: decoded.completion.tokens_read_in_full),
    Column("parameters", _INTEGERS, lambda decoded: [model.parameters for model in decoded.models]),
    Column("tokens", _TOKENS, lambda decoded: decoded.completion.tokens),
    # Whether the last token is a stop token, which is not part of the text.
    Column(
        "stop_token",
        pa.bool_(),
        lambda decoded: len(decoded.completion.text_tokens) < len(decoded.completion.tokens),
        shown=False,
    ),
    # The text of each token of the trace. The answers of a benchmark have no trace.
    Column(
        "pieces",
        pa.list_(pa.string()),
        lambda decoded: [
            decoded.models[0].piece(token)
            for token in decoded.completion.tokens[: len(decoded.completion.trace.guided)]
        ],
    ),
    *(Column(f"trace_{name}", pa.list_(pa.float32()), partial(_trace_value, name)) for name in TRACE_FIELDS),
    *(
        Column(f"alternatives_{name}", pa.list_(pa.list_(_TOKEN)), partial(_alternatives_value, name))
        for name in DISTRIBUTIONS
    ),
    Column("choices", pa.list_(_CHOICE), lambda decoded: list(map(asdict, decoded.choices))),
)
COMPLETION_SCHEMA = _schema(COMPLETION_COLUMNS)

OLD_NAMES = {
    "processed": "tokens_read",
    "asked": "tokens_read_in_full",
    "prompt_reference": "prompt_references",
}
"""Name of a column in older files -> present name of the column."""

OLD_TYPES = {"prompt_reference": pa.string()}  # one text, where there is a list now
"""Name of a column in older files -> its type, if it is not the present type."""

SCORE_SCHEMA = pa.schema(
    [("text", pa.string()), ("scorer", pa.string()), ("column", pa.string()), ("value", pa.float64())]
)
"""Schema of a file of scores, which has one row per text, metric and column of the metric."""

HIDDEN = tuple(column.name for column in (*CELL_COLUMNS, *COMPLETION_COLUMNS) if not column.shown)
"""Names of the columns that `load_results` leaves out."""

SHOWN = tuple(column.name for column in (*CELL_COLUMNS, *COMPLETION_COLUMNS) if column.shown)
"""Names of the columns of cells and completions that `load_results` has."""


TEXT_COLUMNS = (
    *("id", "text", "tokens", "stop_token", "finish_reason"),
    *("trace_positive", "trace_guided", "trace_entropy"),
    *("tokens_read", "tokens_read_in_full", "parameters", "choices"),
)
"""Columns of completions that `text_of` reads."""


def text_of(cell: Mapping[str, Any], completion: Mapping[str, Any]) -> Text:
    """Make the `Text` that metrics score.

    Args:
        cell: the row of the text in the file of its cell.
        completion: the row of the text in a file of completions, with TEXT_COLUMNS.
    """
    tokens = tuple(map(int, completion["tokens"]))
    ends_with_stop_token = completion["stop_token"]
    if ends_with_stop_token is None or ends_with_stop_token != ends_with_stop_token:  # None or NaN: old files
        ends_with_stop_token = completion["finish_reason"] == "stop"
    length = len(tokens) - bool(ends_with_stop_token)
    prompt: dict[str, Any] = {}
    for field in fields(Prompt):
        value = cell[prompt_column(field.name)]
        prompt[field.name] = value if isinstance(value, str) else None
    prompt["references"] = _references(cell[prompt_column("references")])
    return Text(
        id=completion["id"],
        prompt=Prompt(**prompt),
        text=completion["text"],
        tokens=tokens,
        log_probs=tuple(map(float, completion["trace_positive"]))[:length],
        guided_log_probs=tuple(map(float, completion["trace_guided"]))[:length],
        entropies=tuple(map(float, completion["trace_entropy"]))[:length],
        finish_reason=completion["finish_reason"],
        tokens_read=_integers(completion["tokens_read"]),
        tokens_read_in_full=_integers(completion["tokens_read_in_full"]),
        parameters=_integers(completion["parameters"]),
        choices=tuple(Choice(**choice) for choice in completion["choices"])
        if pd.api.types.is_list_like(completion["choices"])
        else (),  # older files do not have the column
    )


def _references(stored: Any) -> tuple[str, ...]:
    """Convert stored references to a tuple. Older files have None or NaN if there is none."""
    return tuple(stored) if pd.api.types.is_list_like(stored) else ()


def _integers(stored: Any) -> tuple[int, ...]:
    """Convert a stored list of integers to a tuple. None becomes an empty tuple.

    None stands for a list that an older file does not have.
    """
    return () if stored is None else tuple(map(int, stored))

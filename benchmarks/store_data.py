"""Writes a results folder with synthetic texts, for the benchmark of the results store.

The files have the schemas of real files. Ids, texts, contexts and scores differ between texts. The columns of
tokens, traces and alternatives repeat those of a few texts, so that a million texts fit on a small disk: they
take as much memory as real ones, and less disk.
"""

from __future__ import annotations

import json
import multiprocessing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from cfg_lab.study.columns import CELL_SCHEMA, COMPLETION_SCHEMA, SCORE_SCHEMA
from cfg_lab.study.store import IDENTITY_VERSION

TOKENS = 64
TOP = 5
METRICS = ("perplexity", "sentiment", "toxicity", "distinct_1", "repeated_2", "length")
SCALES = (1.0, 1.25, 1.5, 1.75, 2.0, 2.5, 3.0, 4.0, 5.0, 7.0)
NEGATIVES = ("empty", "own", "opposite", "last_token", "custom")
DIFFERENT_TEXTS = 20
"""Number of texts whose tokens, traces and alternatives are repeated."""

SETTINGS: dict[str, Any] = {
    "model": "smollm2",
    "prompts": "openers_200",
    "guidance": "cfg",
    "sampling": "nucleus",
    "model.name": "smollm2",
    "model.revision": None,
    "model.dtype": "auto",
    "model.device": "auto",
    "model.quantization": None,
    "model.attn_implementation": None,
    "model.trust_remote_code": False,
    "model.prompt_format": "auto",
    "model.chat_template": None,
    "prompts.system": None,
    "prompts.limit": None,
    "negatives.phrases": None,
    "negatives.template": "default",
    "negatives.mode": "joined",
    "negatives.system": None,
    "guidance.stopping": "never",
    "guidance.adaptive": "constant",
    "guidance.schedule": "constant",
    "guidance.normalise_weights": True,
    "sampling.top_k": 0,
    "sampling.top_p": 1.0,
    "sampling.min_p": 0.0,
    "guidance.modifiers": "[]",
    "seed": 0,
    "max_new_tokens": TOKENS,
    "top": TOP,
    "stop": "[]",
}
"""Settings that all cells share."""


@dataclass(frozen=True, kw_only=True)
class Size:
    """Size of the folder. The number of texts is a multiple of the number of cells."""

    texts: int
    files: int
    cells: int

    @property
    def samples(self) -> int:
        """Number of samples of each prompt."""
        return 10 if self.texts // self.cells >= 1000 else 2

    @property
    def prompts(self) -> int:
        """Number of prompts of each cell."""
        return self.texts // self.cells // self.samples


def write_folder(root: Path, size: Size, processes: int) -> None:
    """Write cells, completions and scores of `size` to the folder `root`."""
    for name in ("cells", "completions", "scores"):
        (root / name).mkdir(parents=True)
    order = np.random.default_rng(0).permutation(size.texts)  # texts of all cells are decoded together
    parts = list(enumerate(np.array_split(order, size.files)))
    with multiprocessing.get_context("spawn").Pool(processes) as pool:
        pool.map(partial(_write_cell, root, size), range(size.cells))
        pool.map(partial(_write_completions, root, size), parts, chunksize=25)
        texts = np.arange(size.texts)
        scores = [(number, part) for number, part in enumerate(np.array_split(texts, size.files))]
        pool.map(partial(_write_scores, root), scores, chunksize=25)


def _ids(texts: np.ndarray[Any, Any]) -> pa.Array:
    """An id of 32 hex digits for each number of a text. Ids in a row do not resemble each other."""
    mixed = (texts.astype(np.uint64) + np.uint64(1)) * np.uint64(0x9E3779B97F4A7C15)
    return pa.array(
        [f"{value:016x}{text:016x}" for value, text in zip(mixed.tolist(), texts.tolist(), strict=True)]
    )


def _score_ids(texts: np.ndarray[Any, Any]) -> pa.Array:
    return pa.array([f"{name}-0123456789ab" for name in _ids(texts).to_pylist()])


def _write_cell(root: Path, size: Size, cell: int) -> None:
    texts = np.arange(cell, size.texts, size.cells)[: size.prompts * size.samples]
    prompt, sample = np.divmod(np.arange(len(texts)), size.samples)
    columns: dict[str, Any] = {
        "prompt_id": [f"p{number:03}" for number in prompt],
        "prompt": [
            f"Tell me a story of {number} knights who crossed the river at night." for number in prompt
        ],
        "prompt_negative": [f"sad, dark, {number} dragons" for number in prompt],
        "sample": sample,
        "completion": _ids(texts),
        "score_id": _score_ids(texts),
    }
    settings = {
        **SETTINGS,
        "guidance.scale": SCALES[cell % len(SCALES)],
        "negatives": NEGATIVES[cell // len(SCALES) % len(NEGATIVES)],
        "sampling.temperature": 0.1 * (1 + cell // len(SCALES) // len(NEGATIVES)),
        "samples": size.samples,
    }
    metadata = {"settings": json.dumps(settings), "identity_version": str(IDENTITY_VERSION)}
    table = _table(CELL_SCHEMA, columns, len(texts)).replace_schema_metadata(metadata)
    pq.write_table(table, root / "cells" / f"{cell:016x}.parquet", compression="zstd")


def _write_completions(root: Path, size: Size, part: tuple[int, np.ndarray[Any, Any]]) -> None:
    number, texts = part
    count = len(texts)
    guided = (texts % size.cells) % len(SCALES) > 0
    prompt = texts // size.cells // size.samples
    positive = np.arange(44, dtype=np.int32)[None] + prompt.astype(np.int32)[:, None]
    branches = np.concatenate([[0], np.cumsum(guided)]).astype(np.int32)
    negative = pa.ListArray.from_arrays(
        pa.array(np.arange(0, 60 * guided.sum() + 1, 60, np.int32)),
        pa.array((np.arange(60, dtype=np.int32)[None] + prompt[guided].astype(np.int32)[:, None]).ravel()),
    )
    columns = {
        **_repeated_columns(count),
        "id": _ids(texts),
        "positive_ids": pa.FixedSizeListArray.from_arrays(pa.array(positive.ravel()), 44).cast(
            pa.list_(pa.int32())
        ),
        "negative_ids": pa.ListArray.from_arrays(pa.array(branches), negative),
        "negative_weights": pa.ListArray.from_arrays(
            pa.array(branches), pa.array(np.ones(int(guided.sum())))
        ),
        "negative_models": pa.ListArray.from_arrays(
            pa.array(branches), pa.nulls(int(guided.sum()), pa.string())
        ),
        "text": [f"Text {text}: " + _WORDS * 7 for text in texts.tolist()],
    }
    table = _table(COMPLETION_SCHEMA, columns, count)
    pq.write_table(table, root / "completions" / f"{number:020x}.parquet", compression="zstd")


_WORDS = "the knight rode over the hills and the river, "


def _repeated_columns(count: int) -> dict[str, pa.Array]:
    """The columns that repeat those of a few texts, for `count` texts."""
    generator = np.random.default_rng(0)
    rows = np.arange(count) % DIFFERENT_TEXTS
    columns: dict[str, Any] = {
        "model_name": ["smollm2"],
        "model_fingerprint": ["26948b5c61ad20f43004a2d97ff117c3"],
        "others": [[]],
        "finish_reason": ["length"],
        "tokens_read": [[110, 120]],
        "tokens_read_in_full": [[110, 120]],
        "parameters": [[134515008, 134515008]],
        "stop_token": [False],
        "choices": [[]],
    }
    columns = {name: values * DIFFERENT_TEXTS for name, values in columns.items()}
    for field in COMPLETION_SCHEMA:
        if field.name in ("tokens", "pieces") or field.name.startswith(("trace_", "alternatives_")):
            depth = TOKENS * TOP if field.name.startswith("alternatives_") else TOKENS
            shape = (DIFFERENT_TEXTS, depth)
            tokens, numbers = generator.integers(0, 49152, shape), -generator.exponential(2, shape)
            columns[field.name] = [
                _steps(field.name, *row) for row in zip(tokens.tolist(), numbers.tolist(), strict=True)
            ]
    return {
        name: pa.array(values, COMPLETION_SCHEMA.field(name).type).take(rows)
        for name, values in columns.items()
    }


def _steps(column: str, tokens: list[int], numbers: list[float]) -> list[Any]:
    """The values of one text in a column with an entry for each token."""
    if column == "tokens":
        return tokens
    if column == "pieces":
        return [f" w{token}" for token in tokens]
    if column.startswith("trace_"):
        return numbers
    likeliest = [
        {"token": token, "piece": f" w{token}", "log_prob": number}
        for token, number in zip(tokens, numbers, strict=True)
    ]
    return [likeliest[start : start + TOP] for start in range(0, len(likeliest), TOP)]


def _write_scores(root: Path, part: tuple[int, np.ndarray[Any, Any]]) -> None:
    number, texts = part
    generator = np.random.default_rng(number)
    ids = _score_ids(texts)
    tables = [
        pa.table(
            {
                "text": ids,
                "scorer": [f"{metric:012x}"] * len(texts),
                "column": [name] * len(texts),
                "value": generator.normal(0.5, 0.1, len(texts)),
            },
            schema=SCORE_SCHEMA,
        )
        for metric, name in enumerate(METRICS)
    ]
    pq.write_table(pa.concat_tables(tables), root / "scores" / f"{number:020x}.parquet", compression="zstd")


def _table(schema: pa.Schema, columns: dict[str, Any], count: int) -> pa.Table:
    """A table of `schema`. A column that is not in `columns` is null."""
    arrays = [
        columns[field.name] if isinstance(columns.get(field.name), pa.Array)
        else pa.array(columns[field.name], field.type) if field.name in columns
        else pa.nulls(count, field.type)
        for field in schema
    ]  # fmt: skip
    return pa.Table.from_arrays(arrays, schema=schema)

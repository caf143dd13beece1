"""Laws of `max_rows="auto"`: as many rows as fit, and the same texts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request
from cfg_lab.decoding import decoder as decoder_module
from cfg_lab.decoding.batch import Batch
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.request_state import RequestState
from cfg_lab.decoding.row_limit import automatic_rows, rows_that_fit
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers
from tests import test_encoder_decoder, test_recurrent_models
from tests.conftest import make_model
from tests.test_decoder import REQUESTS, Forgetful, context, decoded, request, tokens

BYTES = st.integers(0, 1 << 40)
ROWS = st.integers(1, 5000)


@given(BYTES, BYTES, st.integers(1, 1 << 32), st.integers(0, 1 << 34), ROWS, ROWS)
def test_laws_of_the_number_of_rows(
    free: int, more: int, per_row: int, others: int, useful: int, widest: int
) -> None:
    def rows(**changes: int) -> int:
        values = {
            "free_bytes": free,
            "bytes_per_row": per_row,
            "other_bytes": others,
            "useful_rows": useful,
            "widest_request": widest,
            **changes,
        }
        return rows_that_fit(**values)

    found = rows()
    assert found >= widest, "every request can run"
    assert found <= max(widest, min(useful, 1024)), "no row is there for nothing"
    assert found == widest or found * per_row + others <= free, "all rows fit"
    assert rows(free_bytes=free + more) >= found
    assert rows(bytes_per_row=per_row + more) <= found
    assert rows(other_bytes=others + more) <= found
    assert found in {widest, useful, 1024} or found % 16 == 0 or found < 16
    assert rows(free_bytes=1 << 80) == max(widest, min(useful, 1024)), "with plenty of memory"


def limit(model: LanguageModel, requests: Sequence[Request], free: int, **others: LanguageModel) -> int:
    """The number of rows if the CPU were a GPU with so much free memory."""
    return automatic_rows({None: model, **others}, requests, lambda device: free, device_type="cpu")


def buffer_bytes(model: LanguageModel, requests: Sequence[Request], rows: int) -> int:
    """Bytes of the KV buffer of a batch with so many rows."""
    batch = Batch({None: model}, rows, [RequestState(request) for request in requests])
    with torch.inference_mode():
        batch.step()
    buffer = batch.model_rows[None].buffer
    assert isinstance(buffer, KVBuffer)
    layers = [tensor for layer in buffer.layers.values() for tensor in layer]
    return sum(tensor.nbytes for tensor in [*layers, *buffer.states.values()])


MODELS: dict[str, Any] = {
    "rotary": lambda: from_transformers(make_model("rotary")),
    "absolute": lambda: from_transformers(make_model("absolute")),
    "mamba": lambda: test_recurrent_models.tiny("mamba"),
    "jamba": lambda: test_recurrent_models.tiny("jamba"),
    "t5": lambda: from_transformers(test_encoder_decoder.make("t5")),
    "bart": lambda: from_transformers(test_encoder_decoder.make("bart")),
}


@pytest.mark.parametrize("kind", MODELS)
def test_the_rows_fit_whatever_the_model_keeps(kind: str) -> None:
    model = MODELS[kind]()
    vocab = model.vocab_size
    requests = [
        Request(
            positive=tuple(token % vocab for token in context(seed, 40)),
            negatives=(Branch(tuple(token % vocab for token in context(seed, 25))),),
            guidance=ClassifierFreeGuidance(scale=2),
            max_new_tokens=20,
        )
        for seed in range(300)
    ]
    of_100_rows = buffer_bytes(model, requests, 100) + 100 * vocab * 4  # with their logits
    rows = [limit(model, requests, free) for free in (0, of_100_rows, 2 * of_100_rows, 10**12)]
    assert rows == sorted(rows)
    assert rows[0] == 2, "one request can run"
    assert 2 < rows[1] < 100, "the rows fit"
    assert rows[3] == 600, "with plenty of memory, all requests run at once"


def test_longer_texts_and_more_models_leave_fewer_rows(rotary: LanguageModel) -> None:
    other = from_transformers(make_model("rotary", seed=1))
    short = [request(seed, max_new_tokens=4) for seed in range(400)]
    long = [replace(request, max_new_tokens=200) for request in short]
    between = [
        replace(request, negatives=tuple(replace(branch, model="other") for branch in request.negatives))
        for request in long
    ]
    free = 30_000_000
    alone = limit(rotary, long, free)
    assert limit(rotary, short, free) > alone > limit(rotary, between, free, other=other) > 4


def test_the_widest_request_runs_though_nothing_fits(rotary: LanguageModel) -> None:
    assert limit(rotary, REQUESTS, 0) == max(len(request.contexts) for request in REQUESTS)


def test_on_a_cpu_auto_is_128_rows_or_the_widest_request(rotary: LanguageModel) -> None:
    assert automatic_rows({None: rotary}, REQUESTS) == 128
    wide = Request(
        positive=(1,),
        negatives=tuple(Branch((token,)) for token in range(2, 202)),
        guidance=ClassifierFreeGuidance(scale=2),
    )
    assert automatic_rows({None: rotary}, [wide]) == 201


def test_texts_do_not_depend_on_the_rows_that_fit(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(rotary, REQUESTS)
    assert [completion.tokens for completion in decoded(rotary, REQUESTS, "auto")] == expected
    chosen: list[int] = []

    def small(models: Any, requests: Any) -> int:
        chosen.append(automatic_rows(models, requests, lambda device: 1_800_000, "cpu"))
        return chosen[-1]

    monkeypatch.setattr(decoder_module, "automatic_rows", small)
    assert [completion.tokens for completion in decoded(rotary, REQUESTS, "auto")] == expected
    assert 3 < chosen[0] < 40


def test_out_of_memory_halves_what_was_chosen(rotary: LanguageModel) -> None:
    decoder = Decoder(Forgetful(rotary, rows=5))
    with pytest.warns(UserWarning, match="going on with max_rows=64"):
        completions = {id(completion.request): completion.tokens for completion in decoder.decode(REQUESTS)}
    assert [completions[id(request)] for request in REQUESTS] == tokens(rotary, REQUESTS)
    assert decoder.max_rows == 4


@pytest.mark.parametrize("value", [0, -1, 1.5, True, "many", None, 2**63])
def test_other_values_are_refused(rotary: LanguageModel, value: Any) -> None:
    with pytest.raises(InputError, match="max_rows must be auto or a whole number of at least 1, got"):
        Decoder(rotary, value)

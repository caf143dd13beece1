"""Models with recurrent layers (state space, linear attention, convolutions) obey the laws of the decoder."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch

from cfg_lab import Branch, ClassifierFreeGuidance, Completion, Decoder, Request, Sampling
from cfg_lab.decoding.model import Context
from cfg_lab.decoding.model_rows import ModelRows
from cfg_lab.decoding.prefill import prefill
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.guidance import ContrastiveDecoding, Interval, StopOnAgreement
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.models.architectures import known_types
from cfg_lab.models.kv_cache import is_recurrent
from tests import reference
from tests.tiny_architectures import build

MODELS = ["lfm2", "qwen3_next", "falcon_h1", "mamba2", "minimax"]
RULES = {
    "always on": ClassifierFreeGuidance(scale=2),
    "on late, so that negatives wait for rows": ClassifierFreeGuidance(scale=3, schedule=Interval(begin=3)),
    "stops on agreement": ClassifierFreeGuidance(scale=2, stopping=StopOnAgreement(threshold=6, steps=2)),
}


@cache
def tiny(name: str, seed: int = 0) -> LanguageModel:
    return from_transformers(build(name, seed))


def ids(seed: int, length: int) -> tuple[int, ...]:
    generator = torch.Generator().manual_seed(seed)
    return tuple(torch.randint(5, 90, (length,), generator=generator).tolist())


def grid() -> list[Request]:
    """Requests of many lengths: greedy, sampled and beams; some contexts begin alike."""
    requests = [
        Request(
            positive=(*ids(9, 3), *ids(seed, 1 + 2 * seed)),
            negatives=(Branch(ids(seed + 50, 1 + seed)), Branch(ids(9, 3), weight=0.5)),
            guidance=rule,
            max_new_tokens=8 + seed,
        )
        for seed in range(2)
        for rule in RULES.values()
    ]
    sampled = [replace(request, sampling=Sampling(temperature=1.5)) for request in requests[::2]]
    beams = [replace(request, sampling=BeamSearch(width=3, n_best=2)) for request in requests[:3]]
    return [*requests, *sampled, *beams]


def decode(
    model: LanguageModel, requests: list[Request], max_rows: int = 128, **others: Any
) -> list[Completion]:
    decoder = Decoder(model, max_rows, others)
    completions = {id(completion.request): completion for completion in decoder.decode(requests)}
    return [completions[id(request)] for request in requests]


def test_new_hybrids_and_state_space_models_are_decoded_right() -> None:
    for name in (
        *("bailing_hybrid", "bamba", "falcon_h1", "falcon_mamba", "granitemoehybrid", "jamba", "kimi_linear"),
        *("lfm2", "lfm3", "mamba", "mamba2", "minimax", "nemotron_h", "olmo_hybrid", "qwen3_5_text"),
        *("qwen3_next", "zamba", "zamba2"),
    ):
        assert is_recurrent(build(name).config), "the tiny model has a recurrent layer"
        assert name in known_types()


@pytest.mark.parametrize("name", MODELS)
def test_alone_and_in_any_batch(name: str) -> None:
    requests = grid()
    alone = [decode(tiny(name), [request])[0].tokens for request in requests]
    for max_rows in (9, 128):
        assert [c.tokens for c in decode(tiny(name), requests, max_rows)] == alone


@pytest.mark.parametrize("name", MODELS)
def test_beams_and_stopping_equal_brute_force(name: str) -> None:
    module = tiny(name).module
    for rule in RULES.values():
        request = Request(positive=ids(1, 6), negatives=(Branch(ids(2, 3)),), guidance=rule, max_new_tokens=7)
        search = BeamSearch(width=2, n_best=2)
        greedy, beam = decode(tiny(name), [request, replace(request, sampling=search)], max_rows=4)
        if rule.stopping == RULES["always on"].stopping:  # `decode_by` knows no stopping
            assert list(greedy.tokens) == reference.decode_by(rule, request, {None: module})
            best = reference.beam_search(rule, request, {None: module}, search)
            assert [list(c.tokens) for c in (beam, *beam.others)] == [tokens for tokens, _ in best]
        else:
            assert greedy.negative_steps < greedy.steps, "guidance stopped"


@pytest.mark.parametrize("name", MODELS)
def test_scoring_a_text_gives_the_trace_of_decoding_it(name: str) -> None:
    requests = [request for request in grid() if request.sampling is None]
    completions = decode(tiny(name), requests)
    traces = Decoder(tiny(name)).trace_texts(requests, [completion.tokens for completion in completions])
    for completion, trace in zip(completions, traces, strict=True):
        for field, values in vars(trace).items():
            assert values == pytest.approx(getattr(completion.trace, field), abs=5e-3, nan_ok=True), field


def test_a_negative_on_another_model_equals_brute_force() -> None:
    models = {None: tiny("lfm2"), "amateur": tiny("mamba2", 1)}
    request = Request(
        positive=ids(3, 9),
        negatives=(Branch(ids(3, 9), model="amateur"),),
        guidance=ContrastiveDecoding(),
        max_new_tokens=10,
    )
    (completion,) = decode(tiny("lfm2"), [request], amateur=models["amateur"])
    modules = {name: model.module for name, model in models.items()}
    assert list(completion.tokens) == reference.decode_by(request.guidance, request, modules)


@pytest.mark.parametrize("name", MODELS)
def test_states_after_a_prefill_are_those_of_each_context_alone(name: str) -> None:
    """Padding never runs through a recurrence, and contexts that begin alike do not share a state."""
    model = tiny(name)
    lengths = [1, 2, 2, 5, 5, 9]
    contexts = [Context((*ids(9, 3), *ids(seed, length))) for seed, length in enumerate(lengths)]
    rows = ModelRows(model, 8, 32)
    for context in contexts:
        rows.prefixes.expect(context)
    rows.admit({context: [] for context in contexts})
    for row, context in enumerate(contexts):
        alone = prefill(model, [context.without_last_token], 0, [Prefix()])[0]
        batched = rows.buffer.prefix(row, alone.length)
        assert alone.states, "the model is recurrent"
        assert batched.states.keys() == alone.states.keys()
        for key, state in alone.states.items():
            torch.testing.assert_close(batched.states[key], state, rtol=1e-4, atol=1e-4)

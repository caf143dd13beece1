"""Laws of static steps: the texts and traces of ordinary steps, directly and recorded as on CUDA."""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch
from transformers import GPTNeoConfig, GPTNeoForCausalLM

from cfg_lab import BeamSearch, Branch, ClassifierFreeGuidance, Completion, Decoder, Request, Sampling
from cfg_lab.decoding import static_batch, static_check
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.decoding.static_batch import StaticBatch, runs_on_device
from cfg_lab.decoding.static_buffer import StaticKVBuffer, column_bucket, row_bucket
from cfg_lab.decoding.static_check import has_static_steps
from cfg_lab.decoding.step_graphs import StepGraphs
from cfg_lab.errors import InputError
from cfg_lab.guidance import Interval, StopOnAgreement
from cfg_lab.models import LanguageModel, from_transformers
from tests.conftest import VOCABULARY, make_model, make_tokenizer
from tests.recorded_graphs import HostNeededError, RecordedGraphs
from tests.test_decoder import REQUESTS, Forgetful, context, request
from tests.test_rules_in_the_decoder import MORE_RULES, RULES, make_request

REQUESTS_WITH_ALTERNATIVES = [replace(each, top=number % 4) for number, each in enumerate(REQUESTS)]
MODELS = ["rotary", "absolute"]


@pytest.fixture(scope="module", params=MODELS)
def model(request: pytest.FixtureRequest) -> LanguageModel:
    """Models whose layers attend to all tokens, one after another."""
    return from_transformers(make_model(request.param), make_tokenizer())


@pytest.fixture(params=["direct", "recorded"])
def graphs(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> list[StepGraphs]:
    """Run static steps directly, or recorded as in a CUDA graph. What has recorded them is listed."""
    made: list[StepGraphs] = []
    kind = RecordedGraphs if request.param == "recorded" else StepGraphs

    def make(device: torch.device, direct_runs: int = 0) -> StepGraphs:
        made.append(kind(device, direct_runs))
        return made[-1]

    monkeypatch.setattr(static_batch, "StepGraphs", make)
    monkeypatch.setattr(static_check, "StepGraphs", make)
    monkeypatch.setattr(static_check, "_results", {})
    return made


def decode(
    model: Any,
    requests: Sequence[Request],
    max_rows: int = 128,
    *,
    static: bool = True,
    others: dict[str, LanguageModel] | None = None,
) -> list[Completion]:
    """The completions in the order of the requests: exactly one for each."""
    decoder = Decoder(model, max_rows, others, static=static)
    completions = list(decoder.decode(requests))
    by_request = {id(completion.request): completion for completion in completions}
    assert len(by_request) == len(completions) == len(requests)
    return [by_request[id(each)] for each in requests]


def assert_equal_completions(completions: list[Completion], expected: list[Completion]) -> None:
    """Equal tokens, reasons, numbers of steps and alternatives. Traces are equal but for rounding."""
    for ours, theirs in zip(completions, expected, strict=True):
        assert ours.tokens == theirs.tokens
        assert ours.finish_reason == theirs.finish_reason
        assert (ours.steps, ours.negative_steps) == (theirs.steps, theirs.negative_steps)
        for name, values in theirs.trace.columns.items():
            assert ours.trace.columns[name] == pytest.approx(values, abs=1e-3, nan_ok=True), name
        assert len(ours.trace.alternatives) == len(theirs.trace.alternatives)
        for here, there in zip(ours.trace.alternatives, theirs.trace.alternatives, strict=True):
            for ours_of, theirs_of in zip(vars(here).values(), vars(there).values(), strict=True):
                assert [token for token, _ in ours_of] == [token for token, _ in theirs_of]
                assert [nats for _, nats in ours_of] == pytest.approx([n for _, n in theirs_of], abs=1e-3)


def assert_all_was_recorded(graphs: list[StepGraphs]) -> None:
    assert graphs
    assert not any(each.failure for each in graphs)
    assert all(each.captures > 0 for each in graphs if isinstance(each, RecordedGraphs))


@pytest.mark.parametrize("max_rows", [4, 16, 128])
def test_equals_ordinary_steps(model: LanguageModel, graphs: list[StepGraphs], max_rows: int) -> None:
    """With admission, ends at any step, other lengths, scales, weights, samplers and numbers of branches."""
    assert all(map(runs_on_device, REQUESTS_WITH_ALTERNATIVES))
    expected = decode(model, REQUESTS_WITH_ALTERNATIVES, static=False)
    assert_equal_completions(decode(model, REQUESTS_WITH_ALTERNATIVES, max_rows), expected)
    order = random.Random(max_rows).sample(range(len(REQUESTS)), len(REQUESTS))
    shuffled = decode(model, [REQUESTS_WITH_ALTERNATIVES[n] for n in order], max_rows)
    assert_equal_completions(shuffled, [expected[n] for n in order])
    assert_all_was_recorded(graphs)


def test_64_random_requests_equal_each_alone(model: LanguageModel) -> None:
    requests = [request(number) for number in range(100, 164)]
    alone = [decode(model, [each])[0] for each in requests]
    assert_equal_completions(decode(model, requests, max_rows=24), alone)


def test_every_rule_equals_ordinary_steps(model: LanguageModel, graphs: list[StepGraphs]) -> None:
    """Also with guidance that is off at some steps, and with scales that change at every step."""
    requests = [
        make_request(rule, sampling=sampling, sample=number, max_new_tokens=5 + number)
        for number, rule in enumerate([*RULES, *MORE_RULES])
        for sampling in (None, Sampling(temperature=1.2, top_p=0.9))
    ]
    assert all(map(runs_on_device, requests))
    assert_equal_completions(decode(model, requests), decode(model, requests, static=False))
    assert_all_was_recorded(graphs)


def test_branches_of_other_models_equal_ordinary_steps(graphs: list[StepGraphs]) -> None:
    """Models of other sizes and vocabularies, each with rows of its own."""
    first, second = (from_transformers(make_model("rotary", seed), make_tokenizer()) for seed in (0, 1))
    third = from_transformers(make_model("absolute"), make_tokenizer())
    names = ["second", "third"]
    requests = [
        replace(
            each,
            negatives=(
                *each.negatives,
                Branch(context(seed, 3 + seed % 7), model=names[seed % 2]),
            ),
            guidance=ClassifierFreeGuidance(scale=2),
        )
        for seed, each in enumerate(REQUESTS[:12])
    ]
    models = {"second": second, "third": third}
    expected = decode(first, requests, static=False, others=models)
    assert_equal_completions(decode(first, requests, max_rows=8, others=models), expected)
    assert_all_was_recorded(graphs)


def test_what_needs_the_host_is_decoded_by_ordinary_steps(rotary: LanguageModel) -> None:
    """In one call with requests that do not."""
    agreement = ClassifierFreeGuidance(scale=2, stopping=StopOnAgreement(threshold=5, steps=2))
    on_host = [
        request(1, sampling=BeamSearch(width=3), stop_ids=frozenset()),
        request(2, stop_when=lambda tokens: len(tokens) == 3),
        request(3, guidance=agreement, negatives=(Branch(context(7, 4)),)),
        request(4, guidance=Foreign(scale=2), negatives=(Branch(context(8, 4)),)),
    ]
    assert not any(map(runs_on_device, on_host))
    requests = [*on_host, *REQUESTS[:6]]
    assert_equal_completions(decode(rotary, requests), decode(rotary, requests, static=False))


@dataclass(frozen=True, kw_only=True)
class Foreign(ClassifierFreeGuidance):
    """A rule of a user. Its code may depend on more than its arguments."""


def test_models_without_full_attention_use_ordinary_steps() -> None:
    """A window is shorter than the texts, or a layer keeps a state."""
    sliding = from_transformers(make_model("sliding"), make_tokenizer())
    assert sliding.static_length == 6
    assert_equal_completions(decode(sliding, REQUESTS), decode(sliding, REQUESTS, static=False))


def test_a_window_that_counts_columns_instead_of_tokens_is_noticed() -> None:
    """GPT-Neo computes the windows of its local layers from the number of columns, which is larger here."""
    config = GPTNeoConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_layers=2,
        attention_types=[[["global", "local"], 1]],
        num_heads=4,
        window_size=30,
        max_position_embeddings=256,
        initializer_range=0.6,
    )
    torch.manual_seed(0)
    neo = from_transformers(GPTNeoForCausalLM(config).eval(), make_tokenizer())
    with pytest.warns(UserWarning, match="decodes without CUDA graphs"):
        assert not has_static_steps(neo)


def test_other_implementations_of_attention_use_ordinary_steps() -> None:
    """They read a mask of four dimensions in another way."""
    flex = from_transformers(make_model("rotary"), make_tokenizer())
    flex.module.config._attn_implementation = "flex_attention"
    assert flex.static_length == 0


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize("method", ["_start", "_read", "_repack", "_admit"])
def test_out_of_memory_at_any_moment_loses_no_text_and_returns_none_twice(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch, method: str, when: str
) -> None:
    expected = decode(rotary, REQUESTS, static=False)
    original = getattr(StaticBatch, method)
    calls = 0

    def fail_at_some_calls(self: StaticBatch) -> Any:
        nonlocal calls
        calls += 1
        fails = calls in (3, 6)
        if fails and when == "before":
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        result = original(self)
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        return result

    monkeypatch.setattr(StaticBatch, method, fail_at_some_calls)
    with pytest.warns(UserWarning, match="out of memory"):
        assert_equal_completions(decode(rotary, REQUESTS, max_rows=32), expected)
    assert calls > 6


def test_steps_are_reported(rotary: LanguageModel) -> None:
    new_tokens: list[int] = []
    decoder = Decoder(rotary, 6, static=True)
    completions = list(decoder.decode(REQUESTS, on_step=new_tokens.append))
    assert sum(new_tokens) == sum(len(completion.tokens) for completion in completions)


class StaticDouble(Forgetful):
    """A model with static steps that gives NaN, or other logits, in a static step from some column on.

    Args:
        add: what is added to a logit of the first row.
        column: the first column with this fault.
    """

    def __init__(self, model: LanguageModel, add: float, column: int) -> None:
        super().__init__(model, 1000)
        self.static_length = model.static_length
        self.add, self.column = add, column

    def forward(self, ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> Any:
        logits = self.model.forward(ids, positions, mask, buffer)
        if isinstance(buffer, StaticKVBuffer) and buffer.now >= self.column:
            logits[0, 0, 7] += self.add
        return logits


def test_logits_that_are_not_numbers_name_model_prompt_and_step(rotary: LanguageModel) -> None:
    plain = Request(positive=context(5, 20), max_new_tokens=12)
    with pytest.raises(NotANumberError, match="not numbers at step 3") as caught:
        decode(StaticDouble(rotary, math.nan, column=22), [plain])
    assert caught.value.model == rotary.name
    assert caught.value.request is plain
    assert caught.value.step == 3


def test_a_model_with_other_logits_uses_ordinary_steps_after_one_warning(rotary: LanguageModel) -> None:
    double = StaticDouble(rotary, 30, column=0)
    with pytest.warns(UserWarning, match="decodes without CUDA graphs.*other logits") as caught:
        completions = decode(double, REQUESTS)
    assert len(caught) == 1
    assert_equal_completions(completions, decode(rotary, REQUESTS, static=False))
    assert not has_static_steps(double)


def test_a_model_that_cannot_be_recorded_uses_ordinary_steps(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Waits(StaticDouble):
        def forward(self, ids: Any, *arguments: Any, **others: Any) -> Any:
            assert int(ids[0, 0]) >= 0  # the host reads a value of the GPU
            return super().forward(ids, *arguments, **others)

    monkeypatch.setattr(static_check, "StepGraphs", RecordedGraphs)
    double = Waits(rotary, 0, column=0)
    with pytest.warns(UserWarning, match="decodes without CUDA graphs.*needs the host"):
        assert_equal_completions(decode(double, REQUESTS[:4]), decode(rotary, REQUESTS[:4], static=False))


def test_recording_freezes_what_python_decides(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The stand-in for CUDA graphs would show a step that decides in Python: here, by a number of columns."""

    class Frozen(StaticDouble):
        def forward(self, ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> Any:
            logits = super().forward(ids, positions, mask, buffer)
            return logits + (buffer.now % 2) * torch.arange(logits.shape[-1])

    monkeypatch.setattr(static_check, "StepGraphs", RecordedGraphs)
    with pytest.warns(UserWarning, match="other logits"):
        assert not has_static_steps(Frozen(rotary, 0, column=0))
    with pytest.raises(HostNeededError):
        RecordedGraphs(torch.device("cpu"))._capture(lambda: print(torch.ones(1).item()), [])


def test_cuda_graphs_off_uses_ordinary_steps(rotary: LanguageModel) -> None:
    assert not Decoder(rotary).static  # a CPU
    assert Decoder(rotary, static=True).static
    assert not Decoder(rotary, static=True, cuda_graphs="off").static
    with pytest.raises(InputError, match=r"cuda_graphs must be auto or off, got 'on'"):
        Decoder(rotary, cuda_graphs="on")  # pyright: ignore[reportArgumentType]


def test_shapes_are_from_a_small_set() -> None:
    rows = [row_bucket(number) for number in range(1, 600)]
    assert rows == sorted(rows)
    assert all(number <= bucket for number, bucket in enumerate(rows, 1))
    assert set(rows) == {1, 2, 4, 8, *range(16, 609, 16)}
    assert [column_bucket(number) for number in (1, 128, 129)] == [128, 128, 256]


def test_few_shapes_are_recorded_for_many_steps(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A grid of 8 scales with schedules of two kinds: one graph of the model, two of the groups."""
    made: list[StepGraphs] = []

    def make(device: torch.device) -> StepGraphs:
        made.append(RecordedGraphs(device))
        return made[-1]

    monkeypatch.setattr(static_batch, "StepGraphs", make)
    constant = ClassifierFreeGuidance()
    requests = [
        make_request(replace(rule, scale=scale), max_new_tokens=20)
        for scale in (1.1, 1.5, 2, 3)
        for rule in (constant, replace(constant, schedule=Interval(end=5)))
    ]
    decode(rotary, requests)
    (graphs,) = made
    assert graphs.captures == 3

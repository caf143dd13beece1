"""Laws of the decoder."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from dataclasses import fields, replace
from typing import Any

import pytest
import torch

from cfg_lab import BeamSearch, Branch, ClassifierFreeGuidance, Completion, Decoder, Request, Sampling
from cfg_lab.decoding.batch import Batch
from cfg_lab.decoding.identity import canonical
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.decoding.prefix import Prefix
from cfg_lab.decoding.row_limit import MaxRows
from cfg_lab.decoding.trace import NEGATIVE_FIELDS, TRACE_FIELDS, Trace
from cfg_lab.errors import InputError
from cfg_lab.guidance import Interval
from cfg_lab.models import LanguageModel
from cfg_lab.study.stop_strings import StopStrings
from tests import reference

SCALES = [-0.5, 0, 0.5, 1, 1.5, 3]


def context(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(256), k=length))


def request(number: int, **changes: Any) -> Request:
    """Requests that differ in everything: lengths, branches, weights, scale, sampling, stop tokens."""
    chance = random.Random(number)
    negatives = tuple(
        Branch(context(100 * number + k, chance.randint(1, 30)), chance.choice([0.5, 1.0, 2.0]))
        for k in range(chance.choice([0, 1, 1, 2]))
    )
    values = {
        "positive": context(number // 2, 1 + number % 2 * 10 + chance.randint(0, 20)),
        "negatives": negatives,
        "guidance": ClassifierFreeGuidance(scale=chance.choice(SCALES)),
        "sampling": chance.choice(
            [None, Sampling(temperature=1.5), Sampling(temperature=0.8, top_p=0.9), Sampling(top_k=5)]
        ),
        "max_new_tokens": chance.randint(1, 25),
        "stop_ids": frozenset(chance.choices(range(256), k=8)),
        "sample": number,
    }
    return Request(**{**values, **changes})


REQUESTS = [request(number) for number in range(24)]


def decoded(model: LanguageModel, requests: Sequence[Request], max_rows: MaxRows = 128) -> list[Completion]:
    """The completions in the order of the requests: exactly one for each."""
    completions = list(Decoder(model, max_rows).decode(requests))
    by_request = {id(completion.request): completion for completion in completions}
    assert len(by_request) == len(completions) == len(requests)
    return [by_request[id(request)] for request in requests]


def tokens(model: LanguageModel, requests: Sequence[Request], max_rows: int = 128) -> list[tuple[int, ...]]:
    return [completion.tokens for completion in decoded(model, requests, max_rows)]


def test_greedy_equals_transformers(tiny: LanguageModel) -> None:
    for seed in range(4):
        positive, negative = context(seed, 5 + 3 * seed), context(seed + 50, 1 + 4 * seed)
        for scale in (1.3, 2.0):
            expected = tiny.module.generate(
                torch.tensor([positive]),
                attention_mask=torch.ones(1, len(positive), dtype=torch.long),
                negative_prompt_ids=torch.tensor([negative]),
                negative_prompt_attention_mask=torch.ones(1, len(negative), dtype=torch.long),
                guidance_scale=scale,
                max_new_tokens=20,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=258,
            )[0, len(positive) :].tolist()
            guided = Request(
                positive=positive,
                negatives=(Branch(negative),),
                guidance=ClassifierFreeGuidance(scale=scale),
                max_new_tokens=20,
            )
            assert list(tokens(tiny, [guided])[0]) == expected


@pytest.mark.parametrize("scale", SCALES)
def test_equals_the_formula_by_brute_force_without_cache(tiny: LanguageModel, scale: float) -> None:
    positive = context(1, 9)
    negatives = (Branch(context(2, 14), 1.0), Branch(context(3, 4), 0.5), Branch(context(4, 1), -0.25))
    guided = Request(
        positive=positive,
        negatives=negatives,
        guidance=ClassifierFreeGuidance(scale=scale),
        max_new_tokens=16,
    )
    (completion,) = decoded(tiny, [guided])
    ids, weights = [branch.ids for branch in negatives], [branch.weight for branch in negatives]
    assert list(completion.tokens) == reference.decode(tiny.module, positive, ids, weights, scale, 16)


def test_trace_is_what_brute_force_measures(tiny: LanguageModel) -> None:
    positive, negatives, weights = context(1, 9), [context(2, 14), context(3, 4)], [2.0, 0.5]
    guided_request = Request(
        positive=positive,
        negatives=tuple(Branch(ids, weight) for ids, weight in zip(negatives, weights, strict=True)),
        guidance=ClassifierFreeGuidance(scale=1.7),
        sampling=Sampling(temperature=1.3),
        max_new_tokens=6,
    )
    (completion,) = decoded(tiny, [guided_request])
    assert len(completion.tokens) == 6
    for step, token in enumerate(completion.tokens):
        before = completion.tokens[:step]
        of_positive = reference.log_probs(tiny.module, [*positive, *before])
        first, second = (reference.log_probs(tiny.module, [*ids, *before]) for ids in negatives)
        guided = reference.guided(
            tiny.module, [*positive, *before], [[*ids, *before] for ids in negatives], weights, 1.7
        )
        expected = {
            "guided": guided[token],
            "positive": of_positive[token],
            "negative": 0.8 * first[token] + 0.2 * second[token],
            "entropy": -(guided.exp() * guided).sum(),
            "divergence": 0.8 * (of_positive.exp() * (of_positive - first)).sum()
            + 0.2 * (of_positive.exp() * (of_positive - second)).sum(),
            "scale": torch.tensor(1.7),
        }
        assert expected.keys() == completion.trace.columns.keys()
        for name, value in expected.items():
            assert completion.trace.columns[name][step] == pytest.approx(float(value), abs=2e-4), name


def test_the_fields_of_a_trace_are_defined_once(rotary: LanguageModel) -> None:
    """TRACE_FIELDS are the fields of Trace, and NEGATIVE_FIELDS those that are NaN where no negative runs."""
    assert set(TRACE_FIELDS) == {field.name for field in fields(Trace)} - {"alternatives"}
    (completion,) = decoded(rotary, [Request(positive=context(1, 5), max_new_tokens=4)])
    assert len(completion.tokens) == 4
    for name, values in completion.trace.columns.items():
        assert [value != value for value in values] == [name in NEGATIVE_FIELDS] * 4, name


def test_scale_1_is_plain_decoding_and_runs_no_negative(tiny: LanguageModel) -> None:
    plain = Request(positive=context(1, 9), max_new_tokens=16)
    off = replace(plain, negatives=(Branch(context(2, 5)),), guidance=ClassifierFreeGuidance(scale=1))
    without_negative = replace(plain, guidance=ClassifierFreeGuidance(scale=3))
    assert tokens(tiny, [plain]) == tokens(tiny, [off]) == tokens(tiny, [without_negative])
    assert len(off.contexts) == len(without_negative.contexts) == 1
    assert plain.id("model") == off.id("model") == without_negative.id("model")


def test_scale_0_is_decoding_the_negative(tiny: LanguageModel) -> None:
    zero = Request(
        positive=context(1, 9),
        negatives=(Branch(context(2, 5)),),
        guidance=ClassifierFreeGuidance(scale=0),
        max_new_tokens=16,
    )
    guided, plain = decoded(tiny, [zero, Request(positive=context(2, 5), max_new_tokens=16)])
    assert guided.tokens == plain.tokens
    assert guided.trace.guided == pytest.approx(plain.trace.positive, abs=1e-4)


@pytest.mark.parametrize("max_rows", [3, 5, 8, 128])
def test_alone_and_in_any_batch(tiny: LanguageModel, max_rows: int) -> None:
    alone = [tokens(tiny, [request])[0] for request in REQUESTS]
    assert tokens(tiny, REQUESTS, max_rows) == alone
    order = random.Random(max_rows).sample(range(len(REQUESTS)), len(REQUESTS))
    assert tokens(tiny, [REQUESTS[n] for n in order], max_rows) == [alone[n] for n in order]


def test_a_short_buffer_is_moved_and_changes_nothing(
    tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = tokens(tiny, REQUESTS, max_rows=4)
    moves: list[int] = []
    create, move = KVBuffer.__init__, KVBuffer._move
    longest = max(
        len(ids) + r.max_new_tokens for r in REQUESTS for ids in [r.positive, *(b.ids for b in r.branches)]
    )

    def short(self: KVBuffer, rows: int, columns: int, device: torch.device, live: int = 0) -> None:
        create(self, rows, columns if live else longest + 1, device, live)

    def counted(self: KVBuffer, by: int) -> None:
        moves.append(by)
        move(self, by)

    monkeypatch.setattr(KVBuffer, "__init__", short)
    monkeypatch.setattr(KVBuffer, "_move", counted)
    assert tokens(tiny, REQUESTS, max_rows=4) == expected
    assert any(by < 0 for by in moves)


def test_rows_of_the_buffer_keep_their_tokens_whatever_happens_to_others() -> None:
    """Admit, fork, free, advance and move in random order, against a plain list of tokens for each row.

    The state of a row must be that of the same row alone: every token changes it.
    """

    def state_after(tokens: list[float]) -> float:
        state = 0.0
        for token in tokens:
            state = 0.5 * state + token
        return state

    chance = random.Random(0)
    device = torch.device("cpu")
    for _ in range(20):
        buffer = KVBuffer(6, 16, device)
        rows: list[list[float]] = []
        for _ in range(60):
            action = chance.choice(["admit", "fork", "free", "write", "write"])
            if action == "admit" and buffer.live < 6:
                length = chance.randint(0, 8)
                tokens = [chance.random() for _ in range(length)]
                keys = torch.tensor(tokens).reshape(1, length, 1)
                state = torch.tensor([state_after(tokens)])
                filled = Prefix(length=length, layers={0: (keys, -keys)}, states={"a": state})
                buffer.admit([filled if length else Prefix()])
                rows.append(tokens)
            elif action == "fork" and 0 < buffer.live < 6:
                source = chance.randrange(buffer.live)
                buffer.fork([source])
                rows.append([*rows[source]])
            elif action == "free" and buffer.live:
                row = chance.randrange(buffer.live)
                buffer.free(row)
                rows[row] = rows[-1]
                rows.pop()
            elif action == "write" and buffer.live and max(map(len, rows)) < 15:
                new = torch.rand(buffer.live, 1, 1, 1)
                assert buffer.positions()[:, 0].tolist() == [len(row) for row in rows]
                mask = buffer.mask()
                keys, values = buffer.write(0, new, -new)
                for row, token in zip(rows, new.flatten().tolist(), strict=True):
                    row.append(token)
                visible = [keys[row, 0, mask[row], 0].tolist() for row in range(buffer.live)]
                assert visible == [pytest.approx(row) for row in rows]
                assert torch.equal(values, -keys)
                states = buffer.states.get("a")
                if states is None:
                    states = buffer.allocate_state("a", (1,), new)
                states[: buffer.live] = 0.5 * states[: buffer.live] + new.reshape(-1, 1)
                buffer.advance()
            assert buffer.live == len(rows)
            for row, tokens in enumerate(rows):
                prefix = buffer.prefix(row, len(tokens))
                if prefix.layers:
                    assert prefix.layers[0][0].flatten().tolist() == pytest.approx(tokens)
                if prefix.states:
                    assert float(prefix.states["a"]) == pytest.approx(state_after(tokens), rel=1e-5)
            assert {*buffer.layers, *buffer.states} == {0, "a"} or not any(rows)


def test_same_seed_same_text_and_another_sample_another_text(rotary: LanguageModel) -> None:
    base = request(3, sampling=Sampling(), max_new_tokens=20, stop_ids=frozenset())
    again, sample, seed = replace(base), replace(base, sample=99), replace(base, seed=1)
    first, second, third, fourth = tokens(rotary, [base, again, sample, seed])
    assert first == second
    assert len({first, third, fourth}) == 3


def test_the_trace_of_a_given_text_is_what_decoding_it_traced(tiny: LanguageModel) -> None:
    completions = decoded(tiny, REQUESTS)
    traces = Decoder(tiny).trace_texts(REQUESTS, [completion.tokens for completion in completions])
    for completion, trace in zip(completions, traces, strict=True):
        assert trace.alternatives == completion.trace.alternatives == ()
        for name, values in trace.columns.items():
            expected = completion.trace.columns[name]
            assert len(values) == len(completion.tokens)
            assert values == pytest.approx(expected, abs=2e-3, nan_ok=True), name


def test_traces_of_given_texts_do_not_depend_on_the_batch(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = [request.positive[:5] for request in REQUESTS]
    in_one_batch = Decoder(rotary).trace_texts(REQUESTS, texts)
    monkeypatch.setattr("cfg_lab.decoding.text_logits._MAX_LOGITS", 1)  # one text per forward
    for alone, batched in zip(Decoder(rotary).trace_texts(REQUESTS, texts), in_one_batch, strict=True):
        for name, values in alone.columns.items():
            assert values == pytest.approx(batched.columns[name], abs=1e-4, nan_ok=True), name


def test_texts_that_cannot_be_traced(rotary: LanguageModel) -> None:
    with pytest.raises(InputError, match="continuation 1 is empty"):
        Decoder(rotary).trace_texts(REQUESTS[:2], [(1,), ()])
    with pytest.raises(InputError, match="exceed the 256 tokens"):
        Decoder(rotary).trace_texts(REQUESTS[:1], [[1] * 256])


def test_why_a_text_ends(rotary: LanguageModel) -> None:
    free = Request(positive=context(5, 6), max_new_tokens=12)
    (long,) = decoded(rotary, [free])
    assert long.finish_reason == "length"
    assert len(long.tokens) == 12
    stop = long.tokens[4]
    (stopped,) = decoded(rotary, [replace(free, stop_ids=frozenset([stop]))])
    assert stopped.finish_reason == "stop"
    assert stopped.tokens == long.tokens[: long.tokens.index(stop) + 1]
    (short,) = decoded(rotary, [replace(free, stop_when=lambda tokens: len(tokens) == 3)])
    assert (short.finish_reason, short.tokens) == ("stop", long.tokens[:3])


def test_stop_when_is_called_once_per_token(rotary: LanguageModel) -> None:
    """It may decode the text, so a second call would cost time."""
    lengths: list[int] = []

    def stop_when(tokens: Sequence[int]) -> bool:
        lengths.append(len(tokens))
        return False

    decoded(rotary, [Request(positive=context(5, 6), max_new_tokens=12, stop_when=stop_when)])
    assert lengths == list(range(1, 13))


def test_steps_are_reported(rotary: LanguageModel) -> None:
    new_tokens: list[int] = []
    completions = list(Decoder(rotary, 6).decode(REQUESTS, on_step=new_tokens.append))
    assert sum(new_tokens) == sum(len(completion.tokens) for completion in completions)


# Errors


class Forgetful:
    """A model that runs out of memory above a number of rows, after its first 8 forwards."""

    def __init__(self, model: LanguageModel, rows: int) -> None:
        self.model, self.rows, self.calls = model, rows, 0
        self.name, self.device = model.name, model.device
        self.context_length, self.vocab_size = model.context_length, model.vocab_size
        self.context_limit, self.recurrent = model.context_limit, model.recurrent
        self.start, self.read, self.static_length = model.start, model.read, 0

    def forward(self, ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> Any:
        self.calls += 1
        if len(ids) > self.rows and self.calls > 8:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        return self.model.forward(ids, positions, mask, buffer)


def test_out_of_memory_halves_the_rows_and_loses_nothing(rotary: LanguageModel) -> None:
    expected = tokens(rotary, REQUESTS)
    decoder = Decoder(Forgetful(rotary, rows=5), max_rows=32)
    with pytest.warns(UserWarning, match="going on with max_rows=16"):
        completions = {id(c.request): c.tokens for c in decoder.decode(REQUESTS)}
    assert [completions[id(request)] for request in REQUESTS] == expected
    assert decoder.max_rows == 4


@pytest.mark.parametrize("when", ["before", "after"])
@pytest.mark.parametrize(
    "method", ["fork", "admit", "forward", "guide_and_sample", "record", "release", "_regroup"]
)
def test_out_of_memory_at_any_moment_loses_no_text_and_returns_none_twice(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch, method: str, when: str
) -> None:
    """Also for a beam search, and for a request that waits for the rows of its negatives."""
    late = ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3))
    requests = [
        *REQUESTS[:8],
        *(request(seed, guidance=late, max_new_tokens=6) for seed in range(4)),
        *(request(seed, sampling=BeamSearch(width=2), max_new_tokens=5) for seed in range(4)),
    ]
    expected = tokens(rotary, requests)
    original = getattr(Batch, method)
    calls = 0

    def fail_at_some_calls(self: Batch, *arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        fails = calls in (4, 9)
        if fails and when == "before":
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        result = original(self, *arguments)
        if fails:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        return result

    monkeypatch.setattr(Batch, method, fail_at_some_calls)
    with pytest.warns(UserWarning, match="out of memory"):
        assert tokens(rotary, requests, max_rows=32) == expected
    assert calls > 9


def test_out_of_memory_with_nothing_left_to_halve_is_an_error(rotary: LanguageModel) -> None:
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="out of memory"):
        list(Decoder(Forgetful(rotary, rows=0), max_rows=8).decode(REQUESTS))


class Broken(Forgetful):
    """A model whose logits are not numbers once its rows are longer than 12 tokens."""

    def forward(self, ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> Any:
        logits = self.model.forward(ids, positions, mask, buffer)
        if buffer.now > 12:
            logits[0, 0, 7] = torch.nan
        return logits


def test_logits_that_are_not_numbers_name_model_prompt_and_step(rotary: LanguageModel) -> None:
    plain = Request(positive=context(5, 8), max_new_tokens=12)
    with pytest.raises(NotANumberError, match="not numbers at step 6") as caught:
        list(Decoder(Broken(rotary, 9)).decode([plain]))
    assert caught.value.model == rotary.name
    assert caught.value.request is plain
    assert caught.value.step == 6


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"positive": context(1, 250)}, "250 tokens and max_new_tokens=16 exceed the 256 tokens"),
        ({"negatives": (Branch(context(1, 251)),)}, "251 tokens"),
        ({"negatives": tuple(Branch(context(k, 2)) for k in range(9))}, "max_rows must be at least 10"),
    ],
)
def test_requests_that_do_not_fit(rotary: LanguageModel, changes: dict[str, Any], message: str) -> None:
    base = Request(positive=context(1, 4), guidance=ClassifierFreeGuidance(scale=2), max_new_tokens=16)
    with pytest.raises(InputError, match=message):
        next(Decoder(rotary, max_rows=8).decode([replace(base, **changes)]))


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"positive": ()}, "positive context is empty"),
        ({"positive": (1,), "negatives": (Branch(()),)}, "negative context is empty"),
        ({"positive": (1,), "max_new_tokens": 0}, "max_new_tokens must be at least 1, got 0"),
        ({"positive": (1,), "top": -1}, r"top must be at least 0 \(keeps none\), got -1"),
        ({"positive": (1,), "negatives": (Branch((1,), 0.0),)}, "not all 0"),
        ({"positive": (1,), "negatives": (Branch((1,), float("nan")),)}, "finite"),
    ],
)
def test_requests_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request(**values)


def test_a_decoder_without_rows_is_refused(rotary: LanguageModel) -> None:
    with pytest.raises(InputError, match="max_rows must be auto or a whole number of at least 1, got 0"):
        Decoder(rotary, max_rows=0)


# Shared rows


def test_cells_share_rows_until_their_tokens_differ(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt, one negative, six scales: two rows at first, one per different text later."""
    grid = [
        Request(
            positive=context(1, 7),
            negatives=(Branch(context(2, 9)),),
            guidance=ClassifierFreeGuidance(scale=scale),
            sampling=sampling,
            max_new_tokens=12,
        )
        for scale in (0.5, 1, 1.05, 1.5, 3, 6)
        for sampling in (None, Sampling())
    ]
    rows_run: list[int] = []
    forward = rotary.forward

    def counted(ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> Any:
        if mask is not None:
            rows_run.append(len(ids))
        return forward(ids, positions, mask, buffer, keep)

    monkeypatch.setattr(rotary, "forward", counted)
    texts = tokens(rotary, grid)
    assert len(rows_run) == 12
    for step, rows in enumerate(rows_run):
        prefixes = {(request.branches != (), text[:step]) for request, text in zip(grid, texts, strict=True)}
        positives = {text for _, text in prefixes}
        assert rows == len(positives) + sum(guided for guided, _ in prefixes)
    assert rows_run[0] == 2 < rows_run[-1]
    assert texts == [tokens(rotary, [request])[0] for request in grid]


# Content addresses


def test_ids_of_requests_stay_as_they_are() -> None:
    """A study is resumed by these ids. A change of them needs a new version in `Request.id`."""
    plain = Request(positive=(1, 2, 3), max_new_tokens=64)
    guided = replace(plain, negatives=(Branch((4, 5), 0.5),), guidance=ClassifierFreeGuidance(scale=2))
    sampled = replace(guided, sampling=Sampling(temperature=0.8, top_p=0.95), stop_ids=frozenset([7]))
    beams = replace(guided, sampling=BeamSearch(width=3))
    assert [request.id("model") for request in (plain, guided, sampled, beams)] == [
        "a1e2ab585fcffd488035385828f049e7",
        "e23118ae23f6c140cfa9cab17db08873",
        "e699f1cd6cf3977633bb4a46efff0faf",
        "6ade81166abc65cd2c4bc0c9df54e09e",
    ]


def test_ids_of_requests_with_stop_strings_are_not_those_of_completions_that_were_not_cut() -> None:
    """In version "v2" of the ids, the tokens of a stop string were part of the completion."""
    request = Request(positive=(1, 2, 3), stop_when=StopStrings(("hot",), str))
    assert request.id("model") == "91911ac33fc45e86a67803a2f42be43e" != "bece21ddb83558e7a3ab5eb82db60c2f"


def test_an_id_changes_with_whatever_changes_the_text() -> None:
    base = request(
        1, negatives=(Branch((4, 5), 0.5),), guidance=ClassifierFreeGuidance(scale=2), sampling=Sampling()
    )
    changes: dict[str, Any] = {
        "positive": (1, 2, 3),
        "negatives": (Branch((4, 5), 0.25),),
        "guidance": ClassifierFreeGuidance(scale=2.5),
        "sampling": Sampling(temperature=0.8),
        "max_new_tokens": 63,
        "stop_ids": frozenset([7]),
        "stop_when": "a function",  # its repr counts
        "seed": 1,
        "sample": 9,
        "top": 3,
    }
    assert changes.keys() == {field.name for field in fields(Request)}
    ids = {
        base.id("model"),
        base.id("other"),
        *(replace(base, **{k: v}).id("model") for k, v in changes.items()),
    }
    assert len(ids) == 2 + len(changes)
    greedy = replace(base, sampling=None)
    assert greedy.id("model") == replace(greedy, seed=1, sample=9).id("model")  # no noise


def test_canonical_data_are_equal_for_equal_values_only() -> None:
    values = [
        Sampling(),
        Sampling(top_k=5),
        BeamSearch(),
        ClassifierFreeGuidance(scale=2),
        ClassifierFreeGuidance(scale=2.5),
        ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3)),
        (1, 2),
        "1",
        1,
        None,
        True,
        1.5,
    ]
    assert len({json.dumps(canonical(value)) for value in values}) == len(values)
    assert canonical(ClassifierFreeGuidance(scale=2.0)) == canonical(ClassifierFreeGuidance(scale=2))
    assert canonical(Sampling()) == ["Sampling", {}]
    assert canonical(frozenset([3, 1])) == [1, 3]

"""Laws of the decoder."""

from __future__ import annotations

import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from cfg_lab import Branch, ClassifierFreeGuidance, Completion, Decoder, Request, Sampling
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel
from tests import reference

SCALES = [-0.5, 0, 0.5, 1, 1.5, 3]


def context(seed: int, length: int) -> tuple[int, ...]:
    return tuple(random.Random(seed).choices(range(256), k=length))


def request(number: int, **changes: Any) -> Request:
    """Requests that differ in everything: lengths, branches, weights, scale, sampling, stops."""
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


def decoded(model: LanguageModel, requests: list[Request], max_rows: int = 128) -> list[Completion]:
    """In the order of the requests."""
    found = {id(completion.request): completion for completion in Decoder(model, max_rows).decode(requests)}
    return [found[id(one)] for one in requests]


def tokens(model: LanguageModel, requests: list[Request], max_rows: int = 128) -> list[tuple[int, ...]]:
    return [completion.tokens for completion in decoded(model, requests, max_rows)]


def test_greedy_equals_transformers(tiny: LanguageModel) -> None:
    for seed in range(4):
        positive, negative = context(seed, 5 + 3 * seed), context(seed + 50, 1 + 4 * seed)
        for scale in (1.3, 2.0):
            theirs = tiny.module.generate(
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
            ours = Request(
                positive=positive,
                negatives=(Branch(negative),),
                guidance=ClassifierFreeGuidance(scale=scale),
                max_new_tokens=20,
            )
            assert list(tokens(tiny, [ours])[0]) == theirs


@pytest.mark.parametrize("scale", SCALES)
def test_equals_the_formula_by_brute_force_without_cache(tiny: LanguageModel, scale: float) -> None:
    positive = context(1, 9)
    negatives = (Branch(context(2, 14), 1.0), Branch(context(3, 4), 0.5), Branch(context(4, 1), -0.25))
    one = Request(
        positive=positive,
        negatives=negatives,
        guidance=ClassifierFreeGuidance(scale=scale),
        max_new_tokens=16,
    )
    (completion,) = decoded(tiny, [one])
    ids, weights = [branch.ids for branch in negatives], [branch.weight for branch in negatives]
    assert list(completion.tokens) == reference.decode(tiny.module, positive, ids, weights, scale, 16)


def test_trace_is_what_brute_force_measures(tiny: LanguageModel) -> None:
    positive, negatives, weights = context(1, 9), [context(2, 14), context(3, 4)], [2.0, 0.5]
    one = Request(
        positive=positive,
        negatives=tuple(Branch(ids, weight) for ids, weight in zip(negatives, weights, strict=True)),
        guidance=ClassifierFreeGuidance(scale=1.7),
        sampling=Sampling(temperature=1.3),
        max_new_tokens=6,
    )
    (completion,) = decoded(tiny, [one])
    for step, token in enumerate(completion.tokens):
        before = completion.tokens[:step]
        own = reference.log_probs(tiny.module, [*positive, *before])
        theirs = [reference.log_probs(tiny.module, [*ids, *before]) for ids in negatives]
        guided = reference.guided(
            tiny.module, [*positive, *before], [[*ids, *before] for ids in negatives], weights, 1.7
        )
        expected = {
            "guided": guided[token],
            "positive": own[token],
            "negative": 0.8 * theirs[0][token] + 0.2 * theirs[1][token],
            "entropy": -(guided.exp() * guided).sum(),
            "divergence": 0.8 * (own.exp() * (own - theirs[0])).sum()
            + 0.2 * (own.exp() * (own - theirs[1])).sum(),
            "scale": torch.tensor(1.7),
        }
        for name, value in expected.items():
            assert getattr(completion.trace, name)[step] == pytest.approx(float(value), abs=2e-4), name


def test_scale_1_is_plain_decoding_and_runs_no_negative(tiny: LanguageModel) -> None:
    plain = Request(positive=context(1, 9), max_new_tokens=16)
    off = replace(plain, negatives=(Branch(context(2, 5)),), guidance=ClassifierFreeGuidance(scale=1))
    without = replace(plain, guidance=ClassifierFreeGuidance(scale=3))
    assert tokens(tiny, [plain]) == tokens(tiny, [off]) == tokens(tiny, [without])
    assert len(off.contexts) == len(without.contexts) == 1
    assert plain.id("model") == off.id("model") == without.id("model")


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
    alone = [tokens(tiny, [one])[0] for one in REQUESTS]
    assert tokens(tiny, REQUESTS, max_rows) == alone
    shuffled = random.Random(max_rows).sample(REQUESTS, len(REQUESTS))
    expected = {id(one): found for one, found in zip(REQUESTS, alone, strict=True)}
    assert tokens(tiny, shuffled, max_rows) == [expected[id(one)] for one in shuffled]


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


def test_same_seed_same_text_and_another_sample_another_text(rotary: LanguageModel) -> None:
    base = request(3, sampling=Sampling(), max_new_tokens=20, stop_ids=frozenset())
    again, sample, seed = replace(base), replace(base, sample=99), replace(base, seed=1)
    first, second, third, fourth = tokens(rotary, [base, again, sample, seed])
    assert first == second
    assert len({first, third, fourth}) == 3


def test_scoring_a_text_is_what_decoding_it_traced(tiny: LanguageModel) -> None:
    completions = [one for one in decoded(tiny, REQUESTS) if one.tokens]
    traces = Decoder(tiny).trace_texts(
        [one.request for one in completions], [one.tokens for one in completions]
    )
    for completion, trace in zip(completions, traces, strict=True):
        for name, values in vars(trace).items():
            assert values == pytest.approx(getattr(completion.trace, name), abs=2e-3, nan_ok=True), name


def test_scoring_does_not_depend_on_the_batch(rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    texts = [tuple(one.positive[:5]) for one in REQUESTS]
    together = Decoder(rotary).trace_texts(REQUESTS, texts)
    monkeypatch.setattr("cfg_lab.decoding.teacher_forcing._MAX_LOGITS", 1)  # one at a time
    for ours, theirs in zip(Decoder(rotary).trace_texts(REQUESTS, texts), together, strict=True):
        assert ours.guided == pytest.approx(theirs.guided, abs=1e-4)
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
    (told,) = decoded(rotary, [replace(free, stop_when=lambda tokens: len(tokens) == 3)])
    assert (told.finish_reason, told.tokens) == ("stop", long.tokens[:3])


def test_steps_are_reported(rotary: LanguageModel) -> None:
    seen: list[int] = []
    completions = list(Decoder(rotary, 6).decode(REQUESTS, on_step=seen.append))
    assert sum(seen) == sum(len(completion.tokens) for completion in completions)


class Forgetful:
    """A model that runs out of memory above so many rows, every other time it is asked."""

    def __init__(self, model: LanguageModel, rows: int) -> None:
        self.model, self.rows, self.calls = model, rows, 0
        self.name, self.device = model.name, model.device
        self.context_length, self.vocab_size = model.context_length, model.vocab_size
        self.start, self.read = model.start, model.read

    def forward(self, ids: Any, positions: Any, mask: Any, columns: KVBuffer, keep: int = 1) -> Any:
        self.calls += 1
        if len(ids) > self.rows and self.calls > 8:
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        return self.model.forward(ids, positions, mask, columns)


def test_out_of_memory_halves_the_rows_and_loses_nothing(rotary: LanguageModel) -> None:
    expected = tokens(rotary, REQUESTS)
    decoder = Decoder(Forgetful(rotary, rows=5), max_rows=32)
    with pytest.warns(UserWarning, match="going on with max_rows=16"):
        found = {id(c.request): c.tokens for c in decoder.decode(REQUESTS)}
    assert [found[id(one)] for one in REQUESTS] == expected
    assert decoder.max_rows == 4


def test_out_of_memory_with_nothing_left_to_halve_is_an_error(rotary: LanguageModel) -> None:
    with pytest.raises(torch.OutOfMemoryError), pytest.warns(UserWarning, match="out of memory"):
        list(Decoder(Forgetful(rotary, rows=0), max_rows=8).decode(REQUESTS))


class Broken(Forgetful):
    def forward(self, ids: Any, positions: Any, mask: Any, columns: KVBuffer, keep: int = 1) -> Any:
        logits = self.model.forward(ids, positions, mask, columns)
        if columns.now > 12:
            logits[0, 0, 7] = torch.nan
        return logits


def test_logits_that_are_not_numbers_name_model_prompt_and_step(rotary: LanguageModel) -> None:
    one = Request(positive=context(5, 8), max_new_tokens=12)
    with pytest.raises(NotANumberError, match="not numbers at step 6") as caught:
        list(Decoder(Broken(rotary, 9)).decode([one]))
    assert caught.value.request is one
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
        ({"positive": (1,), "negatives": (Branch((1,), 0.0),)}, "not all 0"),
        ({"positive": (1,), "negatives": (Branch((1,), float("nan")),)}, "finite"),
    ],
)
def test_requests_that_make_no_sense(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        Request(**values)


def test_cells_that_have_not_parted_share_rows(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One prompt, one negative, six scales: two rows at first, as many as there are different texts later."""
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
    ran: list[int] = []
    forward = rotary.forward

    def counted(ids: Any, positions: Any, mask: Any, columns: KVBuffer, keep: int = 1) -> Any:
        if mask is not None:
            ran.append(len(ids))
        return forward(ids, positions, mask, columns, keep)

    monkeypatch.setattr(rotary, "forward", counted)
    found = tokens(rotary, grid)
    for step, rows in enumerate(ran):
        texts = {(one.branches != (), text[:step]) for one, text in zip(grid, found, strict=True)}
        positives = {text for _, text in texts}
        assert rows == len(positives) + sum(guided for guided, _ in texts)
    assert ran[0] == 2 < ran[-1]
    assert found == [tokens(rotary, [one])[0] for one in grid]

"""Every rule inside the decoder: what it decodes is the rule applied to brute force, and negatives run only
while they are looked at."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from typing import Any

import pytest
import torch

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, Sampling
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.decoding.model_rows import ModelRows
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError
from cfg_lab.guidance import (
    ByEntropy,
    ContrastiveDecoding,
    Interval,
    KLBudget,
    Linear,
    Modifiers,
    Rule,
    SelfDebiasing,
    UnionGuidance,
)
from cfg_lab.models import LanguageModel
from tests import reference
from tests.test_decoder import Broken, context, decoded, tokens

RULES: list[Rule] = [
    UnionGuidance(scale=3),
    SelfDebiasing(),
    ContrastiveDecoding(),
    ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3, end=8)),
    ClassifierFreeGuidance(scale=4, schedule=Linear(steps=6)),
    ClassifierFreeGuidance(scale=0, schedule=Interval(end=5), modifiers=Modifiers(rescale=0.7)),
    UnionGuidance(scale=6, adaptive=KLBudget(nats=0.2), modifiers=Modifiers(plausibility=0.05)),
    ClassifierFreeGuidance(scale=3, adaptive=ByEntropy(), modifiers=Modifiers(projection=0, norm_bound=5)),
]


def short(rule: Any) -> str:
    """What differs from the defaults."""
    if not isinstance(rule, Rule):
        return str(rule)
    default = type(rule)()
    changed = [f"{key}={value}" for key, value in vars(rule).items() if value != getattr(default, key)]
    return f"{type(rule).__name__}({', '.join(changed)})"


def asked(rule: Rule, seed: int = 0, **changes: Any) -> Request:
    values = {
        "positive": context(seed, 9),
        "negatives": (Branch(context(seed + 1, 14)), Branch(context(seed + 2, 3), 0.5)),
        "guidance": rule,
        "max_new_tokens": 14,
    }
    return Request(**{**values, **changes})


@pytest.mark.parametrize("rule", RULES, ids=short)
def test_a_rule_decodes_what_it_gives_by_brute_force(tiny: LanguageModel, rule: Rule) -> None:
    one = asked(rule)
    (completion,) = decoded(tiny, [one])
    assert list(completion.tokens) == reference.decode_by(rule, one, {None: tiny.module})


def test_rules_do_not_depend_on_the_batch(tiny: LanguageModel) -> None:
    grid = [
        asked(rule, number % 2, sampling=sampling, sample=number, max_new_tokens=5 + number)
        for number, rule in enumerate(RULES)
        for sampling in (None, Sampling(temperature=1.2))
    ]
    alone = {id(one): tokens(tiny, [one])[0] for one in grid}
    for max_rows in (3, 7, 128):
        mixed = random.Random(max_rows).sample(grid, len(grid))
        assert tokens(tiny, mixed, max_rows) == [alone[id(one)] for one in mixed]


def rows_run(model: LanguageModel, one: Request, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Rows of each step."""
    ran: list[int] = []
    forward = model.forward

    def counted(ids: Any, positions: Any, mask: Any, columns: KVBuffer, keep: int = 1) -> Any:
        if mask is not None:
            ran.append(len(ids))
        return forward(ids, positions, mask, columns, keep)

    monkeypatch.setattr(model, "forward", counted)
    decoded(model, [one])
    monkeypatch.undo()
    return ran


def test_schedules_admit_and_release_exactly_the_rows_they_should(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ran(schedule: Any, **rule: Any) -> list[int]:
        one = asked(ClassifierFreeGuidance(scale=2, schedule=schedule, **rule), max_new_tokens=8)
        return rows_run(rotary, one, monkeypatch)

    assert ran(Interval()) == [3] * 8
    assert ran(Interval(end=3)) == [3, 3, 3, 1, 1, 1, 1, 1]
    assert ran(Interval(begin=6)) == [1, 1, 1, 1, 1, 1, 3, 3]
    assert ran(Interval(begin=2, end=5)) == [1, 1, 3, 3, 3, 1, 1, 1]
    assert ran(Linear(steps=4)) == [3, 3, 3, 3, 1, 1, 1, 1]
    assert ran(Interval(begin=8)) == [1] * 8  # never on: no negative is even prefilled


def test_once_the_branches_agree_the_negatives_are_let_go(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    always = asked(ClassifierFreeGuidance(scale=1.5), max_new_tokens=20)
    (free,) = decoded(rotary, [always])
    # a threshold that the first step over all later ones meets
    threshold = sorted(free.trace.divergence)[8]
    rule = ClassifierFreeGuidance(scale=1.5, agree_below=threshold, agree_steps=1)
    (completion,) = decoded(rotary, [replace(always, guidance=rule)])
    settled = next(n for n, nats in enumerate(completion.trace.divergence) if nats < threshold)
    assert 0 <= settled < 19
    assert completion.tokens[: settled + 1] == free.tokens[: settled + 1]
    assert completion.trace.scale[settled + 1 :] == (1.0,) * (19 - settled)
    assert all(map(math.isnan, completion.trace.negative[settled + 1 :]))
    ran = rows_run(rotary, replace(always, guidance=rule), monkeypatch)
    assert ran == [3] * (settled + 1) + [1] * (19 - settled)
    assert completion.tokens_read == (9 + 19, 14 + settled, 3 + settled)


@pytest.mark.parametrize(
    "rule", [*RULES, ClassifierFreeGuidance(scale=2, agree_below=3.0, agree_steps=2)], ids=short
)
def test_scoring_a_text_is_what_decoding_it_traced(tiny: LanguageModel, rule: Rule) -> None:
    (completion,) = decoded(tiny, [asked(rule)])
    (trace,) = Decoder(tiny).trace_texts([completion.request], [completion.tokens])
    for name, values in vars(trace).items():
        assert values == pytest.approx(getattr(completion.trace, name), abs=2e-3, nan_ok=True), name


def test_the_trace_keeps_what_else_was_likely(tiny: LanguageModel) -> None:
    one = asked(ClassifierFreeGuidance(scale=2, schedule=Interval(end=3)), top=4, max_new_tokens=5)
    (completion,) = decoded(tiny, [one])
    assert completion.tokens == tokens(tiny, [replace(one, top=0)])[0]
    assert len(completion.trace.alternatives) == 5
    for step, kept in enumerate(completion.trace.alternatives):
        before = completion.tokens[:step]
        own = reference.log_probs(tiny.module, [*one.positive, *before])
        values, likeliest = own.topk(4)
        assert [token for token, _ in kept.positive] == likeliest.tolist()
        assert [nats for _, nats in kept.positive] == pytest.approx(values.tolist(), abs=1e-3)
        assert kept.guided[0][0] == completion.tokens[step]  # greedy
        assert kept.guided[0][1] == pytest.approx(completion.trace.guided[step], abs=1e-4)
        if step < 3:
            first, second = (reference.log_probs(tiny.module, [*b.ids, *before]) for b in one.negatives)
            values, likeliest = ((first + first + second) / 3).topk(4)
            assert [token for token, _ in kept.negative] == likeliest.tolist()
        else:
            assert kept.negative == ()
            assert kept.guided == kept.positive


# Beams


@pytest.mark.parametrize(
    ("rule", "penalty"), [(rule, 1.0) for rule in RULES] + [(RULES[0], 0.0), (RULES[0], 2.0)], ids=short
)
def test_beam_search_equals_brute_force(tiny: LanguageModel, rule: Rule, penalty: float) -> None:
    search = BeamSearch(width=3, n_best=3, length_penalty=penalty)
    one = asked(rule, sampling=search, max_new_tokens=7, stop_ids=frozenset(range(0, 256, 9)))
    (completion,) = decoded(tiny, [one])
    found = [completion, *completion.others]
    expected = reference.beam_search(rule, one, {None: tiny.module}, search)
    assert [list(text.tokens) for text in found] == [text for text, _ in expected]
    for text, (_, score) in zip(found, expected, strict=True):
        assert sum(text.trace.guided) / len(text.tokens) ** penalty == pytest.approx(score, abs=2e-3)
        assert text.finish_reason == ("stop" if text.tokens[-1] in one.stop_ids else "length")


def test_beams_do_not_depend_on_the_batch(tiny: LanguageModel) -> None:
    grid = [
        asked(rule, seed, sampling=sampling, max_new_tokens=4 + seed)
        for seed in (0, 3)
        for rule in RULES[3:6]
        for sampling in (None, BeamSearch(width=2), BeamSearch(width=3))
    ]
    alone = [tokens(tiny, [one])[0] for one in grid]
    for max_rows in (9, 14):
        assert tokens(tiny, grid, max_rows) == alone


def test_one_beam_is_greedy(tiny: LanguageModel) -> None:
    for rule in RULES[::3]:
        one = asked(rule)
        assert tokens(tiny, [replace(one, sampling=BeamSearch(width=1))]) == tokens(tiny, [one])


def test_more_beams_than_tokens(rotary: LanguageModel) -> None:
    """A vocabulary smaller than the beams: nothing is counted twice."""
    one = asked(ClassifierFreeGuidance(scale=1), sampling=BeamSearch(width=300, n_best=300), max_new_tokens=1)
    (completion,) = decoded(rotary, [one], max_rows=1000)
    found = [completion, *completion.others]
    assert len({text.tokens for text in found}) == len(found) == 259


def test_unguided_beams_equal_transformers(tiny: LanguageModel) -> None:
    for seed in range(4):
        for penalty in (0.0, 1.0):
            search = BeamSearch(width=4, n_best=2, length_penalty=penalty)
            one = Request(positive=context(seed, 8), sampling=search, max_new_tokens=10)
            (completion,) = decoded(tiny, [one])
            theirs = tiny.module.generate(
                torch.tensor([one.positive]),
                attention_mask=torch.ones(1, 8, dtype=torch.long),
                num_beams=4,
                num_return_sequences=2,
                length_penalty=penalty,
                max_new_tokens=10,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=258,
            )[:, 8:].tolist()
            assert [list(text.tokens) for text in (completion, *completion.others)] == theirs


def test_beams_hold_no_impossible_token(rotary: LanguageModel) -> None:
    """What the plausibility mask has taken out is in no text, however few are left."""
    for seed in range(12):
        for early in (True, False):
            rule = ClassifierFreeGuidance(scale=2, modifiers=Modifiers(plausibility=0.5))
            search = BeamSearch(width=4, n_best=4, early_stopping=early)
            stops = frozenset(range(0, 256, 5))
            one = asked(rule, seed, sampling=search, max_new_tokens=6, stop_ids=stops)
            (completion,) = decoded(rotary, [one])
            for text in (completion, *completion.others):
                assert min(text.trace.guided) > -100


def test_drawing_holds_no_impossible_token_at_any_temperature(rotary: LanguageModel) -> None:
    rule = ClassifierFreeGuidance(scale=2, modifiers=Modifiers(plausibility=1.0))
    for truncated in (Sampling(temperature=5000.0), Sampling(temperature=5000.0, top_k=50)):
        (completion,) = decoded(rotary, [asked(rule, sampling=truncated)])
        assert min(completion.trace.guided) > -100


def test_a_beam_search_costs_what_it_ran(rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where the best text ended long before the search did."""
    early = False
    for seed in range(12):
        stops = frozenset(range(0, 256, 4))
        search = BeamSearch(width=4, length_penalty=0.0)
        rule = ClassifierFreeGuidance(scale=2)
        one = asked(rule, seed, sampling=search, max_new_tokens=12, stop_ids=stops)
        ran = rows_run(rotary, one, monkeypatch)
        (completion,) = decoded(rotary, [one])
        assert completion.steps == len(ran)
        assert sum(completion.tokens_read) >= sum(ran)
        early |= completion.steps > len(completion.tokens)
    assert early


def test_each_step_of_a_text_is_told_once_and_rows_are_those_that_ran(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beams are one text, and so is one that waits for the rows of its negatives."""
    late = ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3, end=5))
    stops = frozenset(range(0, 256, 4))
    for one in (
        asked(late),
        asked(late, sampling=BeamSearch(width=3)),
        asked(ClassifierFreeGuidance(scale=2), sampling=BeamSearch(width=4), stop_ids=stops),
    ):
        ran = rows_run(rotary, one, monkeypatch)
        told: list[int] = []
        decoder = Decoder(rotary)
        (completion,) = decoder.decode([one], on_step=told.append)
        assert sum(told) == completion.steps == decoder.steps
        assert decoder.rows == sum(ran)


def test_scores_do_not_depend_on_how_long_the_request_would_have_gone_on(rotary: LanguageModel) -> None:
    one = asked(ClassifierFreeGuidance(scale=3, schedule=Interval(begin=4)))
    text = context(9, 8)
    found = [
        trace.guided
        for length in (4, 8, 20)
        for trace in Decoder(rotary).trace_texts([replace(one, max_new_tokens=length)], [text])
    ]
    assert found[0] == found[1] == found[2]


def test_out_of_memory_while_rows_are_kept_loses_nothing(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3))
    grid = [asked(later, seed, max_new_tokens=8) for seed in range(4)]
    grid += [asked(ClassifierFreeGuidance(scale=1), seed, max_new_tokens=4) for seed in range(4)]
    expected = tokens(rotary, grid)
    keep, failed = ModelRows.save_prefix, []

    def forgetful(self: ModelRows, *arguments: Any) -> None:
        if not failed:
            failed.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        keep(self, *arguments)

    monkeypatch.setattr(ModelRows, "save_prefix", forgetful)
    with pytest.warns(UserWarning, match="out of memory"):
        assert tokens(rotary, grid, max_rows=12) == expected
    assert failed


def test_not_a_number_in_a_beam_search_names_model_and_step(rotary: LanguageModel) -> None:
    one = Request(positive=context(5, 8), sampling=BeamSearch(width=3), max_new_tokens=12)
    with pytest.raises(NotANumberError, match="not numbers at step 6"):
        list(Decoder(Broken(rotary, 9)).decode([one]))


@pytest.mark.parametrize("penalty", [400, -400, float("nan")])
def test_length_penalties_that_make_no_sense(penalty: float) -> None:
    with pytest.raises(InputError, match=r"sampling\.length_penalty must be a number from -10 to 10"):
        BeamSearch(length_penalty=penalty)

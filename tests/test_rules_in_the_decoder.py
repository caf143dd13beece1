"""Every rule inside the decoder: it gives what brute force gives, and negatives run only while needed."""

from __future__ import annotations

import math
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

import cfg_lab
from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, Sampling
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.decoding.model_rows import ModelRows
from cfg_lab.decoding.sampling import BeamSearch
from cfg_lab.errors import InputError, ModelError
from cfg_lab.guidance import (
    AdaptiveProjection,
    ByDivergence,
    ByEntropy,
    ByJSD,
    ContrastiveDecoding,
    Dola,
    EntropyGate,
    Interval,
    KLBudget,
    Linear,
    Plausibility,
    Rescale,
    Rule,
    SelfDebiasing,
    StopOnAgreement,
    UnionGuidance,
    ZeroStar,
    context_aware,
    experts,
    preadd,
)
from cfg_lab.models import LanguageModel
from tests import reference
from tests.cli import on, sweep
from tests.policies import POLICY
from tests.test_decoder import Broken, context, decoded, tokens

RULES: list[Rule] = [
    UnionGuidance(scale=3),
    SelfDebiasing(),
    ContrastiveDecoding(),
    ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3, end=8)),
    ClassifierFreeGuidance(scale=4, schedule=Linear(steps=6)),
    ClassifierFreeGuidance(scale=0, schedule=Interval(end=5), modifiers=(Rescale(),)),
    UnionGuidance(scale=6, adaptive=KLBudget(nats=0.2), modifiers=(Plausibility(threshold=0.05),)),
    ClassifierFreeGuidance(
        scale=3, adaptive=ByEntropy(), modifiers=(AdaptiveProjection(parallel=0, norm_bound=5),)
    ),
    ClassifierFreeGuidance(scale=6, adaptive=ByJSD()),
    ClassifierFreeGuidance(scale=5, adaptive=EntropyGate(threshold=1.5)),
    ClassifierFreeGuidance(scale=4, adaptive=POLICY),
]
MORE_RULES: list[Rule] = [
    Dola(),
    preadd(),
    context_aware(),
    experts(),
    ClassifierFreeGuidance(scale=4, adaptive=ByDivergence()),
    ClassifierFreeGuidance(scale=2, modifiers=(ZeroStar(), Plausibility(), Rescale(share=0.3))),
]
"""Further rules, for the test against brute force only."""


def rule_label(rule: Any) -> str:
    """A test's name for a rule: the class and the arguments that differ from its defaults."""
    if not isinstance(rule, Rule):
        return str(rule)
    default = type(rule)()
    changed = [f"{name}={value}" for name, value in vars(rule).items() if value != getattr(default, name)]
    return f"{type(rule).__name__}({', '.join(changed)})"


def make_request(rule: Rule, seed: int = 0, **changes: Any) -> Request:
    """A request with two negatives of other lengths, one of them with weight 0.5."""
    values = {
        "positive": context(seed, 9),
        "negatives": (Branch(context(seed + 1, 14)), Branch(context(seed + 2, 3), 0.5)),
        "guidance": rule,
        "max_new_tokens": 14,
    }
    return Request(**{**values, **changes})


@pytest.mark.parametrize("rule", [*RULES, *MORE_RULES], ids=rule_label)
def test_a_rule_decodes_what_it_gives_by_brute_force(tiny: LanguageModel, rule: Rule) -> None:
    # Once a sliding window has left the contexts, all branches are equal and DoLa's tokens are ties.
    request = make_request(rule, max_new_tokens=8 if isinstance(rule, Dola) else 14)
    (completion,) = decoded(tiny, [request])
    assert list(completion.tokens) == reference.decode_by(rule, request, {None: tiny.module})


@pytest.mark.parametrize(
    ("adaptive", "share"),
    [
        (EntropyGate(threshold=1.5), lambda positive, negative: float(_entropy(positive) > 1.5)),
        (ByJSD(), lambda positive, negative: max(0.0, float(_jsd(positive, negative)))),
        (ByJSD(floor=0.3), lambda positive, negative: max(0.3, float(_jsd(positive, negative)))),
    ],
    ids=["EntropyGate(1.5)", "ByJSD()", "ByJSD(0.3)"],
)
def test_adaptive_strength_decodes_the_papers_formula(
    tiny: LanguageModel, adaptive: Any, share: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In float64, on whole contexts. The negative runs at every step, so it is right whenever it counts."""
    distinct_scales: set[float] = set()
    for seed in range(4):
        request = make_request(
            ClassifierFreeGuidance(scale=4, adaptive=adaptive),
            seed,
            negatives=(Branch(context(seed + 1, 5)),),
        )
        expected: list[int] = []
        expected_scales: list[float] = []
        for _ in range(request.max_new_tokens):
            positive, negative = (
                reference.log_probs(tiny.module, [*ids, *expected]).double()
                for ids in (request.positive, request.negatives[0].ids)
            )
            expected_scales.append(1 + 3 * share(positive, negative))
            expected.append(int((negative + expected_scales[-1] * (positive - negative)).argmax()))
        (completion,) = decoded(tiny, [request])
        assert list(completion.tokens) == expected
        assert completion.trace.scale == pytest.approx(expected_scales, abs=1e-3)
        assert not any(map(math.isnan, completion.trace.negative))
        assert rows_run(tiny, request, monkeypatch) == [2] * 14
        distinct_scales |= set(completion.trace.scale)
    assert len(distinct_scales) > 1
    if isinstance(adaptive, EntropyGate):
        assert distinct_scales == {1.0, 4.0}


def _entropy(log_probs: torch.Tensor) -> torch.Tensor:
    return -(log_probs.exp() * log_probs).sum()


def _jsd(p: torch.Tensor, q: torch.Tensor) -> torch.Tensor:
    middle = ((p.exp() + q.exp()) / 2).log()
    return ((p.exp() * (p - middle)).sum() + (q.exp() * (q - middle)).sum()) / 2


def test_rules_do_not_depend_on_the_batch(tiny: LanguageModel) -> None:
    grid = [
        make_request(rule, number % 2, sampling=sampling, sample=number, max_new_tokens=5 + number)
        for number, rule in enumerate(RULES)
        for sampling in (None, Sampling(temperature=1.2))
    ]
    alone = {id(request): tokens(tiny, [request])[0] for request in grid}
    for max_rows in (3, 7, 128):
        shuffled = random.Random(max_rows).sample(grid, len(grid))
        assert tokens(tiny, shuffled, max_rows) == [alone[id(request)] for request in shuffled]


def rows_run(model: LanguageModel, request: Request, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Number of rows that the model ran at each step."""
    rows: list[int] = []
    model.module  # noqa: B018, the check at load runs rows too
    forward = model.forward

    def counted(ids: Any, positions: Any, mask: Any, columns: KVBuffer, keep: int = 1) -> Any:
        if mask is not None:
            rows.append(len(ids))
        return forward(ids, positions, mask, columns, keep)

    monkeypatch.setattr(model, "forward", counted)
    decoded(model, [request])
    monkeypatch.undo()
    return rows


def test_schedules_admit_and_release_exactly_the_rows_they_should(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    def rows(schedule: Any) -> list[int]:
        rule = ClassifierFreeGuidance(scale=2, schedule=schedule)
        return rows_run(rotary, make_request(rule, max_new_tokens=8), monkeypatch)

    assert rows(Interval()) == [3] * 8
    assert rows(Interval(end=3)) == [3, 3, 3, 1, 1, 1, 1, 1]
    assert rows(Interval(begin=6)) == [1, 1, 1, 1, 1, 1, 3, 3]
    assert rows(Interval(begin=2, end=5)) == [1, 1, 3, 3, 3, 1, 1, 1]
    assert rows(Linear(steps=4)) == [3, 3, 3, 3, 1, 1, 1, 1]
    assert rows(Interval(begin=8)) == [1] * 8  # never on: no negative is even prefilled


def test_once_the_branches_agree_no_negative_runs(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    never = make_request(ClassifierFreeGuidance(scale=1.5), max_new_tokens=20)
    (unstopped,) = decoded(rotary, [never])
    threshold = sorted(unstopped.trace.divergence)[8]
    rule = ClassifierFreeGuidance(scale=1.5, stopping=StopOnAgreement(threshold=threshold, steps=1))
    (completion,) = decoded(rotary, [replace(never, guidance=rule)])
    last = next(step for step, nats in enumerate(completion.trace.divergence) if nats < threshold)
    assert 0 <= last < 19
    assert completion.tokens[: last + 1] == unstopped.tokens[: last + 1]
    assert completion.trace.scale[last + 1 :] == (1.0,) * (19 - last)
    assert all(map(math.isnan, completion.trace.negative[last + 1 :]))
    rows = rows_run(rotary, replace(never, guidance=rule), monkeypatch)
    assert rows == [3] * (last + 1) + [1] * (19 - last)
    assert completion.tokens_read == (9 + 19, 14 + last, 3 + last)


@pytest.mark.parametrize(
    "rule",
    [*RULES, ClassifierFreeGuidance(scale=2, stopping=StopOnAgreement(threshold=3.0, steps=2))],
    ids=rule_label,
)
def test_scoring_a_text_is_what_decoding_it_traced(tiny: LanguageModel, rule: Rule) -> None:
    (completion,) = decoded(tiny, [make_request(rule)])
    (trace,) = Decoder(tiny).trace_texts([completion.request], [completion.tokens])
    assert len(trace.guided) == 14
    for name, values in vars(trace).items():
        assert values == pytest.approx(getattr(completion.trace, name), abs=2e-3, nan_ok=True), name


def test_the_trace_keeps_the_likeliest_alternatives(tiny: LanguageModel) -> None:
    rule = ClassifierFreeGuidance(scale=2, schedule=Interval(end=3))
    request = make_request(rule, top=4, max_new_tokens=5)
    (completion,) = decoded(tiny, [request])
    assert completion.tokens == tokens(tiny, [replace(request, top=0)])[0]
    assert len(completion.trace.alternatives) == 5
    for step, alternatives in enumerate(completion.trace.alternatives):
        prefix = completion.tokens[:step]
        positive = reference.log_probs(tiny.module, [*request.positive, *prefix])
        values, likeliest = positive.topk(4)
        assert [token for token, _ in alternatives.positive] == likeliest.tolist()
        assert [nats for _, nats in alternatives.positive] == pytest.approx(values.tolist(), abs=1e-3)
        assert alternatives.guided[0][0] == completion.tokens[step]  # greedy
        assert alternatives.guided[0][1] == pytest.approx(completion.trace.guided[step], abs=1e-4)
        if step < 3:
            first, second = (
                reference.log_probs(tiny.module, [*branch.ids, *prefix]) for branch in request.negatives
            )
            values, likeliest = ((first + first + second) / 3).topk(4)
            assert [token for token, _ in alternatives.negative] == likeliest.tolist()
        else:
            assert alternatives.negative == ()
            assert alternatives.guided == alternatives.positive


# Beams


@pytest.mark.parametrize(
    ("rule", "penalty"), [(rule, 1.0) for rule in RULES] + [(RULES[0], 0.0), (RULES[0], 2.0)], ids=rule_label
)
def test_beam_search_equals_brute_force(tiny: LanguageModel, rule: Rule, penalty: float) -> None:
    search = BeamSearch(width=3, n_best=3, length_penalty=penalty)
    request = make_request(rule, sampling=search, max_new_tokens=7, stop_ids=frozenset(range(0, 256, 9)))
    (completion,) = decoded(tiny, [request])
    texts = [completion, *completion.others]
    expected = reference.beam_search(rule, request, {None: tiny.module}, search)
    assert [list(text.tokens) for text in texts] == [text for text, _ in expected]
    for text, (_, score) in zip(texts, expected, strict=True):
        assert sum(text.trace.guided) / len(text.tokens) ** penalty == pytest.approx(score, abs=2e-3)
        assert text.finish_reason == ("stop" if text.tokens[-1] in request.stop_ids else "length")


def test_beams_do_not_depend_on_the_batch(tiny: LanguageModel) -> None:
    grid = [
        make_request(rule, seed, sampling=sampling, max_new_tokens=4 + seed)
        for seed in (0, 3)
        for rule in RULES[3:6]
        for sampling in (None, BeamSearch(width=2), BeamSearch(width=3))
    ]
    alone = [tokens(tiny, [request])[0] for request in grid]
    for max_rows in (9, 14):
        assert tokens(tiny, grid, max_rows) == alone


def test_one_beam_is_greedy(tiny: LanguageModel) -> None:
    for rule in RULES[::3]:
        request = make_request(rule)
        assert tokens(tiny, [replace(request, sampling=BeamSearch(width=1))]) == tokens(tiny, [request])


def test_more_beams_than_tokens(rotary: LanguageModel) -> None:
    """A vocabulary smaller than the beams: no text comes twice."""
    search = BeamSearch(width=300, n_best=300)
    request = make_request(ClassifierFreeGuidance(scale=1), sampling=search, max_new_tokens=1)
    (completion,) = decoded(rotary, [request], max_rows=1000)
    texts = [completion, *completion.others]
    assert len({text.tokens for text in texts}) == len(texts) == 259


def test_unguided_beams_equal_transformers(tiny: LanguageModel) -> None:
    for seed in range(4):
        for penalty in (0.0, 1.0):
            search = BeamSearch(width=4, n_best=2, length_penalty=penalty)
            request = Request(positive=context(seed, 8), sampling=search, max_new_tokens=10)
            (completion,) = decoded(tiny, [request])
            generated = tiny.module.generate(
                torch.tensor([request.positive]),
                attention_mask=torch.ones(1, 8, dtype=torch.long),
                num_beams=4,
                num_return_sequences=2,
                length_penalty=penalty,
                max_new_tokens=10,
                do_sample=False,
                eos_token_id=None,
                pad_token_id=258,
            )[:, 8:].tolist()
            assert [list(text.tokens) for text in (completion, *completion.others)] == generated


def test_beams_have_no_impossible_token(rotary: LanguageModel) -> None:
    """A token that the plausibility mask has ruled out is in no text, however few tokens are left."""
    for seed in range(12):
        for early in (True, False):
            rule = ClassifierFreeGuidance(scale=2, modifiers=(Plausibility(threshold=0.5),))
            search = BeamSearch(width=4, n_best=4, early_stopping=early)
            stops = frozenset(range(0, 256, 5))
            request = make_request(rule, seed, sampling=search, max_new_tokens=6, stop_ids=stops)
            (completion,) = decoded(rotary, [request])
            for text in (completion, *completion.others):
                assert min(text.trace.guided) > -100


def test_samples_have_no_impossible_token_at_any_temperature(rotary: LanguageModel) -> None:
    rule = ClassifierFreeGuidance(scale=2, modifiers=(Plausibility(threshold=1.0),))
    for sampling in (Sampling(temperature=5000.0), Sampling(temperature=5000.0, top_k=50)):
        (completion,) = decoded(rotary, [make_request(rule, sampling=sampling)])
        assert min(completion.trace.guided) > -100


def test_the_cost_of_a_beam_search_counts_every_step(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the best text ended long before the search did."""
    ended_early = False
    for seed in range(12):
        stops = frozenset(range(0, 256, 4))
        search = BeamSearch(width=4, length_penalty=0.0)
        rule = ClassifierFreeGuidance(scale=2)
        request = make_request(rule, seed, sampling=search, max_new_tokens=12, stop_ids=stops)
        rows = rows_run(rotary, request, monkeypatch)
        (completion,) = decoded(rotary, [request])
        assert completion.steps == len(rows)
        assert sum(completion.tokens_read) >= sum(rows)
        ended_early |= completion.steps > len(completion.tokens)
    assert ended_early


def test_each_step_of_a_text_is_reported_once_and_rows_are_counted_as_they_run(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A beam search counts as one text, and so does a text that waits for rows of its negatives."""
    late = ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3, end=5))
    stops = frozenset(range(0, 256, 4))
    for request in (
        make_request(late),
        make_request(late, sampling=BeamSearch(width=3)),
        make_request(ClassifierFreeGuidance(scale=2), sampling=BeamSearch(width=4), stop_ids=stops),
    ):
        rows = rows_run(rotary, request, monkeypatch)
        reported: list[int] = []
        decoder = Decoder(rotary)
        (completion,) = decoder.decode([request], on_step=reported.append)
        assert sum(reported) == completion.steps == decoder.steps
        assert decoder.rows == sum(rows)


def test_scores_do_not_depend_on_max_new_tokens(rotary: LanguageModel) -> None:
    request = make_request(ClassifierFreeGuidance(scale=3, schedule=Interval(begin=4)))
    text = context(9, 8)
    scores = [
        trace.guided
        for length in (4, 8, 20)
        for trace in Decoder(rotary).trace_texts([replace(request, max_new_tokens=length)], [text])
    ]
    assert scores[0] == scores[1] == scores[2]
    off = replace(request, guidance=ClassifierFreeGuidance(scale=1))
    (unguided,) = Decoder(rotary).trace_texts([off], [text])
    assert scores[0][:4] == pytest.approx(unguided.guided[:4], abs=1e-5)
    assert scores[0][4:] != pytest.approx(unguided.guided[4:], abs=1e-2)


def test_out_of_memory_while_rows_are_kept_loses_nothing(
    rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    later = ClassifierFreeGuidance(scale=2, schedule=Interval(begin=3))
    grid = [make_request(later, seed, max_new_tokens=8) for seed in range(4)]
    grid += [make_request(ClassifierFreeGuidance(scale=1), seed, max_new_tokens=4) for seed in range(4)]
    expected = tokens(rotary, grid)
    keep, failures = ModelRows.save_prefix, []

    def keep_with_one_failure(self: ModelRows, *arguments: Any) -> None:
        if not failures:
            failures.append(True)
            raise torch.OutOfMemoryError("CUDA out of memory (a test)")
        keep(self, *arguments)

    monkeypatch.setattr(ModelRows, "save_prefix", keep_with_one_failure)
    with pytest.warns(UserWarning, match="out of memory"):
        assert tokens(rotary, grid, max_rows=12) == expected
    assert failures


def test_nan_logits_in_a_beam_search_name_model_and_step(rotary: LanguageModel) -> None:
    request = Request(positive=context(5, 8), sampling=BeamSearch(width=3), max_new_tokens=12)
    with pytest.raises(NotANumberError, match="not numbers at step 6"):
        list(Decoder(Broken(rotary, 9)).decode([request]))


@pytest.mark.parametrize("penalty", [400, -400, float("nan")])
def test_bad_length_penalties_are_named(penalty: float) -> None:
    with pytest.raises(InputError, match=r"sampling\.length_penalty must be a number from -10 to 10"):
        BeamSearch(length_penalty=penalty)


ALL_RULES = "cfg,preadd,context_aware,experts,union,self_debias,contrastive,dola"


def test_all_rules_are_compared_in_one_grid_of_scales(tmp_path: Path, tiny_folder: Path) -> None:
    rows = sweep(
        *on(tmp_path, tiny_folder),
        f"guidance={ALL_RULES}",
        "guidance.scale=1,2",
        "negatives=own",
        "samples=1",
    )
    assert len({row["cell"] for row in rows}) == 16
    frame = cfg_lab.load_results(tmp_path / "results" / "study")
    texts = {
        cell: tuple(group["completion"]) for cell, group in frame.groupby(["guidance", "guidance.scale"])
    }
    assert len({ids for (_, scale), ids in texts.items() if scale == 1}) == 1  # plain decoding
    guided = {rule: ids for (rule, scale), ids in texts.items() if scale == 2}
    cfg_names = {
        "cfg",
        "preadd",
        "context_aware",
        "experts",
    }  # the same formula and, with one negative, texts
    assert len({guided[name] for name in cfg_names - {"experts"}}) == 1
    assert len({guided[name] for name in {*guided} - cfg_names} | {guided["cfg"]}) == 5


def test_modifiers_are_chosen_as_a_list_in_the_order_written(tmp_path: Path, tiny_folder: Path) -> None:
    lists = "[],[plausible],[rescale,plausible],[plausible,rescale]"
    rows = sweep(
        *on(tmp_path, tiny_folder),
        "guidance=cfg,apg",
        f"guidance/modifiers={lists}",
        "guidance.scale=3",
        "negatives=own",
    )
    assert len({row["cell"] for row in rows}) == 8
    frame = cfg_lab.load_results(tmp_path / "results" / "study").drop_duplicates("cell")
    columns = frame[frame["guidance"] == "cfg"].set_index("guidance.modifiers")
    assert set(columns.index) == {"[]", "[plausible]", "[rescale,plausible]", "[plausible,rescale]"}
    assert columns["guidance.modifiers.plausible.threshold"].notna().tolist() == [
        name != "[]" for name in columns.index
    ]
    assert columns["completion"].nunique() == 4
    # An option replaces the preset's modifiers, so cfg and apg decode the same texts.
    assert frame["completion"].nunique() == 4
    single = ["guidance/modifiers=rescale,apg", "name=single"]  # without brackets, as any other group
    rows = sweep(*on(tmp_path, tiny_folder), *single, "negatives=own")
    frame = cfg_lab.load_results(tmp_path / "results" / "single")
    assert set(frame["guidance.modifiers"]) == {"[rescale]", "[apg]"}


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (["guidance.modifiers=null"], r"guidance\.modifiers must be options of guidance/modifiers.*got None"),
        (
            ["guidance/stopping=on_agreement", "guidance.stopping.steps=0"],
            r"guidance\.stopping\.steps must be",
        ),
        (["guidance=preadd", "guidance.scale=abc"], r"guidance\.scale must be a finite number .* got 'abc'"),
    ],
)
def test_bad_options_are_named(overrides: list[str], message: str, tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        sweep(*on(tmp_path, tiny_folder), *overrides)


def test_a_grid_of_scales_is_one_group(rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """Texts that differ in scale, schedule, weights, temperature and truncation are guided by one call."""
    sizes: list[int] = []
    guide = ClassifierFreeGuidance.guide

    def counted(self: Any, positive: torch.Tensor, *others: Any) -> Any:
        sizes.append(len(positive))
        return guide(self, positive, *others)

    requests = [
        make_request(
            ClassifierFreeGuidance(scale=1.1 + number / 8, schedule=Linear(steps=40 + number)),
            number,
            sampling=Sampling(temperature=0.5 + number / 16, top_p=1 - number / 32),
            negatives=(Branch(context(number, 4), 1 + number),),
        )
        for number in range(16)
    ]
    alone = [tokens(rotary, [request])[0] for request in requests]
    monkeypatch.setattr(ClassifierFreeGuidance, "guide", counted)
    assert tokens(rotary, requests) == alone
    assert set(sizes) == {16}


class OwnScale(ClassifierFreeGuidance):
    """A rule that reads the wrong scale."""

    def combine(self, positive: Any, negatives: Any, weights: Any, scale: Any) -> Any:
        return super().combine(positive, negatives, weights, torch.full_like(scale, self.scale))


def test_a_rule_that_reads_its_own_scale_is_an_error(rotary: LanguageModel) -> None:
    """All scales of a grid are guided by one call, so its own scale would be that of another text."""
    with pytest.raises(ModelError, match=r"guidance OwnScale .* not numbers at step 0; .* not `self.scale`"):
        tokens(rotary, [make_request(OwnScale(scale=2)), make_request(OwnScale(scale=3), 5)])

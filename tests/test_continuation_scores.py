"""Likelihoods of continuations under a grid of rules: equal to one rule at a time and to brute force."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from contextlib import chdir
from dataclasses import replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, Sampling
from cfg_lab.decoding import continuation_scores, text_logits
from cfg_lab.decoding.continuation_scores import ContinuationScore
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import NotANumberError
from cfg_lab.errors import InputError
from cfg_lab.guidance import Interval, Plausibility, Rule, StopOnAgreement, UnionGuidance
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.options import CONFIG, option_names
from tests import reference
from tests.conftest import make_model
from tests.policies import write_policy
from tests.test_decoder import context
from tests.test_encoder_decoder import make as make_encoder_decoder
from tests.tiny_architectures import build

PARTS = ("schedule", "adaptive", "modifiers", "stopping")
SCALES = [1, 1.25, 1.5, 1.75, 2, 3, 4, 5, 6, 7]


def configured() -> Iterator[Rule]:
    """Every rule of conf/guidance, and classifier-free guidance with every option of every part."""
    needed = {"policy": ["adaptive.path=policy.json"]}
    choices: list[tuple[str, list[str]]] = [(rule, []) for rule in option_names("guidance")]
    for part in PARTS:
        options = option_names(f"guidance/{part}")
        choices += [
            ("cfg", [f"{part}=[{name}]" if part == "modifiers" else f"{part}={name}", *needed.get(name, [])])
            for name in options
        ]
    with (
        TemporaryDirectory() as folder,
        chdir(folder),
        initialize_config_dir(str(CONFIG / "guidance"), version_base="1.3"),
    ):
        write_policy(Path("policy.json"))
        for rule, overrides in choices:
            yield instantiate(compose(rule, overrides=overrides), _convert_="all")


@cache
def grid() -> tuple[Rule, ...]:
    """The rules of conf, plain scales, and rules that begin or end within the tests' texts."""
    return (
        *configured(),
        *(ClassifierFreeGuidance(scale=scale) for scale in (-0.5, 0, 1, 1.5, 3)),
        ClassifierFreeGuidance(scale=2.5, normalise_weights=False),
        ClassifierFreeGuidance(scale=3, schedule=Interval(begin=2, end=5)),
        ClassifierFreeGuidance(scale=3, stopping=StopOnAgreement(threshold=8, steps=2)),
        UnionGuidance(scale=2, stopping=StopOnAgreement(threshold=30, steps=1), modifiers=(Plausibility(),)),
    )


@cache
def make(kind: str) -> LanguageModel:
    """One of each kind of model: with positions of each type, recurrent, with an encoder."""
    if kind in {"rotary", "sliding", "absolute"}:
        return from_transformers(make_model(kind))
    return from_transformers(make_encoder_decoder(kind) if kind in {"t5", "bart"} else build(kind, 0))


KINDS = ["rotary", "sliding", "absolute", "lfm2", "mamba2", "t5", "bart"]


def items(count: int = 12, vocab: int = 90) -> tuple[list[Request], list[tuple[int, ...]]]:
    """Questions with two answers each. Their negatives differ in number, length and weight."""
    chance = random.Random(0)

    def ids(length: int) -> tuple[int, ...]:
        return tuple(chance.choices(range(5, vocab), k=length))

    requests: list[Request] = []
    continuations: list[tuple[int, ...]] = []
    examples = ids(4)  # all positive contexts begin with them
    for number in range(count // 2):
        question = examples + ids(1 + number)
        negatives = [
            (Branch((7,)),),
            (Branch(question[-1:]), Branch(ids(9), 0.5)),
            (),
            (Branch(ids(5), -1.0),),
        ][number % 4]
        for _ in range(2):
            requests.append(Request(positive=question, negatives=negatives))
            continuations.append(ids(chance.choice([1, 3, 8, 20])))
    return requests, continuations


def approximately(score: ContinuationScore, tolerance: float = 1e-4) -> ContinuationScore:
    """The same score, for comparisons with a tolerance per 10 nats."""
    relative = tolerance / 10

    def numbers(values: Any) -> Any:
        return pytest.approx(values, abs=tolerance, rel=relative)

    return replace(
        score,
        positive=numbers(score.positive),
        negatives=numbers(score.negatives),
        guided=numbers(score.guided),
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_rule_gives_the_sum_of_its_trace(kind: str) -> None:
    requests, continuations = items()
    decoder = Decoder(make(kind))
    scores = decoder.score(requests, continuations, grid())
    for number, rule in enumerate(grid()):
        guided = [replace(request, guidance=rule) for request in requests]
        traces = decoder.trace_texts(guided, continuations)
        for score, trace in zip(scores, traces, strict=True):
            assert score.guided[number] == pytest.approx(sum(trace.guided), abs=1e-4, rel=1e-5), rule
            assert score.positive == pytest.approx(sum(trace.positive), abs=1e-4, rel=1e-5)


@pytest.mark.parametrize("kind", ["rotary", "sliding", "absolute", "lfm2", "mamba2"])
def test_scores_equal_brute_force(kind: str) -> None:
    """The model's own forward on whole texts, without a cache, one token after another."""
    model = make(kind)
    requests, continuations = items(8)
    rules = [rule for rule in grid() if not isinstance(rule.stopping, StopOnAgreement)]
    scores = Decoder(model).score(requests, continuations, rules)
    for request, tokens, score in zip(requests, continuations, scores, strict=True):
        branches = [0.0] * (1 + len(request.negatives))
        guided, greedy = [0.0] * len(rules), [True] * len(rules)
        weights = torch.tensor([[branch.weight for branch in request.negatives]])
        for step, token in enumerate(tokens):
            contexts = [request.positive, *(branch.ids for branch in request.negatives)]
            rows = torch.stack(
                [reference.log_probs(model.module, [*ids, *tokens[:step]]) for ids in contexts]
            )
            branches = [total + float(row[token]) for total, row in zip(branches, rows, strict=True)]
            for number, rule in enumerate(rules):
                distribution = rows[0]
                if request.negatives:
                    scale = torch.tensor([rule.scale_at(step)])
                    at = torch.tensor([step])
                    distribution = rule.guide(rows[:1], rows[None, 1:], weights, scale, at)[0][0]
                guided[number] += float(distribution[token])
                greedy[number] &= int(distribution.argmax()) == token
        expected = ContinuationScore(
            positive=branches[0], negatives=tuple(branches[1:]), guided=tuple(guided), greedy=tuple(greedy)
        )
        assert score == approximately(expected, 1e-3)


@pytest.mark.parametrize("kind", KINDS)
def test_batch_order_and_parts_change_nothing(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(kind)
    requests, continuations = items()
    rules = grid()[::5]
    scores = Decoder(model).score(requests, continuations, rules)

    def others(order: list[int]) -> list[ContinuationScore]:
        shuffled = Decoder(model).score(
            [requests[number] for number in order], [continuations[number] for number in order], rules
        )
        return [shuffled[order.index(number)] for number in range(len(requests))]

    order = random.Random(1).sample(range(len(requests)), len(requests))
    batches = [others(order)]
    alone = [
        score
        for request, tokens in zip(requests, continuations, strict=True)
        for score in Decoder(model).score([request], [tokens], rules)
    ]
    batches.append(alone)
    monkeypatch.setattr(text_logits, "_FORWARDS_PER_CHUNK", 0)  # one text per chunk
    batches.append(others(order))
    monkeypatch.setattr(continuation_scores, "_BLOCK_NUMBERS", 3 * model.vocab_size)
    for tokens_of_a_part in (7, 1):
        monkeypatch.setattr(text_logits, "_MAX_LOGITS", tokens_of_a_part * model.vocab_size)
        batches.append(others(order))
    for batch in batches:
        assert batch == [approximately(score) for score in scores]


def test_traces_are_the_same_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, continuations = items()
    for rule in grid()[-3:]:  # a schedule, and two that stop
        guided = [replace(request, guidance=rule) for request in requests]
        whole = Decoder(make("rotary")).trace_texts(guided, continuations)
        with monkeypatch.context() as patch:
            patch.setattr(text_logits, "_MAX_LOGITS", 6 * make("rotary").vocab_size)
            parts = Decoder(make("rotary")).trace_texts(guided, continuations)
        for expected, trace in zip(whole, parts, strict=True):
            for name, values in expected.columns.items():
                assert trace.columns[name] == pytest.approx(values, abs=1e-3, nan_ok=True)


def test_scale_1_is_the_positive_branch_and_scale_0_the_negative() -> None:
    requests, continuations = items()
    single = [replace(request, negatives=(Branch((7, 8)),)) for request in requests]
    rules = [ClassifierFreeGuidance(scale=scale) for scale in (1, 0)]
    for score in Decoder(make("rotary")).score(single, continuations, rules):
        assert score.guided == pytest.approx((score.positive, score.negatives[0]), abs=1e-4)


def test_guidance_sampling_and_ends_of_requests_have_no_effect() -> None:
    requests, continuations = items()
    changed = [
        replace(
            request,
            guidance=UnionGuidance(scale=4),
            sampling=Sampling(),
            max_new_tokens=1,
            stop_ids=frozenset(range(50)),
        )
        for request in requests
    ]
    decoder = Decoder(make("rotary"))
    rules = grid()[:3]
    assert decoder.score(changed, continuations, rules) == decoder.score(requests, continuations, rules)


def test_negatives_on_other_models_with_other_vocabularies() -> None:
    models = {None: make("rotary"), "other": make("absolute"), "recurrent": make("lfm2")}
    request = Request(
        positive=context(1, 9)[:1] + tuple(range(5, 13)),
        negatives=(Branch((8, 9, 10), 1.0, "other"), Branch((11,), 0.5, "recurrent")),
    )
    tokens = (20, 30, 40, 50)
    rules = [ClassifierFreeGuidance(scale=2), UnionGuidance(scale=3)]
    decoder = Decoder(models[None], other_models={name: model for name, model in models.items() if name})
    (score,) = decoder.score([request], [tokens], rules)
    modules = {name: model.module for name, model in models.items()}
    for rule, nats in zip(rules, score.guided, strict=True):
        expected = sum(
            float(reference.guided_by(rule, request, modules, tokens[:step])[token])
            for step, token in enumerate(tokens)
        )
        assert nats == pytest.approx(expected, abs=1e-3)


def test_what_greedy_decoding_chooses_is_greedy_and_nothing_else() -> None:
    rules = [ClassifierFreeGuidance(scale=scale) for scale in (1, 2, 4)] + [UnionGuidance(scale=3)]
    decoder = Decoder(make("rotary"))
    for rule in rules:
        request = Request(
            positive=context(3, 9), negatives=(Branch(context(4, 5)),), guidance=rule, max_new_tokens=6
        )
        (completion,) = decoder.decode([request])
        tokens = completion.tokens
        other_end = (*tokens[:-1], tokens[-1] ^ 1)
        chosen, other = decoder.score([request] * 2, [tokens, other_end], rules)
        assert chosen.greedy[rules.index(rule)]
        assert not other.greedy[rules.index(rule)]
        assert other.guided != chosen.guided


class Table:
    """A model whose logits depend on the last token only: a row of a table [tokens, vocab]."""

    name, device, context_length, context_limit = "table", torch.device("cpu"), 100, ""
    recurrent, start = False, ()

    def __init__(self, table: torch.Tensor) -> None:
        self.table, self.vocab_size = table, table.shape[1]

    def read(self, sources: list[tuple[int, ...]]) -> list[Any]:
        return []

    def forward(self, ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> torch.Tensor:
        nothing = torch.zeros(len(ids), 1, ids.shape[1], 1)
        buffer.write(0, nothing, nothing)
        return self.table[ids[:, -keep:]].float()


@pytest.mark.parametrize("spread", [1, 8, 40])
def test_a_grid_of_scales_equals_float64(spread: float) -> None:
    """Also where log-probs are far apart, and with tokens that are impossible."""
    generator = torch.Generator().manual_seed(0)
    table = spread * torch.randn(60, 500, generator=generator)
    table[:, 450:] = -torch.inf  # a padded vocabulary
    rules = [ClassifierFreeGuidance(scale=scale) for scale in SCALES]
    # Only the first token is predicted from different contexts, so each continuation has one token.
    triples = [(number, number + 20, number + 40) for number in range(20)]
    requests = [Request(positive=(a,), negatives=(Branch((b,)), Branch((c,), 0.5))) for a, b, c in triples]
    scores = Decoder(Table(table)).score(requests, [(10 * a,) for a, _, _ in triples], rules)
    possible = table[:, :450].double().log_softmax(-1)
    for (a, b, c), score in zip(triples, scores, strict=True):
        positive, first, second = possible[a], possible[b], possible[c]
        for scale, nats, greedy in zip(SCALES, score.guided, score.greedy, strict=True):
            combined = positive + (scale - 1) * ((positive - first) + 0.5 * (positive - second)) / 1.5
            expected = float(combined.log_softmax(-1)[10 * a])
            assert nats == pytest.approx(expected, abs=1e-4, rel=1e-6)
            assert greedy == (int(combined.argmax()) == 10 * a)


def test_of_equally_likely_tokens_the_first_is_greedy() -> None:
    table = torch.zeros(4, 9)
    table[:, [5, 7]] = 3.0
    rules = [ClassifierFreeGuidance(scale=2), UnionGuidance(scale=2)]
    requests = [Request(positive=(1,), negatives=(Branch((2,)),))] * 2
    first, second = Decoder(Table(table)).score(requests, [(5,), (7,)], rules)
    assert first.greedy == (True, True)
    assert second.greedy == (False, False)
    assert first.guided == second.guided


class Reads:
    """Counts what a model reads and predicts: the numbers of tokens, logits and most logits of a forward."""

    def __init__(self, model: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tokens = self.positions = self.most = 0
        run: Callable[..., torch.Tensor] = model.forward

        def forward(ids: Any, positions: Any, mask: Any, buffer: KVBuffer, keep: int = 1) -> torch.Tensor:
            self.tokens += ids.numel()
            self.positions += len(ids) * keep
            self.most = max(self.most, len(ids) * keep)
            return run(ids, positions, mask, buffer, keep)

        monkeypatch.setattr(model, "forward", forward)


def test_equal_contexts_are_read_once(rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    questions = [context(number, 40) for number in range(3)]
    requests = [Request(positive=ids, negatives=(Branch((9, 8, 7)),)) for ids in questions for _ in range(4)]
    rotary.module  # noqa: B018, loads it
    continuations = [context(50 + number, 5) for number in range(12)]
    rules = [ClassifierFreeGuidance(scale=scale) for scale in SCALES]
    for limit in (text_logits._MAX_LOGITS, 5 * 2 * 2 * rotary.vocab_size):  # pyright: ignore
        with monkeypatch.context() as patch:
            patch.setattr(text_logits, "_MAX_LOGITS", limit)
            reads = Reads(rotary, patch)
            Decoder(rotary).score(requests, continuations, rules)
        answers = 2 * 12 * 5  # each answer follows two contexts
        prefills = 3 + 1
        assert reads.tokens == 3 * 39 + 2 + answers
        assert answers <= reads.positions <= answers + prefills


def test_a_common_beginning_is_read_once(rotary: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    examples = context(1, 100)
    requests = [Request(positive=examples + context(number, 3 + number)) for number in range(2, 8)]
    rotary.module  # noqa: B018, loads it
    monkeypatch.setattr(text_logits, "_FORWARDS_PER_CHUNK", 0)  # every text is a chunk
    reads = Reads(rotary, monkeypatch)
    scores = Decoder(rotary).score(requests, [(1, 2)] * 6, [])
    assert reads.tokens == 100 + sum(2 + number for number in range(2, 8)) + 6 * 2
    for request, score in zip(requests, scores, strict=True):
        (trace,) = Decoder(rotary).trace_texts([request], [(1, 2)])
        assert score.positive == pytest.approx(sum(trace.positive), abs=1e-4)
        assert score.guided == score.greedy == ()


@pytest.mark.parametrize("kind", ["rotary", "mamba2", "t5"])
def test_logits_of_long_texts_are_bounded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = make(kind)
    text = tuple(random.Random(0).choices(range(5, 90), k=100))
    request = Request(positive=(6,), negatives=(Branch((7,)), Branch((8, 9))))
    rules = [ClassifierFreeGuidance(scale=2)]
    (whole,) = Decoder(model).score([request], [text], rules)
    monkeypatch.setattr(text_logits, "_MAX_LOGITS", 30 * model.vocab_size)
    reads = Reads(model, monkeypatch)
    (score,) = Decoder(model).score([request], [text], rules)
    assert reads.most <= 30
    assert score == approximately(whole)


def test_progress_counts_finished_requests(monkeypatch: pytest.MonkeyPatch) -> None:
    requests, continuations = items()
    monkeypatch.setattr(text_logits, "_FORWARDS_PER_CHUNK", 0)
    finished: list[int] = []
    Decoder(make("rotary")).score(requests, continuations, [], finished.append)
    assert finished == list(range(1, 13))
    assert Decoder(make("rotary")).score([], [], grid()) == []


def test_the_last_token_of_a_continuation_may_exceed_the_context_length(rotary: LanguageModel) -> None:
    """No model reads it. A rolling window of benchmarks needs this token."""
    negatives = (Branch((1, 2, 3)),)
    request = Request(positive=context(1, 200), negatives=negatives)
    Decoder(rotary).score([request], [[1] * 57], [])
    with pytest.raises(InputError, match=r"200 tokens and a continuation of 58 tokens exceed the 256 tokens"):
        Decoder(rotary).score([request], [[1] * 58], [])
    longer = replace(request, negatives=(Branch(context(2, 210)),))
    with pytest.raises(InputError, match=r"210 tokens and a continuation of 50 tokens exceed the 256 tokens"):
        Decoder(rotary).score([longer], [[1] * 50], [])


def test_what_cannot_be_scored(rotary: LanguageModel) -> None:
    request = Request(positive=(1, 2))
    with pytest.raises(InputError, match="continuation 1 is empty"):
        Decoder(rotary).score([request] * 2, [(1,), ()], [])
    unknown = replace(request, negatives=(Branch((1,), 1.0, "amateur"),))
    with pytest.raises(InputError, match="a branch names model 'amateur', which this decoder was not given"):
        Decoder(rotary).score([unknown], [(1,)], [])
    table = torch.zeros(9, 9)
    table[5] = torch.nan
    with pytest.raises(NotANumberError, match="'table' gave logits that are not numbers at step 2"):
        Decoder(Table(table)).score([request], [(3, 5, 4)], [ClassifierFreeGuidance()])

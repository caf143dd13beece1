"""Laws of guidance rules."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from cfg_lab.errors import InputError
from cfg_lab.guidance import (
    ByDivergence,
    ByEntropy,
    ClassifierFreeGuidance,
    Constant,
    ContrastiveDecoding,
    Cosine,
    Dola,
    Exponential,
    Interval,
    KLBudget,
    Linear,
    Modifiers,
    NotAdaptive,
    Rule,
    SelfDebiasing,
    UnionGuidance,
    context_aware,
    experts,
    log_probs,
    preadd,
)

RULES: list[type[Rule]] = [ClassifierFreeGuidance, UnionGuidance, SelfDebiasing, ContrastiveDecoding, Dola]
ADAPTIVE = [NotAdaptive(), ByEntropy(), ByDivergence(), KLBudget(nats=0.3)]


def distributions(seed: int, rows: int, branches: int, masked: bool = False) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, branches + 1, 50, generator=generator) * 6
    if masked:
        logits[:, :, 40:] = -math.inf  # a padded vocabulary
        logits[0, 0, 3] = logits[0, -1, 4] = -math.inf  # and masks that differ
    found = log_probs(logits)
    return found[:, 0], found[:, 1:]


def at(rule: Rule, positive: Tensor, negatives: Tensor, weights: list[float] | None = None) -> Tensor:
    """The guided distribution at the rule's scale."""
    rows = len(positive)
    raw = torch.tensor([weights or [1.0] * negatives.shape[1]] * rows)
    return rule.guide(positive, negatives, raw, torch.full((rows,), float(rule.scale)))[0]


def kl(p: Tensor, q: Tensor) -> Tensor:
    return (p.double().exp() * (p.double() - q.double())).sum(-1)


modifiers = st.builds(
    Modifiers,
    zero_star=st.booleans(),
    norm_bound=st.none() | st.floats(0, 20),
    projection=st.just(1.0) | st.floats(-1, 1),
    rescale=st.just(0.0) | st.floats(0, 1),
    plausibility=st.just(0.0) | st.floats(0, 1),
)


@settings(max_examples=400, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 10_000),
    scale=st.floats(-5, 50),
    weights=st.lists(st.floats(0.1, 4) | st.floats(-4, -0.1), min_size=1, max_size=3),
    masked=st.booleans(),
    adaptive=st.sampled_from(ADAPTIVE),
    modifiers=modifiers,
)
def test_always_a_distribution(
    rule: type[Rule],
    seed: int,
    scale: float,
    weights: list[float],
    masked: bool,
    adaptive: Any,
    modifiers: Modifiers,
) -> None:
    positive, negatives = distributions(seed, 3, len(weights), masked)
    one = rule(
        scale=max(scale, 1) if rule is SelfDebiasing else scale, adaptive=adaptive, modifiers=modifiers
    )
    guided, scales = one.guide(
        positive, negatives, torch.tensor([weights] * 3), torch.full((3,), float(one.scale))
    )
    assert not guided.isnan().any()
    assert guided.exp().sum(-1) == pytest.approx(torch.ones(3), abs=1e-4)
    # 1e-7 is half a float32's step at 1: there a scale close to 1 differs from it by that much more or less
    assert ((scales - 1).abs() <= abs(one.scale - 1) * (1 + 1e-5) + 1e-7).all()
    if masked and scale >= 0 and min(weights) > 0:
        assert (guided[:, 40:].exp() == 0).all()


# Each rule as its paper has it, on float64 probabilities.


def test_classifier_free_guidance_is_the_papers_formula() -> None:
    positive, negatives = distributions(0, 4, 1)
    p, n = positive.double().exp(), negatives[:, 0].double().exp()
    expected = p**1.7 * n**-0.7
    found = at(ClassifierFreeGuidance(scale=1.7), positive, negatives)
    assert torch.allclose(found.double(), (expected / expected.sum(-1, keepdim=True)).log(), atol=1e-4)


@pytest.mark.parametrize("normalise", [True, False])
def test_several_negatives_are_the_sum_of_their_pushes(normalise: bool) -> None:
    positive, negatives = distributions(1, 4, 3)
    raw = torch.tensor([[1.0, 0.5, -2.0]] * 4)
    weights = raw / 3.5 if normalise else raw
    rule, scale = ClassifierFreeGuidance(normalise_weights=normalise), torch.full((4, 1), 2.5)
    expected = positive + 1.5 * (weights[..., None] * (positive[:, None] - negatives)).sum(1)
    assert torch.allclose(rule.combine(positive, negatives, raw, scale), expected, atol=1e-3)


@pytest.mark.parametrize("scale", [1.3, 2.5, 25])
def test_union_is_the_papers_formula(scale: float) -> None:
    positive, negatives = distributions(3, 4, 1)
    strength = 1 - 1 / scale
    m, n = positive.double(), negatives[:, 0].double()
    expected = (m - strength * torch.maximum(m, n)) / (1 - strength)
    found = at(UnionGuidance(scale=scale), positive, negatives)
    assert torch.allclose(found.double(), expected.log_softmax(-1), atol=1e-3)


def test_union_equals_cfg_where_the_negative_wants_more_and_nothing_elsewhere() -> None:
    positive, negatives = distributions(4, 4, 1)
    scale = torch.full((4, 1), 3.0)
    ones = torch.ones(4, 1)
    union = UnionGuidance().combine(positive, negatives, ones, scale)
    cfg = ClassifierFreeGuidance().combine(positive, negatives, ones, scale)
    more = negatives[:, 0] > positive
    assert torch.allclose(union[more], cfg[more], atol=1e-4)
    assert torch.equal(union[~more], positive[~more])


@pytest.mark.parametrize("decay", [10, 50])
def test_self_debiasing_is_the_papers_formula(decay: float) -> None:
    positive, negatives = distributions(5, 4, 2)
    p, n = positive.double().exp(), negatives.double().exp().amax(1)
    alpha = torch.where(p - n >= 0, 1.0, torch.exp(decay * (p - n))).clamp(min=0.01)
    expected = p * alpha / (p * alpha).sum(-1, keepdim=True)
    found = at(SelfDebiasing(scale=2, decay=decay), positive, negatives)
    assert torch.allclose(found.double().exp(), expected, atol=1e-6)


def test_contrastive_decoding_is_the_papers_formula() -> None:
    positive, negatives = distributions(6, 4, 1)
    expert, amateur = positive.double(), (negatives[:, 0].double() / 0.5).log_softmax(-1)
    plausible = expert.exp() >= 0.1 * expert.exp().amax(-1, keepdim=True)
    expected = (expert - amateur).masked_fill(~plausible, -math.inf).log_softmax(-1)
    found = at(ContrastiveDecoding(scale=2), positive, negatives)
    assert torch.equal(found.exp() > 0, plausible)
    assert torch.allclose(found[plausible].double(), expected[plausible], atol=1e-4)


def test_dola_is_the_papers_formula() -> None:
    positive, negatives = distributions(16, 6, 3)
    mature, premature = positive.double(), negatives.double()
    middle = ((mature.exp()[:, None] + premature.exp()) / 2).log()
    jsd = [(kl(mature, middle[:, k]) + kl(premature[:, k], middle[:, k])) / 2 for k in range(3)]
    layer = torch.stack(jsd, 1).argmax(1)
    assert len(set(layer.tolist())) > 1
    expected = mature - premature[torch.arange(6), layer]
    plausible = mature.exp() >= 0.1 * mature.exp().amax(-1, keepdim=True)
    expected = expected.masked_fill(~plausible, -math.inf).log_softmax(-1)
    found = at(Dola(scale=2), positive, negatives)
    assert torch.equal(found.exp() > 0, plausible)
    assert torch.allclose(found[plausible].double(), expected[plausible], atol=1e-4)


def test_presets_are_cfg_with_their_own_parameters() -> None:
    positive, negatives = distributions(7, 4, 1)
    n = negatives[:, 0]
    for alpha in (-1.0, -2.5):
        expected = ((1 - alpha) * positive + alpha * n).log_softmax(-1)
        assert torch.allclose(at(preadd(alpha=alpha), positive, negatives), expected, atol=1e-4)
    for alpha in (0.5, 1.0):
        expected = ((1 + alpha) * positive - alpha * n).log_softmax(-1)
        assert torch.allclose(at(context_aware(alpha=alpha), positive, negatives), expected, atol=1e-4)
    base, others = distributions(8, 4, 2)
    for alpha in (1.0, 2.0):
        expected = (base + alpha * (others[:, 0] - others[:, 1])).log_softmax(-1)
        found = at(experts(alpha=alpha), base, others, [-1.0, 1.0])
        assert torch.allclose(found, expected, atol=1e-3)


def test_scale_0_is_the_negative_and_scale_1_the_positive_to_the_last_bit() -> None:
    positive, negatives = distributions(2, 4, 1)
    ones = torch.ones(4, 1)
    zero = ClassifierFreeGuidance().combine(positive, negatives, ones, torch.zeros(4, 1))
    assert torch.equal(zero, negatives[:, 0])
    for rule in RULES:
        guided, scale = rule(modifiers=Modifiers(rescale=1, plausibility=0.5)).guide(
            positive, negatives, ones, torch.ones(4)
        )
        assert torch.equal(guided, positive)
        assert torch.equal(scale, torch.ones(4))


# Modifiers


@pytest.mark.parametrize("rule", RULES)
def test_neutral_modifiers_change_no_bit(rule: type[Rule]) -> None:
    positive, negatives = distributions(9, 4, 2, masked=True)
    weights, scale = torch.ones(4, 2), torch.full((4, 1), 2.5)
    plain = log_probs(rule().combine(positive, negatives, weights, scale))
    neutral = rule(scale=2.5, modifiers=Modifiers())
    assert torch.equal(at(neutral, positive, negatives), plain)


def test_plausibility_asks_the_positive_branch_only() -> None:
    positive, negatives = distributions(10, 4, 1)
    rule = ClassifierFreeGuidance(scale=4, modifiers=Modifiers(plausibility=0.2))
    kept = positive.exp() >= 0.2 * positive.exp().amax(-1, keepdim=True)
    found = at(rule, positive, negatives)
    assert torch.equal(found.exp() > 0, kept)
    free = at(ClassifierFreeGuidance(scale=4), positive, negatives).masked_fill(~kept, -math.inf)
    assert torch.allclose(found[kept], free.log_softmax(-1)[kept], atol=1e-4)


def test_rescale_brings_the_spread_back() -> None:
    positive, negatives = distributions(11, 4, 1)
    for share in (0.3, 1.0):
        rule = ClassifierFreeGuidance(scale=5, modifiers=Modifiers(rescale=share))
        combined = ClassifierFreeGuidance().combine(
            positive, negatives, torch.ones(4, 1), torch.full((4, 1), 5.0)
        )
        ratio = positive.std(-1, keepdim=True) / combined.std(-1, keepdim=True)
        expected = share * combined * ratio + (1 - share) * combined
        assert torch.allclose(at(rule, positive, negatives), expected.log_softmax(-1), atol=1e-3)


def test_projection_and_norm_bound_are_apg() -> None:
    positive, negatives = distributions(12, 4, 1)
    p, n = positive.double(), negatives[:, 0].double()
    p, n = p - p.mean(-1, keepdim=True), n - n.mean(-1, keepdim=True)
    change = p - n
    change = change * (7 / change.norm(dim=-1, keepdim=True)).clamp(max=1)
    unit = p / p.norm(dim=-1, keepdim=True)
    parallel = (change * unit).sum(-1, keepdim=True) * unit
    expected = (p + 2 * (change - parallel + 0.25 * parallel)).log_softmax(-1)
    rule = ClassifierFreeGuidance(scale=3, modifiers=Modifiers(projection=0.25, norm_bound=7))
    assert torch.allclose(at(rule, positive, negatives).double(), expected, atol=1e-3)


def test_zero_star_fits_the_negative() -> None:
    positive, negatives = distributions(13, 4, 1)
    p, n = positive.double(), negatives[:, 0].double()
    p, n = p - p.mean(-1, keepdim=True), n - n.mean(-1, keepdim=True)
    share = (p * n).sum(-1, keepdim=True) / (n * n).sum(-1, keepdim=True)
    expected = (share * n + 3 * (p - share * n)).log_softmax(-1)
    rule = ClassifierFreeGuidance(scale=3, modifiers=Modifiers(zero_star=True))
    assert torch.allclose(at(rule, positive, negatives).double(), expected, atol=1e-3)


def test_modifiers_do_not_see_impossible_tokens() -> None:
    """A padded vocabulary changes no probability."""
    positive, negatives = distributions(14, 4, 2)
    padding = torch.full((4, 3, 9), -math.inf)
    logits = torch.cat([torch.cat([positive[:, None], negatives], 1), padding], 2)
    padded = log_probs(logits)
    for modifier in (
        Modifiers(zero_star=True),
        Modifiers(norm_bound=3),
        Modifiers(projection=0),
        Modifiers(rescale=0.7),
        Modifiers(plausibility=0.1),
    ):
        rule = ClassifierFreeGuidance(scale=2, modifiers=modifier)
        without, with_padding = (
            at(rule, positive, negatives),
            at(rule, padded[:, 0], padded[:, 1:]),
        )
        assert torch.allclose(with_padding[:, :50], without, atol=1e-4)
        assert (with_padding[:, 50:].exp() == 0).all()


# Strength over time and by what the branches say


def test_schedules() -> None:
    def shares(schedule: Any, steps: int) -> list[float]:
        return [schedule.share(step) for step in range(steps)]

    assert shares(Constant(), 3) == [1, 1, 1]
    assert shares(Interval(begin=1, end=3), 5) == [0, 1, 1, 0, 0]
    assert shares(Interval(begin=2), 4) == [0, 0, 1, 1]
    assert shares(Linear(steps=4), 6) == [1, 0.75, 0.5, 0.25, 0, 0]
    assert shares(Linear(start=0, end=1, steps=2), 4) == [0, 0.5, 1, 1]
    assert shares(Cosine(steps=4), 6) == pytest.approx([1, 0.8536, 0.5, 0.1464, 0, 0], abs=1e-4)
    assert Cosine(steps=4).share(4) == 0
    assert shares(Exponential(half_life=2), 5) == pytest.approx([1, 0.7071, 0.5, 0.3536, 0.25], abs=1e-4)


@pytest.mark.parametrize("rule", RULES)
def test_a_schedule_composes_with_any_rule(rule: type[Rule]) -> None:
    one = rule(scale=3.3, schedule=Linear(steps=4))
    assert [one.scale_at(step) for step in (0, 2, 4, 9)] == pytest.approx([3.3, 2.15, 1, 1])
    assert one.scale_at(0) == 3.3
    assert one.scale_at(4) == 1


@settings(max_examples=150, deadline=None)
@given(
    rule=st.sampled_from(RULES),
    seed=st.integers(0, 10_000),
    scale=st.floats(1, 50),
    nats=st.floats(0.01, 5),
    modifiers=modifiers,
)
def test_the_kl_budget_is_never_exceeded(
    rule: type[Rule], seed: int, scale: float, nats: float, modifiers: Modifiers
) -> None:
    positive, negatives = distributions(seed, 3, 1)
    one = rule(scale=scale, adaptive=KLBudget(nats=nats), modifiers=modifiers)
    assert (kl(at(one, positive, negatives), positive) <= nats + 1e-3).all()


def test_the_kl_budget_is_used_up() -> None:
    """For classifier-free guidance: a slightly larger scale would exceed it, unless all is in force."""
    positive, negatives = distributions(15, 20, 1)
    rule = ClassifierFreeGuidance(scale=6, adaptive=KLBudget(nats=0.5))
    _, scales = rule.guide(positive, negatives, torch.ones(20, 1), torch.full((20,), 6.0))
    larger = (scales + 5 * 2 / 1024).clamp(max=6)
    guided, _ = ClassifierFreeGuidance().guide(positive, negatives, torch.ones(20, 1), larger)
    assert ((kl(guided, positive) > 0.5) | (scales == 6)).all()
    assert (scales < 6).any()
    assert (scales > 1).all()


def test_adaptive_strength() -> None:
    sure, unsure = torch.tensor([9.0, 0, 0, 0]), torch.zeros(4)
    positive = log_probs(torch.stack([sure, unsure]))
    negatives = log_probs(torch.stack([unsure, unsure]))[:, None]
    weights, scales = torch.ones(2, 1), torch.full((2,), 3.0)
    rule = ClassifierFreeGuidance(scale=3, adaptive=ByEntropy(reference=math.log(4)))
    _, found = rule.guide(positive, negatives, weights, scales)
    entropy = -(positive.exp() * positive).sum(-1)
    assert found == pytest.approx(1 + 2 * entropy / math.log(4), abs=1e-4)
    rule = ClassifierFreeGuidance(scale=3, adaptive=ByDivergence(reference=0.5))
    _, found = rule.guide(positive, negatives, weights, scales)
    assert found[0] == pytest.approx(1 + 2 * 0.5 / float(kl(positive, negatives[:, 0])[0]), abs=1e-3)
    assert found[1] == 3


def test_branches_settle_after_so_many_steps_of_agreement() -> None:
    rule = ClassifierFreeGuidance(agree_below=0.1, agree_steps=3)
    assert not rule.settled([0.01, 0.01])
    assert rule.settled([2, 0.01, 0.01, 0.01])
    assert not rule.settled([0.01, 0.01, 0.5, 0.01])
    assert not rule.settled([0.01, math.nan, 0.01])
    assert not ClassifierFreeGuidance().settled([0.0] * 50)
    assert not ClassifierFreeGuidance().settled([-1e-7] * 50)  # rounding


# Bad values


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, "strong", None, True])
def test_bad_scales_are_named(scale: float) -> None:
    with pytest.raises(InputError, match=r"guidance\.scale must be a finite number .* got"):
        ClassifierFreeGuidance(scale=scale)


BAD: list[tuple[str, Any]] = [
    ("guidance.agree_steps", lambda: ClassifierFreeGuidance(agree_steps=0)),
    ("guidance.scale", lambda: SelfDebiasing(scale=0.5)),
    ("guidance.epsilon", lambda: SelfDebiasing(epsilon=0)),
    ("guidance.temperature", lambda: ContrastiveDecoding(temperature=0)),
    ("guidance.schedule.end", lambda: Interval(begin=4, end=4)),
    ("guidance.schedule.steps", lambda: Cosine(steps=0)),
    ("guidance.schedule.half_life", lambda: Exponential(half_life=0)),
    ("guidance.adaptive.nats", lambda: KLBudget(nats=-1)),
    ("guidance.adaptive.reference", lambda: ByEntropy(reference=0)),
    ("guidance.modifiers.plausibility", lambda: Modifiers(plausibility=1.5)),
    ("guidance.modifiers.norm_bound", lambda: Modifiers(norm_bound=-1)),
    ("guidance.modifiers.zero_star", lambda: Modifiers(zero_star=1)),  # type: ignore[arg-type]
]


@pytest.mark.parametrize(("key", "make"), BAD)
def test_bad_arguments_are_named(key: str, make: Any) -> None:
    with pytest.raises(InputError, match=key.replace(".", r"\.") + " must be .* got"):
        make()

"""Laws of guidance rules, on distributions made on the spot."""

from __future__ import annotations

import math
from dataclasses import dataclass, is_dataclass
from typing import Any

import numpy as np
import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import get_object, instantiate
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf
from torch import Tensor

from cfg_lab import guidance
from cfg_lab.decoding.identity import canonical
from cfg_lab.errors import InputError
from cfg_lab.guidance import (
    AdaptiveProjection,
    ByDivergence,
    ByEntropy,
    ByJSD,
    ClassifierFreeGuidance,
    Constant,
    ContrastiveDecoding,
    Cosine,
    Dola,
    EntropyGate,
    Exponential,
    Interval,
    KLBudget,
    Linear,
    Modifier,
    NeverStop,
    NotAdaptive,
    Plausibility,
    Rescale,
    Rule,
    SelfDebiasing,
    StopOnAgreement,
    UnionGuidance,
    ZeroStar,
    context_aware,
    experts,
    is_off,
    log_probs,
    preadd,
)
from cfg_lab.guidance.divergences import entropy, js_divergence, kl_divergence
from cfg_lab.options import CONFIG, RENAMED_KEYS, option_names
from cfg_lab.study.build import canonical_config

RULES: list[type[Rule]] = [ClassifierFreeGuidance, UnionGuidance, SelfDebiasing, ContrastiveDecoding, Dola]
ADAPTIVE = [
    NotAdaptive(),
    ByEntropy(),
    EntropyGate(),
    ByDivergence(),
    ByJSD(),
    ByJSD(floor=0.4),
    KLBudget(nats=0.3),
]


def distributions(seed: int, rows: int, branches: int, masked: bool = False) -> tuple[Tensor, Tensor]:
    """Log-probs of a positive branch [rows, 50] and of negative branches [rows, branches, 50]."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(rows, branches + 1, 50, generator=generator) * 6
    if masked:
        logits[:, :, 40:] = -math.inf  # a padded vocabulary
        logits[0, 0, 3] = logits[0, -1, 4] = -math.inf  # tokens that one branch alone makes impossible
    normalised = log_probs(logits)
    return normalised[:, 0], normalised[:, 1:]


def guide(
    rule: Rule, positive: Tensor, negatives: Tensor, weights: list[float] | None = None
) -> tuple[Tensor, Tensor]:
    """Guided log-probs and scale in force, at the rule's scale."""
    rows = len(positive)
    weight_rows = torch.tensor([weights or [1.0] * negatives.shape[1]] * rows)
    return rule.guide(positive, negatives, weight_rows, torch.full((rows,), float(rule.scale)))


def guided_by(rule: Rule, positive: Tensor, negatives: Tensor, weights: list[float] | None = None) -> Tensor:
    return guide(rule, positive, negatives, weights)[0]


def kl(p: Tensor, q: Tensor) -> Tensor:
    """KL(p || q) in float64."""
    return (p.double().exp() * (p.double() - q.double())).sum(-1)


def jsd(p: Tensor, q: Tensor) -> Tensor:
    """The Jensen-Shannon divergence in float64, from probabilities."""
    middle = ((p.double().exp() + q.double().exp()) / 2).log()
    return (kl(p, middle) + kl(q, middle)) / 2


any_modifiers = st.lists(
    st.one_of(
        st.just(ZeroStar()),
        st.builds(AdaptiveProjection, parallel=st.floats(-1, 1), norm_bound=st.none() | st.floats(0, 20)),
        st.builds(Rescale, share=st.floats(0, 1)),
        st.builds(Plausibility, threshold=st.floats(0, 1)),
    ),
    max_size=4,
).map(tuple)


@settings(max_examples=400, deadline=None)
@given(
    rule_class=st.sampled_from(RULES),
    seed=st.integers(0, 10_000),
    scale=st.floats(-5, 50),
    weights=st.lists(st.floats(0.1, 4) | st.floats(-4, -0.1), min_size=1, max_size=3),
    masked=st.booleans(),
    adaptive=st.sampled_from(ADAPTIVE),
    modifiers=any_modifiers,
)
def test_every_rule_gives_a_distribution(
    rule_class: type[Rule],
    seed: int,
    scale: float,
    weights: list[float],
    masked: bool,
    adaptive: Any,
    modifiers: tuple[Modifier, ...],
) -> None:
    """With any weights, adaptive strength, and modifiers in any order."""
    positive, negatives = distributions(seed, 3, len(weights), masked)
    rule = rule_class(
        scale=max(scale, 1) if rule_class is SelfDebiasing else scale, adaptive=adaptive, modifiers=modifiers
    )
    guided, scales = guide(rule, positive, negatives, weights)
    assert not guided.isnan().any()
    assert guided.exp().sum(-1) == pytest.approx(torch.ones(3), abs=1e-4)
    # 1e-6: rounding of 1 + (scale - 1) in float32 where the scale is close to 1 or 0
    assert ((scales - 1).abs() <= abs(rule.scale - 1) * (1 + 1e-5) + 1e-6).all()
    if masked and scale >= 0 and min(weights) > 0:
        assert (guided[:, 40:].exp() == 0).all()


# Each rule is its paper's formula, on float64 probabilities.


@pytest.mark.parametrize("scale", [0.3, 1.7, -1.0])
def test_classifier_free_guidance_is_the_papers_formula(scale: float) -> None:
    positive, negatives = distributions(0, 4, 1)
    p, n = positive.double().exp(), negatives[:, 0].double().exp()
    expected = p**scale * n ** (1 - scale)
    guided = guided_by(ClassifierFreeGuidance(scale=scale), positive, negatives)
    assert torch.allclose(guided.double(), (expected / expected.sum(-1, keepdim=True)).log(), atol=1e-4)


@pytest.mark.parametrize("normalise", [True, False])
@pytest.mark.parametrize("weights", [[1.0, 0.5, -2.0], [1.0], [-1.0], [0.5], [-2.0]])
def test_weighted_negatives_are_the_sum_of_their_pushes(normalise: bool, weights: list[float]) -> None:
    positive, negatives = distributions(1, 4, len(weights))
    total = sum(map(abs, weights)) if normalise else 1
    p, n = positive.double(), negatives.double()
    pushes = [weight / total * (p - n[:, k]) for k, weight in enumerate(weights)]
    expected = p + 1.5 * torch.stack(pushes).sum(0)
    rule, scale = ClassifierFreeGuidance(normalise_weights=normalise), torch.full((4, 1), 2.5)
    combined = rule.combine(positive, negatives, torch.tensor([weights] * 4), scale)
    assert torch.allclose(combined.double(), expected, atol=1e-4)


@pytest.mark.parametrize("scale", [1.3, 2.5, 25])
def test_union_is_the_papers_formula(scale: float) -> None:
    positive, negatives = distributions(3, 4, 1)
    strength = 1 - 1 / scale
    m, n = positive.double(), negatives[:, 0].double()
    expected = (m - strength * torch.maximum(m, n)) / (1 - strength)
    guided = guided_by(UnionGuidance(scale=scale), positive, negatives)
    assert torch.allclose(guided.double(), expected.log_softmax(-1), atol=1e-3)


def test_union_equals_cfg_for_tokens_that_the_negative_prefers_and_changes_no_other() -> None:
    positive, negatives = distributions(4, 4, 1)
    scale, weights = torch.full((4, 1), 3.0), torch.ones(4, 1)
    union = UnionGuidance().combine(positive, negatives, weights, scale)
    cfg = ClassifierFreeGuidance().combine(positive, negatives, weights, scale)
    preferred = negatives[:, 0] > positive
    assert preferred.any()
    assert not preferred.all()
    assert torch.allclose(union[preferred], cfg[preferred], atol=1e-4)
    assert torch.equal(union[~preferred], positive[~preferred])


@pytest.mark.parametrize("decay", [10, 50])
def test_self_debiasing_is_the_papers_formula(decay: float) -> None:
    positive, negatives = distributions(5, 4, 2)
    p, n = positive.double().exp(), negatives.double().exp().amax(1)
    factor = torch.where(p - n >= 0, 1.0, torch.exp(decay * (p - n))).clamp(min=0.01)
    expected = p * factor / (p * factor).sum(-1, keepdim=True)
    guided = guided_by(SelfDebiasing(scale=2, decay=decay), positive, negatives)
    assert torch.allclose(guided.double().exp(), expected, atol=1e-6)


def test_contrastive_decoding_is_the_papers_formula() -> None:
    positive, negatives = distributions(6, 4, 1)
    expert, amateur = positive.double(), (negatives[:, 0].double() / 0.5).log_softmax(-1)
    plausible = expert.exp() >= 0.1 * expert.exp().amax(-1, keepdim=True)
    expected = (expert - amateur).masked_fill(~plausible, -math.inf).log_softmax(-1)
    guided = guided_by(ContrastiveDecoding(scale=2), positive, negatives)
    assert torch.equal(guided.exp() > 0, plausible)
    assert torch.allclose(guided[plausible].double(), expected[plausible], atol=1e-4)


@pytest.mark.parametrize("share", [0.2, 0.5, 0.9])
def test_positive_minus_a_share_of_the_negative_is_cfg_at_another_temperature(share: float) -> None:
    """Contrastive formulas and cfg differ by a temperature only (see experiments/rules)."""
    positive, negatives = distributions(19, 4, 1)
    formula = ContrastiveDecoding(scale=1 + share, temperature=1, modifiers=())
    scale = 1 / (1 - share)
    cfg = guided_by(ClassifierFreeGuidance(scale=scale), positive, negatives)
    tempered = (cfg.double() / scale).log_softmax(-1)
    assert torch.allclose(guided_by(formula, positive, negatives).double(), tempered, atol=1e-4)


def test_dola_is_the_papers_formula() -> None:
    positive, negatives = distributions(16, 6, 3)
    layers = torch.stack([jsd(positive, negatives[:, k]) for k in range(3)], 1).argmax(1)
    assert len(set(layers.tolist())) > 1
    mature, premature = positive.double(), negatives.double()[torch.arange(6), layers]
    plausible = mature.exp() >= 0.1 * mature.exp().amax(-1, keepdim=True)
    expected = (mature - premature).masked_fill(~plausible, -math.inf).log_softmax(-1)
    guided = guided_by(Dola(scale=2), positive, negatives)
    assert torch.equal(guided.exp() > 0, plausible)
    assert torch.allclose(guided[plausible].double(), expected[plausible], atol=1e-4)


@pytest.mark.parametrize("scale", [1.5, 2.0, 3.5])
def test_published_names_of_cfg_are_their_papers_formulas(scale: float) -> None:
    positive, negatives = distributions(7, 4, 1)
    p, n = positive.double(), negatives[:, 0].double()
    alpha = 1 - scale
    expected = ((1 - alpha) * p + alpha * n).log_softmax(-1)
    assert torch.allclose(guided_by(preadd(scale=scale), positive, negatives).double(), expected, atol=1e-4)
    alpha = scale - 1
    expected = ((1 + alpha) * p - alpha * n).log_softmax(-1)
    assert torch.allclose(
        guided_by(context_aware(scale=scale), positive, negatives).double(), expected, atol=1e-4
    )
    base, others = distributions(8, 4, 2)
    expert, anti_expert = others[:, 0].double(), others[:, 1].double()
    expected = (base.double() + alpha * (expert - anti_expert)).log_softmax(-1)
    guided = guided_by(experts(scale=scale), base, others, [-1.0, 1.0])
    assert torch.allclose(guided.double(), expected, atol=1e-4)


def test_scale_0_is_the_negative_and_scale_1_the_positive_to_the_last_bit() -> None:
    positive, negatives = distributions(2, 4, 1)
    weights = torch.ones(4, 1)
    zero = ClassifierFreeGuidance().combine(positive, negatives, weights, torch.zeros(4, 1))
    assert torch.equal(zero, negatives[:, 0])
    for rule_class in RULES:
        for adaptive in ADAPTIVE:
            rule = rule_class(adaptive=adaptive, modifiers=(Rescale(share=1), Plausibility(threshold=0.5)))
            guided, scale = rule.guide(positive, negatives, weights, torch.ones(4))
            assert torch.equal(guided, positive)
            assert torch.equal(scale, torch.ones(4))


def test_one_function_decides_where_guidance_is_off() -> None:
    assert is_off(1)
    assert is_off(1.0)
    assert not is_off(0)
    assert not is_off(math.nextafter(1, 2))
    assert is_off(torch.tensor([0.0, 1.0, 1.5])).tolist() == [False, True, False]


# Modifiers


@pytest.mark.parametrize("rule_class", RULES)
def test_no_modifiers_and_modifiers_that_are_off_change_no_bit(rule_class: type[Rule]) -> None:
    positive, negatives = distributions(9, 4, 2, masked=True)
    weights, scale = torch.ones(4, 2), torch.full((4, 1), 2.5)
    formula = log_probs(rule_class().combine(positive, negatives, weights, scale))
    for modifiers in ((), (NoChange(),), (Rescale(share=0), Plausibility(threshold=0))):
        rule = rule_class(scale=2.5, modifiers=modifiers)
        assert torch.equal(guided_by(rule, positive, negatives), formula)


@dataclass(frozen=True)
class NoChange(Modifier):
    """A modifier that overrides nothing."""


@dataclass(frozen=True)
class Add(Modifier):
    """Adds to the guided log-prob of token 0."""

    nats: float

    def modify_guided(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        return guided + self.nats * torch.nn.functional.one_hot(torch.tensor(0), guided.shape[1])


@dataclass(frozen=True)
class Double(Modifier):
    """Doubles the guided log-probs."""

    def modify_guided(self, guided: Tensor, positive: Tensor, scale: Tensor) -> Tensor:
        return 2 * guided


def test_modifiers_act_in_the_order_written() -> None:
    positive, negatives = distributions(17, 4, 1)
    formula = ClassifierFreeGuidance().combine(positive, negatives, torch.ones(4, 1), torch.full((4, 1), 2.0))
    first = torch.nn.functional.one_hot(torch.tensor(0), 50)

    def guided(*modifiers: Modifier) -> Tensor:
        return guided_by(ClassifierFreeGuidance(scale=2, modifiers=modifiers), positive, negatives)

    assert torch.equal(guided(Add(3), Double()), log_probs(2 * (formula + 3 * first)))
    assert torch.equal(guided(Double(), Add(3)), log_probs(2 * formula + 3 * first))
    assert not torch.allclose(guided(Add(3), Double()), guided(Double(), Add(3)), atol=0.1)


def test_modifiers_are_a_tuple_however_they_are_given() -> None:
    modifiers = (Plausibility(), Rescale())
    mapping: Any = {"plausible": Plausibility(), "rescale": Rescale()}
    rules = [ClassifierFreeGuidance(modifiers=given) for given in (modifiers, list(modifiers), mapping)]  # type: ignore[arg-type]
    assert [rule.modifiers for rule in rules] == [modifiers] * 3
    assert len({hash(rule) for rule in rules}) == 1
    swapped: Any = {"rescale": Rescale(), "plausible": Plausibility()}
    assert ClassifierFreeGuidance(modifiers=swapped).modifiers == modifiers[::-1]


def test_plausibility_depends_on_the_positive_branch_only() -> None:
    positive, negatives = distributions(10, 4, 1)
    rule = ClassifierFreeGuidance(scale=4, modifiers=(Plausibility(threshold=0.2),))
    plausible = positive.exp() >= 0.2 * positive.exp().amax(-1, keepdim=True)
    guided = guided_by(rule, positive, negatives)
    assert torch.equal(guided.exp() > 0, plausible)
    unmasked = guided_by(ClassifierFreeGuidance(scale=4), positive, negatives)
    expected = unmasked.masked_fill(~plausible, -math.inf).log_softmax(-1)
    assert torch.allclose(guided[plausible], expected[plausible], atol=1e-4)


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_rescale_restores_the_spread(share: float) -> None:
    positive, negatives = distributions(11, 4, 1)
    combined = ClassifierFreeGuidance().combine(
        positive, negatives, torch.ones(4, 1), torch.full((4, 1), 5.0)
    )
    ratio = positive.std(-1, keepdim=True) / combined.std(-1, keepdim=True)
    expected = share * combined * ratio + (1 - share) * combined
    rule = ClassifierFreeGuidance(scale=5, modifiers=(Rescale(share=share),))
    assert torch.allclose(guided_by(rule, positive, negatives), expected.log_softmax(-1), atol=1e-3)


@pytest.mark.parametrize(("parallel", "norm_bound"), [(0.25, 7), (0.0, 1e9), (1.0, 7), (0.0, None)])
def test_adaptive_projection_is_the_papers_formula(parallel: float, norm_bound: float | None) -> None:
    positive, negatives = distributions(12, 4, 1)
    p, n = positive.double(), negatives[:, 0].double()
    p, n = p - p.mean(-1, keepdim=True), n - n.mean(-1, keepdim=True)
    change = p - n
    change = change * ((norm_bound or 1e9) / change.norm(dim=-1, keepdim=True)).clamp(max=1)
    unit = p / p.norm(dim=-1, keepdim=True)
    component = (change * unit).sum(-1, keepdim=True) * unit
    expected = (p + 2 * (change - component + parallel * component)).log_softmax(-1)
    modifier = AdaptiveProjection(parallel=parallel, norm_bound=norm_bound)
    rule = ClassifierFreeGuidance(scale=3, modifiers=(modifier,))
    assert torch.allclose(guided_by(rule, positive, negatives).double(), expected, atol=1e-3)


def test_zero_star_fits_the_negative() -> None:
    positive, negatives = distributions(13, 4, 1)
    p, n = positive.double(), negatives[:, 0].double()
    p, n = p - p.mean(-1, keepdim=True), n - n.mean(-1, keepdim=True)
    coefficient = (p * n).sum(-1, keepdim=True) / (n * n).sum(-1, keepdim=True)
    expected = (coefficient * n + 3 * (p - coefficient * n)).log_softmax(-1)
    rule = ClassifierFreeGuidance(scale=3, modifiers=(ZeroStar(),))
    assert torch.allclose(guided_by(rule, positive, negatives).double(), expected, atol=1e-3)


@pytest.mark.parametrize(
    "modifier",
    [
        ZeroStar(),
        AdaptiveProjection(parallel=1, norm_bound=3),
        AdaptiveProjection(norm_bound=None),
        Rescale(),
        Plausibility(),
    ],
)
def test_modifiers_ignore_impossible_tokens(modifier: Modifier) -> None:
    """A padded vocabulary changes no probability."""
    positive, negatives = distributions(14, 4, 2)
    padding = torch.full((4, 3, 9), -math.inf)
    padded = log_probs(torch.cat([torch.cat([positive[:, None], negatives], 1), padding], 2))
    rule = ClassifierFreeGuidance(scale=2, modifiers=(modifier,))
    without = guided_by(rule, positive, negatives)
    with_padding = guided_by(rule, padded[:, 0], padded[:, 1:])
    assert torch.allclose(with_padding[:, :50], without, atol=1e-4)
    assert (with_padding[:, 50:].exp() == 0).all()


@pytest.mark.parametrize("later", [Rescale(), AdaptiveProjection(norm_bound=3)])
def test_a_later_modifier_acts_as_if_ruled_out_tokens_were_not_in_the_vocabulary(later: Modifier) -> None:
    positive, negatives = distributions(18, 1, 1)
    plausible = (positive >= positive.amax() + math.log(0.001))[0]
    assert 2 < plausible.sum() < 50
    rule = ClassifierFreeGuidance(scale=2, modifiers=(Plausibility(threshold=0.001), later))
    guided = guided_by(rule, positive, negatives)
    assert (guided[:, ~plausible].exp() == 0).all()
    # Not renormalised by log_probs: the formulas are invariant to it.
    smaller = guided_by(
        ClassifierFreeGuidance(scale=2, modifiers=(later,)), positive[:, plausible], negatives[..., plausible]
    )
    if isinstance(later, AdaptiveProjection):
        assert torch.allclose(guided[:, plausible], smaller, atol=1e-4)
    else:
        combined = 2 * positive[:, plausible] - negatives[:, 0, plausible]
        ratio = positive[:, plausible].std() / combined.std()
        expected = (combined * (1 - later.share + later.share * ratio)).log_softmax(-1)
        assert torch.allclose(guided[:, plausible], expected, atol=1e-4)


# Strength over time, and by the branches' distributions


def test_schedules() -> None:
    def shares(schedule: Any, steps: int) -> list[float]:
        return [schedule.share(step) for step in range(steps)]

    assert shares(Constant(), 3) == [1, 1, 1]
    assert shares(Interval(begin=1, end=3), 5) == [0, 1, 1, 0, 0]
    assert shares(Interval(begin=2, end=None), 4) == [0, 0, 1, 1]
    assert shares(Interval(), 17) == [1] * 16 + [0]
    assert shares(Linear(steps=4), 6) == [1, 0.75, 0.5, 0.25, 0, 0]
    assert shares(Linear(start=0, end=1, steps=2), 4) == [0, 0.5, 1, 1]
    assert shares(Cosine(steps=4), 6) == pytest.approx([1, 0.8536, 0.5, 0.1464, 0, 0], abs=1e-4)
    assert Cosine(steps=4).share(4) == 0
    assert shares(Exponential(half_life=2), 5) == pytest.approx([1, 0.7071, 0.5, 0.3536, 0.25], abs=1e-4)


@pytest.mark.parametrize("rule_class", RULES)
def test_a_schedule_works_with_any_rule(rule_class: type[Rule]) -> None:
    rule = rule_class(scale=3.3, schedule=Linear(steps=4))
    assert [rule.scale_at(step) for step in (0, 2, 4, 9)] == pytest.approx([3.3, 2.15, 1, 1])
    assert rule.scale_at(0) == 3.3
    assert is_off(rule.scale_at(4))


@settings(max_examples=150, deadline=None)
@given(
    rule_class=st.sampled_from(RULES),
    seed=st.integers(0, 10_000),
    scale=st.floats(1, 50),
    nats=st.floats(0.01, 5),
    modifiers=any_modifiers,
)
def test_the_kl_budget_is_never_exceeded(
    rule_class: type[Rule], seed: int, scale: float, nats: float, modifiers: tuple[Modifier, ...]
) -> None:
    positive, negatives = distributions(seed, 3, 1)
    rule = rule_class(scale=scale, adaptive=KLBudget(nats=nats), modifiers=modifiers)
    assert (kl(guided_by(rule, positive, negatives), positive) <= nats + 1e-3).all()


def test_the_kl_budget_is_used_up() -> None:
    """For classifier-free guidance: a slightly larger scale exceeds the budget, or the whole scale fits."""
    positive, negatives = distributions(15, 20, 1)
    _, scales = guide(ClassifierFreeGuidance(scale=6, adaptive=KLBudget(nats=0.5)), positive, negatives)
    larger = (scales + 5 * 2 / 1024).clamp(max=6)
    guided, _ = ClassifierFreeGuidance().guide(positive, negatives, torch.ones(20, 1), larger)
    assert ((kl(guided, positive) > 0.5) | (scales == 6)).all()
    assert (scales < 6).any()
    assert (scales > 1).all()


def sure_and_unsure() -> tuple[Tensor, Tensor]:
    """A positive branch that is sure in row 0 and uniform in row 1, and a uniform negative; 4 tokens."""
    sure, uniform = torch.tensor([9.0, 0, 0, 0]), torch.zeros(4)
    return log_probs(torch.stack([sure, uniform])), log_probs(torch.stack([uniform, uniform]))[:, None]


@given(spread=st.sampled_from([1.0, 30.0, 120.0]), impossible=st.booleans(), seed=st.integers(0, 99))
def test_entropy_and_divergences_are_those_in_float64(spread: float, impossible: bool, seed: int) -> None:
    """Also where tokens are all but impossible, or impossible: there float32 has no probability, or 0."""
    logits = spread * torch.randn(2, 3, 500, generator=torch.Generator().manual_seed(seed))
    if impossible:
        logits[..., 100:] = -math.inf
    p, q = log_probs(logits)
    middle = torch.logaddexp(p.double(), q.double()) - math.log(2)
    for measured, exact in [
        (entropy(p), -(p.double().exp() * p.double()).sum(-1)),
        (kl_divergence(p, q), kl(p, q)),
        (js_divergence(p, q), (kl(p, middle) + kl(q, middle)) / 2),
    ]:
        torch.testing.assert_close(measured.double(), exact, rtol=1e-5, atol=1e-5)


def test_by_entropy_is_its_formula() -> None:
    positive, negatives = sure_and_unsure()
    rule = ClassifierFreeGuidance(scale=3, adaptive=ByEntropy(reference=math.log(4)))
    _, scales = guide(rule, positive, negatives)
    entropy = -(positive.double().exp() * positive.double()).sum(-1)
    assert scales.double() == pytest.approx(1 + 2 * entropy / math.log(4), abs=1e-4)
    rule = ClassifierFreeGuidance(scale=3, adaptive=ByEntropy(reference=0.5))
    assert guide(rule, positive, negatives)[1][1] == 3


def test_by_divergence_is_its_formula() -> None:
    positive, negatives = sure_and_unsure()
    rule = ClassifierFreeGuidance(scale=3, adaptive=ByDivergence(reference=0.5))
    _, scales = guide(rule, positive, negatives)
    assert scales[0] == pytest.approx(1 + 2 * 0.5 / float(kl(positive, negatives[:, 0])[0]), abs=1e-3)
    assert scales[1] == 3


def test_by_jsd_is_adacads_formula() -> None:
    """guided = (1 + alpha) * with context - alpha * without, alpha = JSD, as in the paper."""
    positive, negatives = distributions(19, 6, 1)
    p, n = positive.double(), negatives[:, 0].double()
    alpha = jsd(positive, negatives[:, 0])
    assert alpha.min() > 0.05
    assert alpha.max() < math.log(2)
    guided, scales = guide(ClassifierFreeGuidance(scale=2, adaptive=ByJSD()), positive, negatives)
    assert torch.allclose(scales.double(), 1 + alpha, atol=1e-5)
    expected = ((1 + alpha[:, None]) * p - alpha[:, None] * n).log_softmax(-1)
    assert torch.allclose(guided.double(), expected, atol=1e-4)
    # The lab's scale multiplies it, the floor bounds it from below, equal branches leave no guidance.
    _, scales = guide(ClassifierFreeGuidance(scale=4, adaptive=ByJSD(floor=0.5)), positive, negatives)
    assert torch.allclose(scales.double(), 1 + 3 * alpha.clamp(min=0.5), atol=1e-5)
    assert (alpha < 0.5).any()
    assert (alpha > 0.5).any()
    _, scales = guide(ClassifierFreeGuidance(scale=4, adaptive=ByJSD()), positive, positive[:, None])
    assert scales == pytest.approx(torch.ones(6), abs=1e-5)


@pytest.mark.parametrize(
    ("adaptive", "formula"),
    [
        (ByJSD(), lambda divergences: divergences[1]),
        (ByDivergence(reference=0.1), lambda divergences: 0.1 / divergences[0]),
    ],
)
def test_several_negatives_count_by_the_absolute_values_of_their_weights(adaptive: Any, formula: Any) -> None:
    positive, negatives = distributions(20, 5, 2)
    means = [
        (0.5 * divergence(positive, negatives[:, 0]) + 1.5 * divergence(positive, negatives[:, 1])) / 2
        for divergence in (kl, jsd)
    ]
    _, scales = guide(ClassifierFreeGuidance(scale=3, adaptive=adaptive), positive, negatives, [0.5, -1.5])
    assert torch.allclose(scales.double(), 1 + 2 * formula(means), atol=1e-4)


def test_the_entropy_gate_is_mtis_formula() -> None:
    """Full guidance where H(positive) > threshold, the positive branch itself elsewhere."""
    positive, negatives = distributions(21, 30, 1)
    entropy = -(positive.double().exp() * positive.double()).sum(-1)
    is_open = entropy > 0.5
    assert 5 < is_open.sum() < 25
    guided, scales = guide(
        ClassifierFreeGuidance(scale=2.5, adaptive=EntropyGate(threshold=0.5)), positive, negatives
    )
    assert scales.tolist() == [2.5 if row_is_open else 1.0 for row_is_open in is_open.tolist()]
    assert torch.equal(guided[~is_open], positive[~is_open])
    full = guided_by(ClassifierFreeGuidance(scale=2.5), positive, negatives)
    assert torch.equal(guided[is_open], full[is_open])


def test_guidance_ends_after_several_steps_of_agreement_in_a_row() -> None:
    rule = ClassifierFreeGuidance(stopping=StopOnAgreement(threshold=0.1, steps=3))
    assert not rule.has_ended([])
    assert not rule.has_ended([0.01, 0.01])
    assert rule.has_ended([2, 0.01, 0.01, 0.01])
    assert not rule.has_ended([0.01, 0.01, 0.5, 0.01])
    assert not rule.has_ended([0.01, 0.1, 0.01])
    assert not rule.has_ended([0.01, math.nan, 0.01])
    assert not ClassifierFreeGuidance().has_ended([0.0] * 50)
    assert not ClassifierFreeGuidance().has_ended([-1e-7] * 50)  # rounding


# Names and defaults

GROUPS = ["guidance", "guidance/schedule", "guidance/adaptive", "guidance/modifiers", "guidance/stopping"]
PRESETS = {
    ("guidance/schedule", "warm_up"): {"start", "end", "steps"},
    **{("guidance", name): {"stopping"} for name in ("adaptive_stop",)},
    **{("guidance", name): {"modifiers"} for name in ("apg", "plausible", "rescale", "zero_star")},
    **{("guidance", name): {"schedule"} for name in ("cosine", "decay", "interval", "linear", "warm_up")},
    **{
        ("guidance", name): {"adaptive"}
        for name in ("by_divergence", "by_entropy", "by_jsd", "entropy_gate", "kl_budget")
    },
}
"""Options that differ from the defaults of what they call, and the arguments that differ."""
FROM_A_FILE = ("guidance/adaptive", "policy")
"""The option whose values are read from the user's file: it has no defaults."""


@pytest.mark.parametrize(
    ("group", "option"),
    [(group, name) for group in GROUPS for name in option_names(group) if (group, name) != FROM_A_FILE],
)
def test_an_option_has_the_defaults_of_its_class_except_for_what_it_is_named_for(
    group: str, option: str
) -> None:
    choice = f"[{option}]" if group == "guidance/modifiers" else option
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"{group}={choice}"])
    node: Any = OmegaConf.select(config, group.replace("/", "."))
    node = node[option] if group == "guidance/modifiers" else node
    value, default = instantiate(node, _convert_="all"), get_object(node._target_)()
    different = {name for name, argument in vars(value).items() if argument != getattr(default, name)}
    assert different == PRESETS.get((group, option), set())


@pytest.mark.parametrize("option", option_names("guidance"))
def test_arguments_with_default_values_are_not_part_of_a_cells_identity(option: str) -> None:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"guidance={option}"])
    _, changed = canonical_config(OmegaConf.to_container(config.guidance))
    assert set(changed) == PRESETS.get(("guidance", option), set())


def test_every_value_of_a_rule_has_a_name_of_its_own() -> None:
    """Ids are made of names: equal names for different values would make one text stand for another."""
    values: list[Any] = [
        *ADAPTIVE,
        Constant(),
        Interval(end=None),
        Interval(),
        Linear(),
        Cosine(),
        Exponential(),
        NeverStop(),
        StopOnAgreement(),
        StopOnAgreement(steps=5),
        ZeroStar(),
        AdaptiveProjection(),
        AdaptiveProjection(norm_bound=None),
        Rescale(),
        Plausibility(),
    ]
    rules: list[Any] = [rule_class(scale=3) for rule_class in RULES]
    rules += [ClassifierFreeGuidance(adaptive=adaptive) for adaptive in ADAPTIVE]
    rules += [
        ClassifierFreeGuidance(schedule=Interval()),
        ClassifierFreeGuidance(stopping=StopOnAgreement()),
        ClassifierFreeGuidance(modifiers=(Rescale(), Plausibility())),
        ClassifierFreeGuidance(modifiers=(Plausibility(), Rescale())),
        ContrastiveDecoding(modifiers=()),
        ContrastiveDecoding(),
    ]
    for group in (values, rules):
        names = [str(canonical(value)) for value in group]
        assert len(set(names)) == len(names)
        assert not any("object at" in name for name in names)
    exported = [getattr(guidance, name) for name in guidance.__all__]
    concrete = {
        value for value in exported if isinstance(value, type) and not getattr(value, "_is_protocol", 0)
    }
    assert {type(value) for value in [*values, *rules]} <= concrete
    assert {value for value in concrete if not is_dataclass(value)} == {Modifier}


def test_a_scale_of_numpy_has_the_name_of_a_plain_number() -> None:
    rule = ClassifierFreeGuidance(scale=np.float64(2.5))  # type: ignore[arg-type]
    assert canonical(rule) == canonical(ClassifierFreeGuidance(scale=2.5))
    assert type(rule.scale) is float


def test_renamed_keys_are_no_keys_any_more() -> None:
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        nodes = [compose("sweep", overrides=[f"guidance={name}"]) for name in option_names("guidance")]
    for key, replacement in RENAMED_KEYS.items():
        if key.startswith("guidance."):
            values = [OmegaConf.select(node, key) for node in nodes]
            # guidance.modifiers.rescale was a number; it is the node of a modifier now
            assert all(value is None or OmegaConf.is_dict(value) for value in values), key
            assert replacement.startswith(("guidance.", "guidance/")), replacement


# Errors


@pytest.mark.parametrize("scale", [math.nan, math.inf, -math.inf, "strong", None, True])
def test_bad_scales_are_named(scale: Any) -> None:
    for make in (ClassifierFreeGuidance, preadd, context_aware, experts):
        with pytest.raises(InputError, match=r"guidance\.scale must be a finite number .* got"):
            make(scale=scale)


@dataclass
class NoShare:
    """A dataclass without the methods of any part of a rule."""


class Always:
    """A schedule that is no dataclass, so that it has no stable name."""

    def share(self, step: int) -> float:
        return 1.0


BAD: list[tuple[str, Any]] = [
    ("guidance.scale", lambda: SelfDebiasing(scale=0.5)),
    ("guidance.decay", lambda: SelfDebiasing(decay=-1)),
    ("guidance.epsilon", lambda: SelfDebiasing(epsilon=0)),
    ("guidance.temperature", lambda: ContrastiveDecoding(temperature=0)),
    ("guidance.schedule", lambda: ClassifierFreeGuidance(schedule=None)),  # type: ignore[arg-type]
    ("guidance.schedule", lambda: ClassifierFreeGuidance(schedule=NoShare())),  # type: ignore[arg-type]
    ("guidance.schedule", lambda: ClassifierFreeGuidance(schedule=Always())),
    ("guidance.schedule", lambda: ClassifierFreeGuidance(schedule=Constant)),  # type: ignore[arg-type]
    ("guidance.adaptive", lambda: ClassifierFreeGuidance(adaptive=Constant())),  # type: ignore[arg-type]
    ("guidance.stopping", lambda: ClassifierFreeGuidance(stopping=0.1)),  # type: ignore[arg-type]
    ("guidance.modifiers", lambda: ClassifierFreeGuidance(modifiers=None)),  # type: ignore[arg-type]
    ("guidance.modifiers", lambda: ClassifierFreeGuidance(modifiers=Rescale())),  # type: ignore[arg-type]
    ("guidance.modifiers", lambda: ClassifierFreeGuidance(modifiers=("rescale",))),  # type: ignore[arg-type]
    ("guidance.schedule.begin", lambda: Interval(begin=-1)),
    ("guidance.schedule.end", lambda: Interval(begin=4, end=4)),
    ("guidance.schedule.start", lambda: Linear(start=math.nan)),
    ("guidance.schedule.steps", lambda: Cosine(steps=0)),
    ("guidance.schedule.half_life", lambda: Exponential(half_life=0)),
    ("guidance.stopping.threshold", lambda: StopOnAgreement(threshold=0)),
    ("guidance.stopping.steps", lambda: StopOnAgreement(steps=0)),
    ("guidance.adaptive.nats", lambda: KLBudget(nats=-1)),
    ("guidance.adaptive.reference", lambda: ByEntropy(reference=0)),
    ("guidance.adaptive.reference", lambda: ByDivergence(reference=math.nan)),
    ("guidance.adaptive.floor", lambda: ByJSD(floor=1.5)),
    ("guidance.adaptive.threshold", lambda: EntropyGate(threshold=-0.1)),
    ("guidance.modifiers.plausible.threshold", lambda: Plausibility(threshold=1.5)),
    ("guidance.modifiers.rescale.share", lambda: Rescale(share=-0.1)),
    ("guidance.modifiers.apg.norm_bound", lambda: AdaptiveProjection(norm_bound=-1)),
    ("guidance.modifiers.apg.parallel", lambda: AdaptiveProjection(parallel=math.inf)),
]


@pytest.mark.parametrize(("key", "make"), BAD)
def test_bad_arguments_are_named(key: str, make: Any) -> None:
    with pytest.raises(InputError, match=key.replace(".", r"\.") + " must be .* got"):
        make()

"""Laws of a learned scale: its use in decoding, its gradient, its training, and the command."""

from __future__ import annotations

import itertools
import json
import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from hydra import compose, initialize_config_dir
from torch import Tensor

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Prompt, Request
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.decoding.text_logits import GivenText, text_logits
from cfg_lab.errors import InputError
from cfg_lab.guidance import Branches, KLBudget, LearnedScale, UnionGuidance, load_policy, log_probs
from cfg_lab.guidance.policy import FEATURES, describe, features, policy_as_json
from cfg_lab.learning.policy import learn_policy
from cfg_lab.learning.policy_network import PolicyNetwork, policy_loss, rloo_advantages
from cfg_lab.learning.policy_rollouts import ExploringScale, Rollouts, roll_out
from cfg_lab.learning.policy_settings import PolicySettings
from cfg_lab.learning.policy_training import new_state, prompts_of_update, update
from cfg_lab.metrics import Length
from cfg_lab.models import LanguageModel
from cfg_lab.options import CONFIG
from cfg_lab.study.aim import parse_aim
from cfg_lab.study.planned_text import PlannedText
from tests.cli import environment, prompts_file, sweep, wait_until
from tests.policies import POLICY, write_policy
from tests.test_decoder import context, decoded
from tests.test_rules_in_the_decoder import make_request

SETTINGS = PolicySettings(
    penalty="kl",
    strength=0.0,
    shares=(0.0, 0.5, 1.0),
    hidden=8,
    updates=1,
    prompts_per_update=4,
    rollouts=4,
    learning_rate=0.05,
    entropy_bonus=0.0,
    seed=0,
)


# In decoding


def always(number: int) -> LearnedScale:
    """A policy that always chooses one of the shares 0, 0.5 and 1."""
    bias = [float(number == index) for index in range(3)]
    return replace(
        POLICY, shares=(0.0, 0.5, 1.0), hidden=((0.0,) * 5,), output=tuple((value, 0.0) for value in bias)
    )


def test_shares_1_0_and_a_half_are_the_rule_plain_decoding_and_half_the_scale(
    rotary: LanguageModel,
) -> None:
    rule = ClassifierFreeGuidance(scale=4)
    equal = {2: rule, 1: replace(rule, scale=2.5), 0: None}
    for number, other in equal.items():
        for sampling in (None, Sampling(temperature=1.2)):
            request = make_request(replace(rule, adaptive=always(number)), sampling=sampling)
            (ours,) = decoded(rotary, [request])
            (theirs,) = decoded(rotary, [replace(request, guidance=other)])
            assert ours.tokens == theirs.tokens
            assert ours.trace.guided == pytest.approx(theirs.trace.guided, abs=1e-4)
            assert ours.trace.scale == pytest.approx([1 + 3 * number / 2] * 14)


def test_the_policy_of_the_tests_uses_all_its_shares(rotary: LanguageModel) -> None:
    """Else the laws of all rules would say little about it."""
    requests = [make_request(ClassifierFreeGuidance(scale=4, adaptive=POLICY), seed) for seed in range(4)]
    scales = {round(scale, 4) for text in decoded(rotary, requests) for scale in text.trace.scale}
    assert scales == {1.0, 2.2, 4.0}


def test_features_are_their_formulas() -> None:
    torch.manual_seed(0)
    positive, *negatives = (3 * torch.randn(3, 5, 40, dtype=torch.float64)).log_softmax(-1)
    weights = torch.tensor([[1.0, -0.5]] * 5)
    steps = torch.tensor([0, 3, 9, 10, 500])
    stacked = torch.stack(negatives, 1)
    branches = Branches(positive=positive, negatives=stacked, weights=weights, steps=steps)
    for row, values in enumerate(features(branches, 10).tolist()):
        p = positive[row].exp()
        entropy = -float((p * p.log()).sum())
        first, second = (float((p * (p.log() - q[row])).sum()) for q in negatives)
        best = sorted(p.tolist())
        expected = [
            math.log(1 + entropy),
            math.log(1 + (first + 0.5 * second) / 1.5),
            best[-1] - best[-2],
            min(1, int(steps[row]) / 10),
        ]
        assert values == pytest.approx(expected, abs=1e-5)
    with pytest.raises(ValueError, match="pass steps"):
        features(replace(branches, steps=None), 10)


def test_a_completion_is_named_by_the_content_of_the_policy(tmp_path: Path) -> None:
    """Not by the name of the file: a changed file gives other ids, a copy the same."""

    def completion_id(policy: LearnedScale) -> str:
        return make_request(ClassifierFreeGuidance(scale=1.5, adaptive=policy)).id("model")

    for name in ("a.json", "b.json"):
        write_policy(tmp_path / name)
    first = completion_id(load_policy(str(tmp_path / "a.json")))
    assert completion_id(load_policy(str(tmp_path / "b.json"))) == first
    assert completion_id(load_policy(str(tmp_path / "b.json"), any_scale=True)) == first
    content = json.loads((tmp_path / "b.json").read_text())
    for key, index in (("hidden", 0), ("output", 1)):
        changed = json.loads(json.dumps(content))
        changed[key][index][1] += 1e-6
        (tmp_path / "b.json").write_text(json.dumps(changed))
        assert completion_id(load_policy(str(tmp_path / "b.json"))) != first


def test_another_rule_or_scale_than_trained_is_refused() -> None:
    assert ClassifierFreeGuidance(scale=4, adaptive=POLICY)
    assert ClassifierFreeGuidance(scale=1, adaptive=POLICY)
    assert ClassifierFreeGuidance(scale=3, adaptive=replace(POLICY, any_scale=True))
    with pytest.raises(InputError, match=r"^guidance\.scale must be 4, .* got 3; .*any_scale=true"):
        ClassifierFreeGuidance(scale=3, adaptive=POLICY)
    with pytest.raises(InputError, match=r"^guidance is UnionGuidance.* trained for ClassifierFreeGuidance"):
        UnionGuidance(scale=4, adaptive=POLICY)
    with pytest.raises(InputError, match="normalise_weights=False"):
        ClassifierFreeGuidance(scale=4, adaptive=POLICY, normalise_weights=False)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"shares": [1]}, "at least two different shares"),
        ({"shares": [0, 2, 1]}, "in \\[0, 1\\]"),
        ({"hidden": [[0, 0]]}, "finite weights"),
        ({"output": [[math.nan] * 4] * 3}, "finite weights"),
        ({"features": ["entropy"]}, "its features"),
        ({"length": 0}, "length"),
        ({"rule": None, "scale": "much"}, "much"),
    ],
)
def test_a_damaged_policy_is_refused(tmp_path: Path, change: dict[str, Any], reason: str) -> None:
    path = tmp_path / "policy.json"
    write_policy(path)
    path.write_text(json.dumps({**json.loads(path.read_text()), **change}))
    with pytest.raises(InputError, match=rf"^guidance\.adaptive\.path is .*{reason}"):
        load_policy(str(path))


# The gradient


def test_the_gradient_is_in_expectation_that_of_the_exact_mean_reward() -> None:
    """Enumerates all pairs of texts of two steps with three shares, each with its probability."""
    torch.manual_seed(1)
    network = PolicyNetwork(shares=3, units=4, seed=0)
    torch.nn.init.normal_(network.output)
    steps = torch.randn(2, len(FEATURES))
    reward = torch.randn(3, 3)  # of the two actions of a text

    log_probs_of_steps = network(steps)
    joint = log_probs_of_steps[0][:, None] + log_probs_of_steps[1]
    exact = torch.autograd.grad((joint.exp() * reward).sum(), list(network.parameters()))
    texts = list(itertools.product(range(3), repeat=2))
    probability = joint.detach().exp()
    expected = [torch.zeros_like(part) for part in exact]
    for pair in itertools.product(texts, repeat=2):
        rewards = torch.tensor([[float(reward[text]) for text in pair]])
        loss = policy_loss(
            network(torch.cat([steps, steps])),
            torch.tensor([action for text in pair for action in text]),
            torch.tensor([0, 0, 1, 1]),
            rloo_advantages(rewards).flatten(),
            entropy_bonus=0.0,
        )
        weight = float(probability[pair[0]] * probability[pair[1]])
        for total, part in zip(expected, torch.autograd.grad(-loss, list(network.parameters())), strict=True):
            total += weight * part
    for ours, theirs in zip(expected, exact, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-4, atol=1e-6)


def test_advantages_leave_the_text_itself_out() -> None:
    advantages = rloo_advantages(torch.tensor([[1.0, 2.0, 6.0], [5.0, 5.0, 5.0]]))
    assert advantages.tolist() == [[-3.0, -1.5, 4.5], [0.0, 0.0, 0.0]]


# A toy problem whose optimum is known


def toy_steps(generator: np.random.Generator, count: int) -> tuple[Tensor, Tensor]:
    """Features of steps of sharp and of flat distributions, and the share that is right at each."""
    is_flat = torch.from_numpy(generator.random(count) < 0.5)
    logits = torch.from_numpy(generator.normal(size=(2, count, 30)))
    positive = log_probs(torch.where(is_flat[:, None], 0.3, 4.0) * logits[0])
    negatives = log_probs(logits[1])[:, None]
    steps = torch.from_numpy(generator.integers(0, 20, count))
    branches = Branches(positive=positive, negatives=negatives, weights=torch.ones(count, 1), steps=steps)
    return features(branches, 20), torch.where(is_flat, 2, 0)


def test_training_finds_the_optimum_of_a_toy_problem() -> None:
    """Full guidance is right where the model is unsure, none where it is sure. Rewards count right steps."""
    prompts, samples, length = 8, 4, 20
    state = new_state(SETTINGS)
    generator = np.random.default_rng(0)
    for _ in range(150):
        values, right = toy_steps(generator, prompts * samples * length)
        with torch.no_grad():
            probabilities = state.network(values).exp()
        actions = torch.from_numpy(
            (probabilities.numpy().cumsum(1) < generator.random((len(values), 1))).sum(1).clip(max=2)
        )
        texts = torch.arange(prompts * samples).repeat_interleave(length)
        aims = (actions == right).double().reshape(prompts, samples, length).mean(2).numpy()
        rollouts = Rollouts(
            features=values,
            actions=actions,
            texts=texts,
            aims=aims,
            penalties=np.zeros_like(aims),
            plain_aims=np.zeros(prompts),
            tokens=len(values),
        )
        update(state, rollouts, SETTINGS)
    hidden, output = state.network.matrices()
    policy = replace(POLICY, shares=SETTINGS.shares, hidden=hidden, output=output, length=20)
    values, right = toy_steps(generator, 2000)
    chosen = policy.share_of(values)
    assert (chosen == torch.tensor(SETTINGS.shares)[right]).float().mean() > 0.97
    torch.testing.assert_close(policy.scores(values).log_softmax(1), state.network(values).detach())


# Rollouts


def planned_texts(model: LanguageModel, count: int = 3) -> list[PlannedText]:
    requests = [
        Request(
            positive=context(seed, 6),
            negatives=(Branch(context(seed + 9, 5)),),
            guidance=ClassifierFreeGuidance(scale=4),
            sampling=Sampling(temperature=1.0),
            max_new_tokens=10,
            stop_ids=frozenset(range(0, 256, 17)),
        )
        for seed in range(count)
    ]
    prompts = [Prompt(id=str(number), text=f"Text {number}") for number in range(count)]
    return [
        PlannedText(prompt=prompt, request=request, completion_id=request.id(model.fingerprint))
        for prompt, request in zip(prompts, requests, strict=True)
    ]


def rollouts_of(model: LanguageModel, numbers: Sequence[int], max_rows: int = 64, **changes: Any) -> Rollouts:
    planned = planned_texts(model)
    arguments: dict[str, Any] = {
        "samples": 3,
        "sample": 7,
        "seed": 1,
        "aim": parse_aim("+length", [Length()]),
        "penalty": "kl",
        **changes,
    }
    decoder = Decoder(model, max_rows, static=False)
    chosen = {number: planned[number] for number in numbers}
    return roll_out(POLICY, chosen, decoder, {None: model}, **arguments)


def test_rollouts_do_not_depend_on_the_batch(rotary: LanguageModel) -> None:
    together = rollouts_of(rotary, [0, 1, 2])
    for number in range(3):
        for max_rows in (2, 7):
            alone = rollouts_of(rotary, [number], max_rows)
            of_prompt = together.texts // 3 == number
            assert alone.actions.tolist() == together.actions[of_prompt].tolist()
            torch.testing.assert_close(alone.features, together.features[of_prompt], rtol=0, atol=1e-4)
            assert alone.aims[0].tolist() == together.aims[number].tolist()
            assert alone.penalties[0] == pytest.approx(together.penalties[number], abs=1e-4)
    assert len(set(together.actions.tolist())) == 3
    assert rollouts_of(rotary, [0], sample=8).actions.tolist() != rollouts_of(rotary, [0]).actions.tolist()


def test_what_a_rollout_records_is_what_teacher_forcing_computes(rotary: LanguageModel) -> None:
    planned = planned_texts(rotary)[1]
    scale = ExploringScale.of(POLICY, (5,))
    request = replace(planned.request, guidance=ClassifierFreeGuidance(scale=4, adaptive=scale))
    (completion,) = Decoder(rotary, static=False).decode([request])
    assert list(scale.choices) == list(range(len(completion.tokens)))
    ((part,),) = list(text_logits({None: rotary}, [GivenText(request.contexts, completion.tokens)]))
    positive, negative = map(log_probs, part.branches)
    branches = Branches(
        positive=positive,
        negatives=negative[:, None],
        weights=torch.ones(len(positive), 1),
        steps=torch.arange(len(positive)),
    )
    recorded = torch.tensor([choice.features for choice in scale.choices.values()])
    torch.testing.assert_close(recorded, features(branches, POLICY.length), rtol=0, atol=1e-3)
    shares = [POLICY.shares[choice.action] for choice in scale.choices.values()]
    assert completion.trace.scale == pytest.approx([1 + 3 * share for share in shares], abs=1e-5)
    guided = log_probs(negative + torch.tensor(completion.trace.scale)[:, None] * (positive - negative))
    divergences = (guided.exp() * (guided - positive)).sum(1)
    assert [choice.divergence for choice in scale.choices.values()] == pytest.approx(
        divergences.tolist(), abs=1e-3
    )


def test_shares_are_drawn_with_the_probabilities_of_the_network() -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(2, 1, 30).log_softmax(-1)
    branches = Branches(
        positive=positive, negatives=negative[:, None], weights=torch.ones(1, 1), steps=torch.tensor([4])
    )
    expected = POLICY.scores(features(branches, 10)).softmax(1)[0]
    draws = 4000
    counts = [0, 0, 0]
    for number in range(draws):
        scale = ExploringScale.of(POLICY, (number,))
        scale.scale_in_force(torch.tensor([[4.0]]), branches, lambda _: positive)
        counts[scale.choices[4].action] += 1
    for count, probability in zip(counts, expected.tolist(), strict=True):
        error = math.sqrt(probability * (1 - probability) / draws)
        assert abs(count / draws - probability) < 4 * error + 1e-9


def test_excess_perplexity_is_not_below_0_and_plain_texts_pay_nothing(rotary: LanguageModel) -> None:
    penalties = rollouts_of(rotary, [0, 1, 2], penalty="perplexity").penalties
    assert (penalties >= 0).all()
    assert (penalties > 0).any()


def test_every_prompt_takes_part_equally_often() -> None:
    numbers = [number for step in range(10) for number in prompts_of_update(step, 8, SETTINGS)]
    assert sorted(numbers) == sorted([*range(8)] * 5)
    assert prompts_of_update(0, 2, SETTINGS) != []


# The command


def arguments(folder: Path, model: Path, *more: str) -> list[str]:
    return [
        f"model.name={model}",
        "prompts=file",
        f"prompts.path={prompts_file(folder, 12)}",
        f"results_root={folder / 'results'}",
        "name=mine",
        "metrics=[length,kl_from_plain]",
        "aim=+length",
        "tracking=none",
        "report=false",
        "updates=4",
        "prompts_per_update=2",
        "rollouts=2",
        "samples=1",
        "max_new_tokens=6",
        *more,
    ]


def learn(*overrides: str) -> list[str]:
    return [sys.executable, "-m", "cfg_lab.learn", "policy", *overrides]


def composed(*overrides: str) -> Any:
    """The config with which the command calls its function."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        return compose("learn_policy", overrides=list(overrides), return_hydra_config=True)


def policy_of(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "results" / "mine" / "policy.json").read_text())
    del content["notes"]["seconds"], content["notes"]["command"]
    return content


def test_a_killed_training_ends_with_the_same_policy(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("whole", "killed"):
        (tmp_path / name).mkdir()
    learn_policy(composed(*arguments(tmp_path / "whole", tiny_folder)))
    printed = capsys.readouterr().out
    assert "update 4/4" in printed
    assert "held_out: length of the policy − constant scale 4" in printed
    overrides = arguments(tmp_path / "killed", tiny_folder)
    with subprocess.Popen(
        learn(*overrides), env=environment(), stdout=subprocess.DEVNULL, start_new_session=True
    ) as process:
        wait_until((tmp_path / "killed" / "results" / "mine" / "checkpoint.pt").exists, process)
        os.killpg(process.pid, signal.SIGKILL)
    again = subprocess.run(learn(*overrides), capture_output=True, text=True, env=environment(), check=False)
    assert again.returncode == 0, again.stderr
    assert "update 1/4" not in again.stdout
    assert policy_of(tmp_path / "killed") == policy_of(tmp_path / "whole")
    updates = [
        pd.read_parquet(tmp_path / name / "results/mine/updates.parquet") for name in ("whole", "killed")
    ]
    pd.testing.assert_frame_equal(*updates)

    # The file is an option of every sweep, and other settings are refused in the same folder.
    path = tmp_path / "whole" / "results" / "mine" / "policy.json"
    rows = sweep(
        f"model.name={tiny_folder}",
        "prompts=file",
        f"prompts.path={prompts_file(tmp_path)}",
        f"results_root={tmp_path / 'results'}",
        "metrics=[length]",
        "tracking=none",
        "report=false",
        "max_new_tokens=4",
        "guidance.scale=1,4",
        "guidance/adaptive=policy",
        f"guidance.adaptive.path={path}",
    )
    assert len(rows) == 2
    with pytest.raises(InputError, match="was trained with other settings"):
        learn_policy(composed(*overrides, "strength=0.7"))


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("prompts.half=null", "prompts.half must be selection"),
        ("guidance.scale=1", "guidance.scale is 1"),
        ("guidance/adaptive=kl_budget", "guidance/adaptive must be none"),
        ("sampling=beam", "sampling must not be beam"),
        ("penalty=none", "penalty must be kl or perplexity, got 'none'"),
        ("rollouts=1", "rollouts must be a whole number from 2"),
        ("strength=-1", "strength must be a number of at least 0, got -1"),
        ("shares=[1]", "shares must be at least two different shares"),
        ("aim=sentiment", "aim is 'sentiment', but no metric"),
        ("stop=['.']", "stop must be [] to train a policy"),
    ],
)
def test_what_cannot_be_trained_is_refused_before_anything_is_written(
    tmp_path: Path, tiny_folder: Path, override: str, sentence: str
) -> None:
    overrides = arguments(tmp_path, tiny_folder, override)
    if override.startswith("sampling="):
        overrides += ["~sampling.temperature", "~sampling.top_p"]
    with pytest.raises(InputError, match=f"^{re.escape(sentence)}"):
        learn_policy(composed(*overrides))
    assert not (tmp_path / "results").exists()


def test_a_rule_with_another_adaptive_strength_is_described_alike() -> None:
    """The description is of the formula, which the policy's shares depend on."""
    rule = ClassifierFreeGuidance(scale=3)
    assert describe(replace(rule, adaptive=KLBudget(), scale=2)) == describe(rule) == POLICY.rule
    assert policy_as_json(POLICY, {}) == policy_as_json(replace(POLICY, any_scale=True), {})

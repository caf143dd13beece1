"""The training of a learned scale by RLOO."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from rich.console import Console

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.guidance import LearnedScale
from cfg_lab.learning.policy_checkpoint import TrainingState
from cfg_lab.learning.policy_network import PolicyNetwork, policy_loss, rloo_advantages
from cfg_lab.learning.policy_rollouts import Rollouts, mean_shares, roll_out
from cfg_lab.learning.policy_settings import PolicySettings
from cfg_lab.models import LanguageModel
from cfg_lab.study.aim import Aim
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.progress import ProgressBar

AsPolicy = Callable[[PolicyNetwork], LearnedScale]
"""Makes the learned scale that a network stands for."""


def new_state(settings: PolicySettings) -> TrainingState:
    """The state before the first update."""
    network = PolicyNetwork(len(settings.shares), settings.hidden, settings.seed)
    optimizer = torch.optim.Adam(network.parameters(), lr=settings.learning_rate)
    return TrainingState(network=network, optimizer=optimizer)


def train(
    state: TrainingState,
    settings: PolicySettings,
    planned: Sequence[PlannedText],
    models: Mapping[str | None, LanguageModel],
    decoder: Decoder,
    *,
    aim: Aim,
    as_policy: AsPolicy,
    folder: Path,
    identity: str,
    console: Console,
    log: Callable[[Mapping[str, float]], None],
) -> None:
    """Train until the state has `settings.updates` updates. The state is written after each.

    Each update:

    1. Texts of some prompts are decoded with drawn shares. All texts of a prompt have the same noise of
       tokens, so they differ by the drawn shares only.
    2. The reward of a text is aim - strength * penalty.
    3. One step of Adam follows the RLOO gradient. The language model is not trained.

    Args:
        state: the state, new or read from the folder.
        settings: the settings.
        planned: one planned text per prompt.
        models: the models of `decoder`, by name.
        decoder: decodes the texts.
        aim: what the texts should reach.
        as_policy: makes the learned scale of the network.
        folder, identity: see `TrainingState.write`.
        console: where to show the progress.
        log: is given the numbers of each update.
    """
    updates = range(len(state.history), settings.updates)
    with ProgressBar(console, "training", len(updates), "updates") as bar:
        for number in updates:
            begin = time.monotonic()
            rollouts = roll_out(
                as_policy(state.network),
                {index: planned[index] for index in prompts_of_update(number, len(planned), settings)},
                decoder,
                models,
                samples=settings.rollouts,
                sample=number,
                seed=settings.seed,
                aim=aim,
                penalty=settings.penalty,
            )
            update(state, rollouts, settings)
            policy = as_policy(state.network)
            numbers = _numbers(policy, rollouts, settings)
            state.history.append({"update": number + 1, **numbers})
            state.seconds += time.monotonic() - begin
            state.write(folder, identity)
            log(numbers)
            bar.advance(1)
            line = _line(number + 1, settings.updates, numbers, policy)
            console.print(line, highlight=False, soft_wrap=True)


def update(state: TrainingState, rollouts: Rollouts, settings: PolicySettings) -> None:
    """One step of Adam along the RLOO gradient."""
    rewards = torch.from_numpy(rollouts.aims - settings.strength * rollouts.penalties).float()
    state.optimizer.zero_grad()
    loss = policy_loss(
        state.network(rollouts.features),
        rollouts.actions,
        rollouts.texts,
        rloo_advantages(rewards).flatten(),
        settings.entropy_bonus,
    )
    loss.backward()  # pyright: ignore[reportUnknownMemberType]
    state.optimizer.step()


def prompts_of_update(number: int, prompts: int, settings: PolicySettings) -> list[int]:
    """The numbers of the prompts of an update. Every prompt comes once before one comes again.

    Args:
        number: number of updates before this one.
        prompts: number of prompts.
    """
    size = min(settings.prompts_per_update, prompts)
    chosen: list[int] = []
    for position in range(number * size, (number + 1) * size):
        epoch, place = divmod(position, prompts)
        chosen.append(int(np.random.default_rng([settings.seed, epoch]).permutation(prompts)[place]))
    return list(dict.fromkeys(chosen))  # one prompt can end an epoch and begin the next


def _numbers(policy: LearnedScale, rollouts: Rollouts, settings: PolicySettings) -> dict[str, float]:
    """What is shown and logged of an update."""
    shares = mean_shares(policy, rollouts)
    mean_share = float(np.dot(shares, policy.shares))
    return {
        "reward": float((rollouts.aims - settings.strength * rollouts.penalties).mean()),
        "aim": float(rollouts.aims.mean()),
        "aim_of_plain": float(rollouts.plain_aims.mean()),
        "penalty": float(rollouts.penalties.mean()),
        "mean_scale": 1 + mean_share * (policy.trained_scale - 1),
        **{f"share_{share:g}": how_often for share, how_often in zip(policy.shares, shares, strict=True)},
        "tokens": rollouts.tokens,
    }


def _line(number: int, updates: int, numbers: Mapping[str, float], policy: LearnedScale) -> str:
    """One update in a line."""
    shares = " ".join(f"{numbers[f'share_{share:g}']:.2f}" for share in policy.shares)
    return (
        f"update {number}/{updates}  reward {numbers['reward']:.3f}  aim {numbers['aim']:.3f} "
        f"(plain {numbers['aim_of_plain']:.3f})  penalty {numbers['penalty']:.3f}  "
        f"mean scale {numbers['mean_scale']:.2f}  drawn {shares}"
    )

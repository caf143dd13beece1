"""Trains a student. The state is saved after every round, so a killed training goes on from there.

A round has these parts:

1. Sample texts for all its steps: plain ones, guided ones, or those of the student as it is now.
2. At each step draw a guidance scale, ask the teacher for its distributions, and change the LoRA.
3. Save the LoRA, the optimiser and the costs in one file.

Samples, scales and prompts are functions of the seed and of the numbers of step and round. So a training that
goes on after a kill ends with the same weights as one that was never interrupted.
"""

from __future__ import annotations

import io
import time
from dataclasses import dataclass, field
from typing import Any, cast

import torch
from rich.console import Console
from torch import Tensor, nn

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.errors import StoreError
from cfg_lab.learning.lora import TrainedLora
from cfg_lab.learning.losses import distillation_loss, gft_loss
from cfg_lab.learning.student_plan import StudentPlan
from cfg_lab.learning.student_texts import (
    Lesson,
    SampledText,
    as_language_model,
    lessons,
    prompts_of_round,
    sample,
)
from cfg_lab.models.student import as_base, strength_at
from cfg_lab.study.progress import ProgressBar
from cfg_lab.track import Tracker
from cfg_lab.track.progress import SafeProgressLog, open_progress

STATE_FILE = "training.pt"
"""Name of the file with the state of an unfinished training."""

_SHARE_OF_WARM_UP = 0.05
_LARGEST_GRADIENT = 1.0


@dataclass(kw_only=True)
class TrainingState:
    """How far a training is.

    Attributes:
        round: number of finished rounds.
        began: when the training began, in seconds since 1970.
        seconds: time that finished rounds took.
        texts, tokens: number of texts that were sampled, and of their tokens.
        steps: one row of numbers per step: scale, loss and kl.
        lora, optimizer: the states of the LoRA and of the optimiser; None at the beginning.
    """

    training: dict[str, Any]
    round: int = 0
    began: float = field(default_factory=time.time)
    seconds: float = 0.0
    texts: int = 0
    tokens: int = 0
    steps: list[dict[str, float]] = field(default_factory=list[dict[str, float]])
    lora: dict[str, Tensor] | None = None
    optimizer: dict[str, Any] | None = None


def read_state(plan: StudentPlan) -> TrainingState | None:
    """The saved state of an unfinished training; None if there is none.

    Raises:
        StoreError: the file is damaged.
    """
    file = plan.store.root / STATE_FILE
    if not file.is_file():
        return None
    try:
        return TrainingState(**torch.load(file, weights_only=True, map_location=plan.model.device))
    except Exception as error:  # a damaged file raises errors of many classes
        raise StoreError(f"{file} is damaged; delete it to begin the training again") from error


def train(plan: StudentPlan, state: TrainingState, tracker: Tracker, console: Console) -> TrainedLora:
    """Train the student from `state` on, and return its LoRA. `state` is changed and saved."""
    settings = plan.settings
    lora = TrainedLora(as_base(plan.model).load(), rank=settings.rank, seed=settings.seed)
    optimizer = torch.optim.AdamW(lora.parameters, lr=settings.learning_rate, weight_decay=0.0)
    if state.lora is not None and state.optimizer is not None:
        lora.load_state(state.lora)
        optimizer.load_state_dict(state.optimizer)
    left = settings.steps - len(state.steps)
    log = open_progress(tracker, plan.name, "training", plan.store.root, state.began)
    with log, ProgressBar(console, "training", left, "steps") as bar:
        for number in range(state.round, settings.rounds):
            began = time.monotonic()
            texts = _texts(plan, number, lora)
            _train_round(plan, state, lora, optimizer, number, texts, log, bar)
            state.round = number + 1
            state.seconds += time.monotonic() - began
            state.texts += len(texts)
            state.tokens += sum(len(text.tokens) for text in texts)
            state.lora, state.optimizer = lora.state(), optimizer.state_dict()
            buffer = io.BytesIO()
            torch.save(vars(state), buffer)
            plan.store.write_bytes(STATE_FILE, buffer.getvalue())
    return lora


def _train_round(
    plan: StudentPlan,
    state: TrainingState,
    lora: TrainedLora,
    optimizer: torch.optim.Optimizer,
    number: int,
    texts: list[SampledText],
    log: SafeProgressLog,
    bar: ProgressBar,
) -> None:
    """The steps of a round, on its texts."""
    settings = plan.settings
    for place, step in enumerate(settings.steps_of(number)):
        batch = texts[place * settings.batch :][: settings.batch]
        scale = settings.scale_of(step if settings.texts == "plain" else number)
        loss, kl = loss_of(plan, lora, batch, scale)
        optimizer.zero_grad()
        cast("Any", loss).backward()
        nn.utils.clip_grad_norm_(lora.parameters, _LARGEST_GRADIENT)
        for group in optimizer.param_groups:
            group["lr"] = settings.learning_rate * rate_share(step, settings.steps)
        optimizer.step()
        values = {"scale": scale, "loss": loss.item(), "kl": kl}
        state.steps.append(values)
        log.log({"step": step, **values})
        bar.advance(1, note=f"KL(guided‖student) {kl:.4f} at scale {scale:.2f}")


def rate_share(step: int, steps: int) -> float:
    """The share of the learning rate at a step: it rises over the first 5 % of the steps, then falls to 0."""
    warm_up = max(1, round(_SHARE_OF_WARM_UP * steps))
    return min((step + 1) / warm_up, 1 - step / steps)


def loss_of(
    plan: StudentPlan, lora: TrainedLora, batch: list[SampledText], scale: float
) -> tuple[Tensor, float]:
    """The mean loss over all tokens of a batch, and the mean of KL(guided || student), in nats."""
    settings = plan.settings
    lora.set_strength(strength_at(scale, settings.strength))
    logits = lora.logits([(text.prompt.positive, text.tokens) for text in batch])
    losses: list[Tensor] = []
    divergences: list[Tensor] = []
    for text, student, lesson in zip(batch, logits, lessons(plan, batch, scale), strict=True):
        student = student[:, : lesson.guided.shape[1]]
        losses.append(_loss(plan, text, student, lesson, scale))
        with torch.no_grad():
            difference = lesson.guided - student.log_softmax(-1)
            divergences.append((lesson.guided.exp() * difference).sum(-1))
    return torch.cat(losses).mean(), torch.cat(divergences).mean().item()


def _loss(plan: StudentPlan, text: SampledText, student: Tensor, lesson: Lesson, scale: float) -> Tensor:
    """The loss at each token of a text."""
    settings = plan.settings
    if settings.objective == "distil":
        return distillation_loss(student, lesson.guided, lesson.disagreement, settings.compared_tokens)
    sampled = torch.tensor(text.tokens, device=student.device)
    target = sampled if settings.labels == "tokens" else lesson.positive
    # Near its minimum, the loss exceeds the minimum by about KL(guided || student) / scale**2. The factor
    # makes all scales count alike.
    return scale**2 * gft_loss(student, lesson.negatives[:, 0], scale, target)


def _texts(plan: StudentPlan, number: int, lora: TrainedLora) -> list[SampledText]:
    """Sample the texts of a round."""
    settings = plan.settings
    scale = settings.scale_of(number)
    decoder = Decoder(plan.model, "auto", plan.other_models)
    if settings.texts == "student":
        merged = lora.merged(strength_at(scale, settings.strength))
        decoder = Decoder(as_language_model(merged, plan.model))
    guided_at = scale if settings.texts == "guided" else None
    return sample(
        decoder,
        [(prompt, plan.request(prompt, turn, guided_at)) for prompt, turn in prompts_of_round(plan, number)],
    )

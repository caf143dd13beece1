"""Tunes a model on a reward by GRPO (arXiv:2402.03300) of TRL, with texts that the lab's decoder samples.

TRL samples with transformers' `generate`, which is slow on a CPU. So its hook `rollout_func` decodes with a
merged copy of the model instead. The advantage of a text is its reward minus the mean reward of the texts of
the same prompt, not divided by their deviation (arXiv:2503.20783).
"""

from __future__ import annotations

import copy
import shutil
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import datasets
import numpy as np
import trl

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.learning.lora import lora_settings
from cfg_lab.learning.student_texts import as_language_model
from cfg_lab.learning.tuning_plan import TuningPlan
from cfg_lab.metrics.text import Text
from cfg_lab.models.student import as_base
from cfg_lab.study.progress import ProgressBar
from cfg_lab.track.progress import SafeProgressLog

_TRL: Any = trl  # type checkers do not see the names that it imports lazily

CHECKPOINTS = "checkpoints"
"""Name of the folder with the states of an unfinished training."""

_LOGGED = {
    "reward": "reward",
    "reward_std": "reward_deviation",
    "kl": "kl",
    "loss": "loss",
    "entropy": "entropy",
}
"""Name in TRL -> name in steps.parquet and in the log."""


def tune_model(
    plan: TuningPlan, log: SafeProgressLog, bar: Callable[[int], ProgressBar]
) -> list[dict[str, float]]:
    """Train from the last saved state on, and write the adapter.

    Args:
        log: is given the numbers of each step.
        bar: opens a progress bar for a number of steps.

    Returns:
        The numbers of each step: step, reward (the mean over the texts), reward_deviation, kl (the mean of
        KL(tuned || base) per token, in nats), loss, entropy.
    """
    checkpoints = plan.store.root / CHECKPOINTS
    last = last_checkpoint(checkpoints)
    settings = plan.settings
    with bar(settings.steps - (0 if last is None else int(last.name.partition("-")[2]))) as shown:
        trainer = _trainer(plan, checkpoints, _Progress(log, shown))
        trainer.train(resume_from_checkpoint=None if last is None else str(last))
    unfinished = plan.folder.with_name(f".{plan.folder.name}.tmp")
    shutil.rmtree(unfinished, ignore_errors=True)
    trainer.model.save_pretrained(unfinished, save_embedding_layers=False)
    (unfinished / "README.md").unlink(missing_ok=True)  # peft's card has no content
    unfinished.rename(plan.folder)
    return _steps(trainer.state.log_history)


def last_checkpoint(folder: Path) -> Path | None:
    """The last state that was saved whole; None if there is none. States that are not whole are deleted."""
    whole: dict[int, Path] = {}
    for path in folder.glob("checkpoint-*"):
        if (path / "trainer_state.json").is_file():  # TRL writes this file last
            whole[int(path.name.partition("-")[2])] = path
        else:
            shutil.rmtree(path)
    return whole[max(whole)] if whole else None


def _trainer(plan: TuningPlan, checkpoints: Path, progress: _Progress) -> Any:
    """The trainer of TRL."""
    settings = plan.settings
    on_cpu = plan.model.device.type == "cpu"
    # The prompt of a row is the number of the prompt: the lab's own encoding makes the token ids.
    rows = [{"prompt": str(number)} for number in range(len(plan.prompts))]
    arguments: Any = _TRL.GRPOConfig(
        output_dir=str(checkpoints),
        per_device_train_batch_size=settings.batch,
        num_generations=settings.generations,
        max_completion_length=settings.max_new_tokens,
        max_steps=settings.steps,
        learning_rate=settings.learning_rate,
        beta=settings.beta,
        temperature=1.0,
        scale_rewards="none",
        loss_type="dr_grpo",
        seed=settings.seed,
        logging_steps=1,
        save_steps=settings.steps_per_save,
        save_total_limit=2,
        report_to="none",
        disable_tqdm=True,
        use_cpu=on_cpu,
        bf16=False,
        gradient_checkpointing=False,
        dataloader_pin_memory=False,
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # `rollout_func` may change; the version of trl is bounded
        trainer: Any = _TRL.GRPOTrainer(
            model=as_base(plan.model).load(),
            reward_funcs=_rewards(plan),
            args=arguments,
            train_dataset=datasets.Dataset.from_list(rows),
            processing_class=plan.model.tokenizer,
            peft_config=lora_settings(settings.rank),
            rollout_func=_rollout(plan),
            callbacks=[cast("Any", progress)],
        )
    for callback in list(trainer.callback_handler.callbacks):
        if type(callback).__name__ == "PrinterCallback":  # prints the numbers of each step as a dict
            trainer.remove_callback(callback)
    return trainer


def _rollout(plan: TuningPlan) -> Callable[[list[str], Any], dict[str, Any]]:
    """TRL's hook that samples one text for each prompt of a step."""

    def sample(prompts: list[str], trainer: Any) -> dict[str, Any]:
        merged = copy.deepcopy(trainer.accelerator.unwrap_model(trainer.model)).merge_and_unload()
        decoder = Decoder(as_language_model(merged.eval(), plan.model))
        step, per_step = trainer.state.global_step, len(prompts)
        # The sample number differs between all texts of all steps, so that no two have the same noise.
        requests = [
            plan.request(plan.prompts[int(number)], step * per_step + place)
            for place, number in enumerate(prompts)
        ]
        done = {id(completion.request): completion for completion in decoder.decode(requests)}
        completions = [done[id(request)] for request in requests]
        return {
            "prompt_ids": [list(request.positive) for request in requests],
            "completion_ids": [list(completion.tokens) for completion in completions],
            "logprobs": [list(completion.trace.columns["positive"]) for completion in completions],
            "log_probs": [list(completion.trace.columns["positive"]) for completion in completions],
        }

    return sample


def _rewards(plan: TuningPlan) -> Callable[..., list[float]]:
    """TRL's reward function: the aim of each text. If it has no score, the lowest reward of the step."""

    def aim(
        prompts: Sequence[str],
        completion_ids: Sequence[Sequence[int]],
        log_probs: Sequence[Sequence[float]],
        **_: Any,
    ) -> list[float]:
        texts = [
            as_text(plan, int(number), tuple(tokens), values)
            for number, tokens, values in zip(prompts, completion_ids, log_probs, strict=True)
        ]
        rewards = plan.aim.rewards(texts)
        lowest = 0.0 if np.isnan(rewards).all() else float(np.nanmin(rewards))
        return np.nan_to_num(rewards, nan=lowest).tolist()

    return aim


def as_text(plan: TuningPlan, number: int, tokens: tuple[int, ...], log_probs: Sequence[float]) -> Text:
    """A sampled text as metrics see it."""
    ended = tokens[-1] in plan.model.stop_ids
    words = tokens[:-1] if ended else tokens
    return Text(
        id="",
        prompt=plan.prompts[number],
        text=plan.model.decode(words),
        tokens=tokens,
        log_probs=tuple(log_probs[: len(words)]),
        finish_reason="stop" if ended else "length",
    )


class _Progress:
    """A callback of TRL's trainer that shows and logs each step."""

    def __init__(self, log: SafeProgressLog, bar: ProgressBar) -> None:
        self.log, self.bar = log, bar

    def on_log(self, _arguments: Any, state: Any, _control: Any, logs: Mapping[str, Any], **_: Any) -> None:
        """Called after each step with TRL's numbers."""
        values = _numbers(logs)
        if "reward" not in values:
            return  # the numbers of the whole training
        self.log.log({"step": state.global_step, **values})
        self.bar.advance(1, note=f"reward {values['reward']:.3f}, KL {values.get('kl', 0):.3f}")

    def __getattr__(self, name: str) -> Callable[..., None]:
        if name.startswith("on_"):  # other events
            return lambda *_, **__: None
        raise AttributeError(name)


def _numbers(logs: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a step that are kept, by their names in the lab."""
    return {name: float(logs[key]) for key, name in _LOGGED.items() if key in logs}


def _steps(history: Sequence[Mapping[str, Any]]) -> list[dict[str, float]]:
    """The numbers of all steps, also of those before an interruption."""
    return [{"step": logs["step"], **_numbers(logs)} for logs in history if "reward" in logs]

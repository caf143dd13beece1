"""The command `python -m cfg_lab.learn policy`: train a learned scale, write it to a file, and check it."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console

from cfg_lab.decoding.decoder import Decoder
from cfg_lab.errors import InputError
from cfg_lab.guidance.policy import LearnedScale, describe, policy_as_json
from cfg_lab.learning.policy_network import PolicyNetwork
from cfg_lab.learning.policy_settings import PolicySettings, check_guidance
from cfg_lab.learning.policy_training import new_state, train
from cfg_lab.learning.policy_validation import check_policy, differences
from cfg_lab.models import LanguageModel
from cfg_lab.study.aim import check_per_text, parse_aim
from cfg_lab.study.build import canonical_config
from cfg_lab.study.cell import Cell
from cfg_lab.study.config import build, plain_config
from cfg_lab.study.console import fitting_table, open_console, print_paths, show_warnings
from cfg_lab.study.plan import plan
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.provenance import command_line, environment_file
from cfg_lab.study.results_folder import results_folder, study_name
from cfg_lab.study.run import summary_of
from cfg_lab.study.scoring import prepare_metrics
from cfg_lab.study.store import Store
from cfg_lab.track.progress import open_progress

_OF_CHECK = (
    "name",
    "results_root",
    "tracking",
    "report",
    "samples",
    "top",
    "max_rows",
    "cuda_graphs",
    "updates",
)
"""Keys that do not change what an update does."""


def learn_policy(config: Any) -> None:
    """Train a policy, write policy.json, and decode the check. Everything is checked before it is written.

    Args:
        config: the composed config conf/learn_policy.yaml.

    Raises:
        InputError: a value in the config is wrong; nothing was written.
    """
    console = open_console()
    show_warnings(console)
    plain = plain_config(config)
    settings = PolicySettings.of(plain)
    name = study_name(plain.get("name"))
    folder = results_folder(plain.get("results_root"), name)
    guidance, sampling, negatives = (build(config, key) for key in ("guidance", "sampling", "negatives"))
    check_guidance(guidance, sampling)
    if plain["prompts"].get("half") != "selection":
        raise InputError(
            "prompts.half must be selection, so that the check has prompts that training did not see, "
            f"got {plain['prompts'].get('half')!r}"
        )
    if plain.get("stop"):
        raise InputError(f"stop must be [] to train a policy, got {plain['stop']!r}")
    metrics = list(build(config, "metrics").values()) if plain.get("metrics") else []
    aim = parse_aim(plain.get("aim"), metrics)
    check_per_text(aim)
    tracker = build(config, "tracking")
    model: LanguageModel = build(config, "model")()
    cell = Cell(
        identity="", settings={}, label={}, model_key="", model=lambda: model, negatives=negatives,
        guidance=guidance, prompts=build(config, "prompts"), sampling=sampling, seed=settings.seed,
        samples=1, max_new_tokens=plain["max_new_tokens"], top=0,
    )  # fmt: skip
    planned: list[PlannedText] = list(plan(cell, model, plain["max_rows"]))
    trained = {key: value for key, value in plain.items() if key not in _OF_CHECK}
    identity = json.dumps([canonical_config(trained), model.fingerprint], sort_keys=True)
    state = new_state(settings)
    is_resumed = state.read(folder, identity)
    if len(state.history) > settings.updates:
        raise InputError(
            f"updates must be at least {len(state.history)}, because {folder} has so many, "
            f"got {settings.updates}"
        )
    prepare_metrics(metrics)
    store, command = Store(folder), command_line("cfg_lab.learn", "policy")
    store.check_version()
    store.check_writable()
    if not is_resumed:
        store.write_text("training.yaml", yaml.safe_dump({"command": command, **plain}, sort_keys=False))
        store.write_text("environment.json", environment_file())
    other_models: dict[str, LanguageModel] = negatives.other_models()
    decoder = Decoder(model, plain["max_rows"], other_models, cuda_graphs="off")

    def as_policy(network: PolicyNetwork) -> LearnedScale:
        hidden, output = network.matrices()
        return LearnedScale(
            shares=settings.shares,
            hidden=hidden,
            output=output,
            length=cell.max_new_tokens,
            rule=describe(guidance),
            trained_scale=float(guidance.scale),
        )

    console.print(
        f"training on {len(planned)} prompts of the selection half; results go to {folder}",
        markup=False, highlight=False, soft_wrap=True,
    )  # fmt: skip
    with open_progress(tracker, name, "policy", folder, state.began) as progress:
        train(
            state, settings, planned, {None: model, **other_models}, decoder,
            aim=aim, as_policy=as_policy, folder=folder, identity=identity, console=console, log=progress.log,
        )  # fmt: skip
    model.unload()
    notes = {
        "command": command,
        "aim": plain["aim"],
        "penalty": f"{settings.strength:g} * {settings.penalty}",
        "model": model.name,
        "model_fingerprint": model.fingerprint,
        "prompts": f"{config.hydra.runtime.choices['prompts']}, selection half, {len(planned)} prompts",
        "negatives": config.hydra.runtime.choices["negatives"],
        "updates": len(state.history),
        "texts": len(planned) and sum(_texts(settings, len(planned)) for _ in state.history),
        "tokens": int(sum(numbers["tokens"] for numbers in state.history)),
        "seconds": round(state.seconds),
    }
    path = store.write_text("policy.json", policy_as_json(as_policy(state.network), notes))
    _check(config, path, command, aim.column, notes, console)


def _texts(settings: PolicySettings, prompts: int) -> int:
    """Number of texts of an update, those without guidance included."""
    return min(settings.prompts_per_update, prompts) * (settings.rollouts + 1)


def _check(
    config: Any, policy: Path, command: str, column: str, notes: dict[str, Any], console: Console
) -> None:
    """Decode the check, and print the summary, the differences, what training cost, and all paths."""
    began = time.monotonic()
    study, results = check_policy(config, policy, command, console)
    rows: list[dict[str, Any]] = summary_of(study).to_dict("records")  # pyright: ignore[reportAssignmentType]
    columns = [column, "kl_from_plain", "perplexity", "leakage"]
    shown = [name for name in dict.fromkeys(columns) if name in results]
    console.print(fitting_table([cell.label for cell in study.cells], rows, shown, console))
    for sentence in differences(study, results, column):
        console.print(sentence, markup=False, highlight=False, soft_wrap=True)
    console.print(
        f"training cost {notes['texts']} texts, {notes['tokens']:,} tokens and {notes['seconds']} s, the "
        f"check {time.monotonic() - began:.0f} s",
        highlight=False,
    )
    scale = config.guidance.scale
    for line in (
        "to decode with it: python -m cfg_lab.sweep guidance/adaptive=policy "
        f"guidance.adaptive.path={policy} guidance.scale={scale:g}",
    ):
        console.print(line, markup=False, highlight=False, soft_wrap=True)
    paths = {"results": study.store.root, "policy": policy}
    if config.report:
        from cfg_lab.report.write import read_study, write_page

        page = study.store.root / "report.html"
        write_page(read_study(study.store.root), study.store, page)
        paths["page"] = page
    print_paths(console, paths)

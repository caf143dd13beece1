"""The main job, `python -m cfg_lab.sweep`: a grid of Hydra overrides, decoded as one batch.

Hydra's sweeper expands `a=1,2 b=x,y`; the launcher in hydra_plugins hands all points to `run` at once.
"""

from __future__ import annotations

import json
import platform
import re
import shlex
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import hydra
import yaml
from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf

from cfg_lab.console import fitting_table, open_console, say_paths, show_warnings
from cfg_lab.paths import CONFIG, option_names
from cfg_lab.records import InputError

if TYPE_CHECKING:
    from cfg_lab.planning import Cell, Study

GROUPS = ("model", "prompts", "negatives", "guidance", "sampling")
"""Config groups that make a cell; metrics and tracking belong to the whole sweep."""

ALONE = ("seed", "samples", "max_new_tokens", "top")

SHARED = ("name", "results_root", "max_rows", "metrics", "tracking", "report")


@hydra.main(config_path=str(CONFIG), config_name="sweep", version_base="1.3")
def main(config: DictConfig) -> None:
    """One cell alone: what launchers other than ours call, such as hydra/launcher=basic."""
    run_or_exit([config], [[]])


def run_or_exit(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Run the cells; errors a user can mend are said in a sentence."""
    with errors_in_a_sentence():
        return run(configs, overrides)


@contextmanager
def errors_in_a_sentence() -> Generator[None]:
    """Errors a user can mend are said without a traceback, and end the program."""
    from cfg_lab.decoding import NotANumberError
    from cfg_lab.store import StoreError
    from cfg_lab.tracking import TrackingError

    errors = open_console(stderr=True)
    try:
        yield
    except (InputError, NotANumberError, StoreError, TrackingError) as error:
        errors.print("error:", style="bold red", end=" ")
        errors.print(str(error), markup=False, highlight=False, soft_wrap=True)
        sys.exit(2)
    except KeyboardInterrupt:
        errors.print("\nstopped. What was finished is kept; the same command goes on from there.")
        sys.exit(130)


def run(configs: Sequence[DictConfig], overrides: Sequence[Sequence[str]]) -> list[dict[str, Any]]:
    """Decode, score and keep every cell, show a table, and return its rows.

    Args:
        configs: of each cell, composed.
        overrides: of each cell, "key=value"; those that differ between cells label them.
    """
    from cfg_lab.harness import run as run_study
    from cfg_lab.mirror import mirror
    from cfg_lab.scoring import first_columns
    from cfg_lab.tracking import TrackingError

    console = open_console()
    show_warnings(console)
    study = _study(configs, _labels(overrides))
    console.print(f"[bold]{study.name}[/]: {len(study.cells)} cells", highlight=False)
    summary = run_study(study, console)
    rows = cast("list[dict[str, Any]]", summary.to_dict("records"))
    labels = [cell.label for cell in study.cells]
    console.print(fitting_table(labels, rows, first_columns(study.metrics), console))
    root = study.store.root
    page = None
    if configs[0].report:
        from cfg_lab.report import report

        page = report(root)
    try:
        mirror(study.store, study.tracker, console, page)
    except TrackingError as error:
        again = (
            f"the results are on disk all the same; try again with: python -m cfg_lab.track {root} "
            "(without a network: tracking.mode=offline)"
        )
        console.print(f"{error}; {again}", style="yellow", markup=False, highlight=False, soft_wrap=True)
    paths = {"results": root, "summary": root / "summary.parquet", "W&B": root / "wandb"}
    say_paths(console, paths | ({"page": page} if page else {}))
    return rows


def composed(group: str, overrides: Sequence[str], program: str) -> DictConfig:
    """The sweep's config with overrides of one group.

    Raises:
        InputError: an override is of something else, or wrong.
    """
    for override in overrides:
        if not override.lstrip("+~").startswith((f"{group}=", f"{group}.")):
            raise InputError(f"{program} takes {group}=… and {group}.…=… only; got {override!r}")
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            return compose("sweep", overrides=list(overrides))
    except HydraException as error:
        said = re.split("Config search path|Available options", str(error))[0].strip()
        said = said.removeprefix("In 'sweep': ").rstrip(".")
        raise InputError(f"{said} ({group} can be {', '.join(option_names(group))})") from error


def _study(configs: Sequence[DictConfig], labels: Sequence[Mapping[str, str]]) -> Study:
    """The objects that configs describe. Equal parts of configs become one object."""
    from cfg_lab.planning import Study
    from cfg_lab.store import Store

    first = configs[0]
    varied = {key.partition(".")[0] for label in labels for key in label}
    for key in SHARED:
        if key in varied:
            raise InputError(f"{key} cannot vary within a sweep; run one sweep for each")
    parts: dict[str, Any] = {}
    return Study(
        name=str(first.name),
        cells=[_cell(config, label, parts) for config, label in zip(configs, labels, strict=True)],
        metrics=list(described(first, "metrics").values()) if first.get("metrics") else [],
        store=Store(Path(str(first.results_root)) / str(first.name)),
        tracker=described(first, "tracking"),
        max_rows=first.max_rows,
        command=_command(),
        record={"config.yaml": _config_record(first, labels), "environment.json": _environment()},
    )


def _cell(config: DictConfig, label: Mapping[str, str], parts: dict[str, Any]) -> Cell:
    from cfg_lab.planning import Cell

    for group in GROUPS:
        if not OmegaConf.is_dict(config.get(group)):
            raise InputError(f"{group} must be one of {', '.join(option_names(group))}, got nothing")
    plain: dict[str, Any] = {group: OmegaConf.to_container(config[group], resolve=True) for group in GROUPS}
    scale = plain["guidance"].get("scale")
    if isinstance(scale, float) and scale.is_integer():
        plain["guidance"]["scale"] = int(scale)  # 2.0 is the cell of 2
    keys = {group: f"{group} {values}" for group, values in plain.items()}
    for group, key in keys.items():
        if key not in parts:
            parts[key] = described(config, group)
    alone = {key: config[key] for key in ALONE}
    settings = _settings(config, plain)
    return Cell(
        identity=f"{list(keys.values())} {settings}",
        settings=settings,
        label=label,
        model_key=keys["model"],
        **{group: parts[key] for group, key in keys.items()},
        **alone,
        stop=tuple(config.stop),
    )


def _settings(config: DictConfig, plain: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's config as flat columns: the chosen options, and every plain value under its dotted key."""
    choices: Mapping[str, str] = config.hydra.runtime.choices
    settings: dict[str, Any] = {group: choices[group] for group in GROUPS}
    for group in GROUPS:
        settings |= {
            key.replace("/", "."): choice for key, choice in choices.items() if key.startswith(f"{group}/")
        }
        settings |= dict(_flat(group, plain[group]))
    return settings | {key: config[key] for key in ALONE} | {"stop": json.dumps(list(config.stop))}


def _flat(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Every plain value under its dotted key, lists of plain values as JSON."""
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}.{key}", cast("dict[str, Any]", value))
        elif isinstance(value, list):
            values = cast("list[Any]", value)
            if not any(isinstance(one, dict | list) for one in values):
                yield f"{prefix}.{key}", json.dumps(values)
        elif not str(key).startswith("_"):
            yield f"{prefix}.{key}", value


def described(config: DictConfig, key: str) -> Any:
    """The object a config node describes; what is wrong with its values is an InputError."""
    try:
        made = instantiate(config[key], _convert_="all")
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} has no value yet; set {error.full_key}=…") from error
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from error
        if isinstance(cause, MissingMandatoryValue):
            raise InputError(f"{cause.full_key} has no value yet; set {cause.full_key}=…") from error
        raise InputError(f"{key}: {cause or str(error).splitlines()[0]}") from error
    for missing in sorted(OmegaConf.missing_keys(config[key])):  # of what is called later
        raise InputError(f"{missing} has no value yet; set {missing}=…")
    return made


def _labels(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
    """Those overrides of each cell that differ between cells."""
    parsed = [
        dict(override.lstrip("+~").split("=", 1) for override in some if "=" in override)
        for some in overrides
    ]
    varying = [key for key in parsed[0] if len({cell.get(key) for cell in parsed}) > 1]
    return [{key: cell[key] for key in varying if key in cell} for cell in parsed]


def _config_record(config: DictConfig, labels: Sequence[Mapping[str, str]]) -> str:
    keys = [str(key) for key in config if key != "hydra"]
    plain = OmegaConf.to_container(OmegaConf.masked_copy(config, keys), resolve=True)
    return yaml.safe_dump(
        {"command": _command(), "cells": list(map(dict, labels)), "first_cell": plain}, sort_keys=False
    )


def _command() -> str:
    """The line that runs this, as a shell takes it."""
    return shlex.join(["python", "-m", "cfg_lab.sweep", *sys.argv[1:]])


def _environment() -> str:
    """What a reader needs to repeat the numbers: versions, revision, machine."""
    revision = subprocess.run(
        ["git", "rev-parse", "HEAD"], cwd=Path(__file__).parent, capture_output=True, text=True, check=False
    )
    return json.dumps(
        {
            "started": datetime.now(UTC).isoformat(timespec="seconds"),
            "python": platform.python_version(),
            "platform": platform.platform(),
            "processor": platform.processor() or platform.machine(),
            "git_revision": revision.stdout.strip() or None,
            "packages": dict(sorted((one.metadata["Name"], one.version) for one in distributions())),
        },
        indent=1,
    )


if __name__ == "__main__":
    cast("Callable[[], None]", main)()

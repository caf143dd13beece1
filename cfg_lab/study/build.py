"""From composed Hydra configs to a study: its cells, and what names each of them."""

from __future__ import annotations

import inspect
import json
import platform
import shlex
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path
from typing import Any, cast, get_type_hints

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig, OmegaConf

from cfg_lab.analysis.frame import PLAIN_SETTINGS, SETTING_GROUPS
from cfg_lab.decoding.identity import canonical
from cfg_lab.errors import InputError
from cfg_lab.options import option_names
from cfg_lab.study.cell import Cell, Study
from cfg_lab.study.config import build
from cfg_lab.study.store import IDENTITY_VERSION, Store

SINGLE_VALUES = tuple(name for name in PLAIN_SETTINGS if name not in (*SETTING_GROUPS, "stop"))
"""Settings of a cell that are one number each."""

SHARED = ("name", "results_root", "max_rows", "metrics", "tracking", "report")
"""Keys that belong to the whole sweep and cannot vary within it."""


def build_study(configs: Sequence[DictConfig], labels: Sequence[Mapping[str, str]]) -> Study:
    """The study that composed configs describe, one cell each. Equal parts of configs become one object.

    Args:
        labels: for each cell, the settings that tell it from the others.
    """
    first = configs[0]
    varied = {key.partition(".")[0] for label in labels for key in label}
    for key in SHARED:
        if key in varied:
            raise InputError(f"{key} cannot vary within a sweep; run one sweep for each")
    parts: dict[str, Any] = {}
    return Study(
        name=str(first.name),
        cells=[_cell(config, label, parts) for config, label in zip(configs, labels, strict=True)],
        metrics=list(build(first, "metrics").values()) if first.get("metrics") else [],
        store=Store(Path(str(first.results_root)) / str(first.name)),
        max_rows=first.max_rows,
        command=_command(),
        record={"config.yaml": _config_record(first, labels), "environment.json": _environment()},
    )


def _cell(config: DictConfig, label: Mapping[str, str], parts: dict[str, Any]) -> Cell:
    for group in SETTING_GROUPS:
        if not OmegaConf.is_dict(config.get(group)):
            raise InputError(f"{group} must be one of {', '.join(option_names(group))}, got nothing")
    plain: dict[str, Any] = {
        group: OmegaConf.to_container(config[group], resolve=True) for group in SETTING_GROUPS
    }
    scale = plain["guidance"].get("scale")
    if isinstance(scale, float) and scale.is_integer():
        plain["guidance"]["scale"] = int(scale)  # 2.0 is the cell of 2
    settings = _settings(config, plain)
    # With the option's name: who compares two options expects two cells, also where they come to the same.
    keys = {
        group: json.dumps([group, settings[group], canonical_config(node)]) for group, node in plain.items()
    }
    for group, key in keys.items():
        if key not in parts:
            parts[key] = build(config, group)
    single_values = {key: config[key] for key in SINGLE_VALUES}
    stop = tuple(config.stop)
    return Cell(
        identity=json.dumps([IDENTITY_VERSION, *keys.values(), single_values, stop]),
        settings=settings,
        label=label,
        model_key=keys["model"],
        **{group: parts[key] for group, key in keys.items()},
        **single_values,
        stop=stop,
    )


def canonical_config(node: Any) -> Any:
    """The part of a config node that decides the texts: equal data for nodes that describe equal objects.

    A call (`_target_`) is reduced to the name of what it calls and the arguments that differ from their
    defaults. So a cell keeps its id when a YAML file gains a key with the default value, and when a class
    moves to another module.
    """
    if isinstance(node, list):
        return [canonical_config(item) for item in cast("list[Any]", node)]
    if isinstance(node, float) and node.is_integer():
        return int(node)
    if not isinstance(node, dict):
        return node
    values = cast("dict[str, Any]", node)
    target = values.get("_target_")
    arguments = {
        str(key): canonical_config(value)
        # The order of arguments has no effect; that of other mappings may: modifiers act in this order.
        for key, value in (values.items() if target is None else sorted(values.items()))
        if not str(key).startswith("_")
    }
    if target is None:
        return arguments
    defaults = _defaults(get_object(target))
    changed = {name: value for name, value in arguments.items() if not _equal(value, defaults.get(name))}
    return [target.rpartition(".")[2], changed]


def _defaults(call: Any) -> dict[str, Any]:
    """Default of every argument of a call. Arguments in `**arguments` go to the class of its result."""
    parameters = inspect.signature(call).parameters.values()
    defaults = {parameter.name: parameter.default for parameter in parameters}
    if any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters):
        result = get_type_hints(call).get("return")
        defaults = {**_defaults(result), **defaults} if isinstance(result, type) else defaults
    return defaults


def _equal(value: Any, default: Any) -> bool:
    """Whether canonical data describe a default value, which may be an object: `Constant()`."""
    if isinstance(value, dict):  # modifiers by name, whose default is a tuple
        return list(cast("dict[str, Any]", value).values()) == canonical(default)
    if is_dataclass(default) and isinstance(value, list):
        return value == canonical(default)
    return type(default) in (str, bool, int, float, type(None), tuple) and value == canonical(default)


def _settings(config: DictConfig, plain: Mapping[str, Any]) -> dict[str, Any]:
    """A cell's config as flat columns: the chosen options, and every plain value under its dotted key."""
    choices: Mapping[str, str] = config.hydra.runtime.choices
    settings: dict[str, Any] = {group: choices[group] for group in SETTING_GROUPS}
    for group in SETTING_GROUPS:
        settings |= {
            key.replace("/", "."): choice for key, choice in choices.items() if key.startswith(f"{group}/")
        }
        settings |= dict(_flat(group, plain[group]))
    # Hydra's choices leave out groups of which several options are chosen.
    modifiers: Mapping[str, Any] = plain["guidance"].get("modifiers") or {}
    settings["guidance.modifiers"] = f"[{','.join(modifiers)}]"
    return settings | {key: config[key] for key in SINGLE_VALUES} | {"stop": json.dumps(list(config.stop))}


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


def labels_of(overrides: Sequence[Sequence[str]]) -> list[dict[str, str]]:
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

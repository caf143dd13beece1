"""Builds a study from composed Hydra configs.

The study has cells, each with an id and settings. It also has provenance: files that record how it was run.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import is_dataclass
from typing import Any, cast

import yaml
from hydra.utils import get_object
from omegaconf import DictConfig

from cfg_lab.analysis.frame import SETTING_GROUPS
from cfg_lab.decoding.decoder import CudaGraphs
from cfg_lab.decoding.identity import canonical, class_name
from cfg_lab.decoding.row_limit import MaxRows
from cfg_lab.errors import InputError
from cfg_lab.prompts import written_out
from cfg_lab.study.arguments import HYDRA_KEYS, parameters
from cfg_lab.study.cell import Cell, Study
from cfg_lab.study.config import build, check_option, nearest, plain_config
from cfg_lab.study.provenance import command_line, environment_file
from cfg_lab.study.results_folder import results_folder, study_name
from cfg_lab.study.stop_strings import stop_strings
from cfg_lab.study.store import IDENTITY_VERSION, Store

SINGLE_VALUES = ("seed", "samples", "max_new_tokens", "top")
"""Settings of a cell that are one number each."""

SWEEP_KEYS = ("name", "results_root", "max_rows", "cuda_graphs", "metrics", "tracking", "report")
"""Config keys that must have the same value in all cells of a sweep."""


def build_study(
    configs: Sequence[DictConfig], labels: Sequence[Mapping[str, str]], command: str | None = None
) -> Study:
    """Build a study from composed configs, with one cell per config.

    Args:
        configs: for each cell its config. The node `hydra.runtime.choices` names the chosen options.
        labels: for each cell, the overrides in which the cell differs from other cells, as key -> value.
        command: the command line to store in the results. None means the command line of this process.

    Raises:
        InputError: a value in a config is wrong.
    """
    first = configs[0]
    check_shared_keys(labels, SWEEP_KEYS)
    plain = plain_config(first)
    check_keys(plain, (*SWEEP_KEYS, *SETTING_GROUPS, *SINGLE_VALUES, "stop"))
    name = study_name(plain.get("name"))
    root = results_folder(plain.get("results_root"), name)
    command = command_line() if command is None else command
    shared: dict[str, Any] = {}
    graphs = plain.get("cuda_graphs")  # YAML reads the word off as False
    return Study(
        name=name,
        cells=[_cell(config, label, shared) for config, label in zip(configs, labels, strict=True)],
        metrics=list(build(first, "metrics").values()) if plain.get("metrics") not in (None, {}) else [],
        store=Store(root),
        max_rows=cast("MaxRows", plain.get("max_rows")),
        cuda_graphs="off" if graphs is False else cast("CudaGraphs", graphs),
        command=command,
        provenance={
            "config.yaml": config_file(plain, labels, command),
            "environment.json": environment_file(),
        },
    )


def check_shared_keys(labels: Sequence[Mapping[str, str]], keys: Sequence[str]) -> None:
    """Check that no key varies which must have the same value in all cells.

    Args:
        labels: for each cell, the overrides in which the cell differs from other cells.
        keys: the keys that must not vary.
    """
    varied = {key.partition(".")[0] for label in labels for key in label}
    for key in keys:
        if key in varied:
            raise InputError(f"{key} cannot vary within a sweep; run one sweep for each")


def check_keys(plain: Mapping[str, Any], keys: Sequence[str]) -> None:
    """Check the keys of a config, and the value of `report`, which no class takes.

    Args:
        plain: the config as dicts, lists and plain values.
        keys: the keys that a config can have.
    """
    for key, value in plain.items():
        if key not in keys:
            raise InputError(
                f"{key} is not a config key (got {value!r}){nearest(key, keys)}; "
                f"the keys are {', '.join(keys)}"
            )
    if not isinstance(plain.get("report"), bool):
        raise InputError(f"report must be true or false, got {plain.get('report')!r}")


def _cell(config: DictConfig, label: Mapping[str, str], shared: dict[str, Any]) -> Cell:
    """Make the cell that a config describes.

    Args:
        config: the config of the cell.
        label: the settings in which the cell differs from other cells.
        shared: objects of earlier cells, as key -> object. This function adds new objects. Two cells share an
            object if both choose the same option and the config nodes that describe the object are equal.
    """
    values = plain_config(config)
    for group in SETTING_GROUPS:
        check_option(values, group)
    for key in (*SINGLE_VALUES, "stop"):
        if key not in values:
            raise InputError(f"{key} has no value; set +{key}=…")
    stop = stop_strings(values["stop"])
    single_values = {key: values[key] for key in SINGLE_VALUES}
    settings, keys = settings_and_keys(config, {group: values[group] for group in SETTING_GROUPS})
    objects = build_shared(config, keys, shared)
    add_content(settings, keys, objects)
    return Cell(
        identity=json.dumps([IDENTITY_VERSION, *keys.values(), single_values, stop], sort_keys=True),
        settings=settings | single_values | {"stop": json.dumps(stop)},
        label=label,
        model_key=keys["model"],
        **objects,
        **single_values,
        stop=stop,
    )


def settings_and_keys(config: DictConfig, plain: dict[str, Any]) -> tuple[dict[str, Any], dict[str, str]]:
    """The settings of a cell in its config groups, and a text per group that identifies the group's object.

    Args:
        config: the config of the cell.
        plain: for each config group of the cell, its node as dicts and lists.
    """
    scale = plain["guidance"].get("scale")
    if isinstance(scale, float) and scale.is_integer():
        plain["guidance"]["scale"] = int(scale)  # 2.0 and 2 give the same cell, which results show as 2
    if "prompts" in plain:
        plain["prompts"] = written_out(plain["prompts"])
    settings = _settings(config, plain)
    # The option's name is part of the key: a sweep over two options has two cells, even if both describe
    # equal objects.
    keys = {
        group: json.dumps([group, settings[group], canonical_config(node)]) for group, node in plain.items()
    }
    return settings, keys


def build_shared(config: DictConfig, keys: Mapping[str, str], shared: dict[str, Any]) -> dict[str, Any]:
    """The object of each config group, as group -> object. Equal objects of several cells are built once.

    Args:
        config: the config of the cell.
        keys: group -> key, from `settings_and_keys`.
        shared: objects of earlier cells, as key -> object. This function adds new objects.
    """
    for group, key in keys.items():
        if key not in shared:
            shared[key] = build(config, group)
    return {group: shared[key] for group, key in keys.items()}


def add_content(settings: dict[str, Any], keys: dict[str, str], objects: Mapping[str, Any]) -> None:
    """Add what a cell's negative has read from files to the settings and the keys of the cell.

    Args:
        settings, keys: of the cell, from `settings_and_keys`.
        objects: of the cell, from `build_shared`.
    """
    if content := objects["negatives"].content:
        settings["negatives.content"] = content
        keys["negatives"] = json.dumps([keys["negatives"], content])


def canonical_config(node: Any) -> Any:
    """Reduce a config node to JSON data that determine the object of the node. Equal objects give equal data.

    A node with a `_target_` is reduced to the name of the class or function and the arguments that differ
    from their defaults. A cell therefore keeps its id when a YAML file gains a key with the default value,
    when keys change their order, and when a class of this package moves to another module.
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
        # The order of arguments has no effect, so they are sorted. The order of other mappings can have one:
        # modifiers are applied in their order.
        for key, value in (values.items() if target is None else sorted(values.items()))
        if key == "_args_" or key not in HYDRA_KEYS  # `_args_` are positional arguments
    }
    if target is None:
        return arguments
    try:
        called = get_object(target)
        defaults = {name: parameter.default for name, parameter in parameters(called).items()}
    except (ImportError, AttributeError, ValueError, TypeError):  # `build` says what is wrong with it
        return [str(target), arguments]
    changed = {
        name: value
        for name, value in arguments.items()
        if name not in defaults or not _is_default(value, defaults[name])
    }
    return [class_name(called), changed]


def _is_default(value: Any, default: Any) -> bool:
    """Whether a value equals the default value of a parameter. The value is from `canonical_config`.

    The default can be an object, such as a dataclass. The default is converted to JSON data before the
    comparison.
    """
    if isinstance(value, dict):  # modifiers are a mapping by name in a config, and a tuple in the default
        value = list(cast("dict[str, Any]", value).values())
    if is_dataclass(default):
        return value == canonical(default)
    comparable = type(default) in (str, bool, int, float, type(None), tuple)
    return comparable and json.dumps(value) == json.dumps(canonical(default))  # for Python, True equals 1


def _settings(config: DictConfig, plain: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a cell in its config groups, as column name -> value, such as "guidance.scale" -> 1.5.

    Settings are the names of the chosen options, and all plain values of the groups: numbers, texts,
    booleans, None, and lists of these values.

    Args:
        config: the config of the cell.
        plain: for each config group of the cell, the node of the group as dicts and lists.
    """
    choices: Mapping[str, str] = config.hydra.runtime.choices
    settings: dict[str, Any] = {group: choices[group] for group in plain}
    for group in plain:
        settings |= {
            key.replace("/", "."): choice for key, choice in choices.items() if key.startswith(f"{group}/")
        }
        settings |= dict(_flat(group, plain[group]))
    # Hydra's choices leave out groups of which several options are chosen.
    modifiers = cast("dict[str, Any]", plain["guidance"].get("modifiers") or {})
    names = list(map(str, modifiers)) if isinstance(modifiers, dict) else []  # `build` refuses other values
    settings["guidance.modifiers"] = f"[{','.join(names)}]"
    return settings


def _flat(prefix: str, node: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) for every plain value in a part of a config. Keys start with `prefix`.

    Plain values are numbers, texts, booleans and None. Lists of plain values become JSON text.
    """
    for key, value in node.items():
        if isinstance(value, dict):
            yield from _flat(f"{prefix}.{key}", cast("dict[str, Any]", value))
        elif isinstance(value, list):
            values = cast("list[Any]", value)
            if not any(isinstance(item, dict | list) for item in values):
                yield f"{prefix}.{key}", json.dumps(values)
        elif not str(key).startswith("_"):
            yield f"{prefix}.{key}", value


def config_file(config: Mapping[str, Any], labels: Sequence[Mapping[str, str]], command: str) -> str:
    """The content of config.yaml: command, labels of the cells, and the whole config of the first cell."""
    return yaml.safe_dump(
        {"command": command, "cells": list(map(dict, labels)), "first_cell": config}, sort_keys=False
    )

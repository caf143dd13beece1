"""Hydra configs: composing the config of a sweep, and creating the objects that a config describes.

This module does not import torch, so commands that need no model start fast.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from difflib import get_close_matches
from typing import Any, cast

from hydra import compose, initialize_config_dir
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import ConfigCompositionException, HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf
from omegaconf.errors import ConfigIndexError, ConfigTypeError, OmegaConfBaseException

from cfg_lab.errors import InputError, reason_of
from cfg_lab.options import CONFIG, RENAMED_KEYS, option_names
from cfg_lab.study.arguments import check_arguments

_LISTS = ("metrics",)
"""Config groups of which several options can be chosen."""

_SEARCH_KEYS = ("objective", "trials")
"""Config keys that only hydra/sweeper=optuna has."""


def check_overrides(overrides: Sequence[str]) -> None:
    """Check that every override can be read, and that none uses a config key that has been renamed.

    Args:
        overrides: as on the command line, such as "guidance.scale=2" or "experiment=rules".

    Raises:
        InputError: an override cannot be read, or its key has been renamed; the message names the new key.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key in RENAMED_KEYS:
            replacement = RENAMED_KEYS[key]
            raise InputError(
                f"the config key {key} was renamed; use {replacement} instead (got {override!r})"
            )
        try:
            parsed = OverridesParser.create().parse_override(override)
        except HydraException as error:
            key, _, value = override.partition("=")
            if value.startswith(("[", "{")):  # quotes around the whole would make a text of it
                form = '[{name: "…"}]' if value[:2] == "[{" else '["…"]' if value[0] == "[" else '{name: "…"}'
                example = f"'{key}={form}'"
                quotes = "in a list or mapping needs quotes of its own, inside the quotes of the shell"
            else:
                escaped = value.replace('"', '\\"')
                example = shlex.quote(f'{key}="{escaped}"') if value else f"{key}=…"
                quotes = "needs two pairs of quotes"
            raise InputError(
                f"{override!r} cannot be read; an override is key=value, and a value with letters other than "
                f"English ones or with special characters {quotes}, such as {example}"
            ) from error
        names = option_names(key)
        if names and not parsed.is_delete() and parsed.value() is None:
            raise InputError(f"{key} must be one of {', '.join(names)}, got null")


@contextmanager
def composition_errors_in_a_sentence() -> Generator[None]:
    """Raise an InputError of one sentence where Hydra cannot compose a config with some overrides."""
    try:
        yield
    except InputError:
        raise
    except (HydraException, OmegaConfBaseException, ValueError) as error:
        raise InputError(_composition_error(error)) from error


def _composition_error(error: Exception) -> str:
    message = str(error)
    if option := re.search(r"Could not (?:find|load) '(model|[^'\n]+)/([^'\n]+)'", message):
        group, name = option.groups()
        names = option_names(group) or re.findall(r"^\t(\S+)$", message, re.MULTILINE)  # of Hydra's groups
        sentence = f"{group} has no option {name!r}{nearest(name, names)}; the options are {', '.join(names)}"
        return f"{sentence}; model.name={name} takes a hub id or a folder" if group == "model" else sentence
    if group := re.match(r"Multiple values for (\S+)\.", message):
        name = group[1]
        return f"+{name}=… is wrong, because every config has {name}; write {name}=… without the plus sign"
    cause = error.__cause__
    parent, key = getattr(cause, "parent_node", None), str(getattr(cause, "full_key", ""))
    if isinstance(
        cause, ConfigTypeError | ConfigIndexError
    ):  # a list where a mapping belongs, or the reverse
        override = message.splitlines()[0].removeprefix("Error merging override ")
        if isinstance(cause, ConfigIndexError):
            return f"{override!r} is wrong: {key} is beyond the end of the list"
        group = key.replace(".", "/")
        kind = "mapping" if isinstance(parent, DictConfig) else "list"
        options = f"; {group}=… chooses its options" if option_names(group) else ""
        return f"{override!r} is wrong: {key} is a {kind}{options}"
    if isinstance(error, ConfigCompositionException) and isinstance(parent, DictConfig):
        if key in _SEARCH_KEYS:
            return f"{key} belongs to a search; add hydra/sweeper=optuna, or leave {key} out"
        prefix = key.rpartition(".")[0]
        siblings = [str(name) for name in parent if not str(name).startswith(("_", "hydra"))]
        if not siblings:
            group = prefix.replace(".", "/")
            names = option_names(group)
            hint = f"{group}=… chooses its options: {', '.join(names)}" if names else f"+{key}=… adds one"
            return f"{key} is not a config key: {prefix} has no keys; {hint}"
        names = [f"{prefix}.{name}" if prefix else name for name in siblings]
        if "/" in key:
            names = [str(path.relative_to(CONFIG)) for path in CONFIG.rglob("*") if path.is_dir()]
        keys = f"{prefix} has the keys" if prefix else "the keys are"
        # scale=2 means guidance.scale=2.
        groups = [name for name in siblings if OmegaConf.is_dict(parent[name]) and key in parent[name]]
        hint = f" (did you mean {groups[0]}.{key}?)" if groups else nearest(key, names)
        return f"{key} is not a config key{hint}; {keys} {', '.join(siblings)}"
    if "invalid literal for int" in message:  # OmegaConf's error for stop.a=…
        return f"the items of a list are numbered from 0, as in prompts.prompts.0.text=…; {message}"
    return re.sub(r"\s+", " ", re.split("Config search path|See https", message)[0]).strip()


def compose_group(group: str, overrides: Sequence[str], program: str) -> DictConfig:
    """Compose the config of a sweep with overrides of one config group; see `compose_groups`."""
    return compose_groups([group], overrides, program)


def compose_groups(groups: Sequence[str], overrides: Sequence[str], program: str) -> DictConfig:
    """Compose the config of a sweep with overrides of some config groups.

    Args:
        groups: the only groups that may be overridden, such as ["metrics"].
        overrides: overrides in Hydra's grammar, such as "metrics=[readability]".
        program: name of the command, for error messages.

    Raises:
        InputError: an override belongs to another group, uses a renamed key, or is wrong.
    """
    check_overrides(overrides)
    prefixes = tuple(f"{group}{character}" for group in groups for character in "=./")
    for override in overrides:
        if not override.lstrip("+~").startswith(prefixes):
            allowed = " and ".join(f"{group}=… and {group}.…=…" for group in groups)
            raise InputError(f"{program} takes {allowed} only; got {override!r}")
    with composition_errors_in_a_sentence(), initialize_config_dir(str(CONFIG), version_base="1.3"):
        return compose("sweep", overrides=list(overrides))


def compose_config(name: str, overrides: Sequence[str]) -> DictConfig:
    """Compose a config of conf with all its nodes; hydra.runtime.choices names the chosen options.

    Args:
        name: name of the config, such as "sweep".
        overrides: overrides in Hydra's grammar, each with one value.

    Raises:
        InputError: an override is wrong.
    """
    check_overrides(overrides)
    is_running = GlobalHydra.instance().is_initialized()  # a command, whose config is of the same folder
    folder = nullcontext() if is_running else initialize_config_dir(str(CONFIG), version_base="1.3")
    with composition_errors_in_a_sentence(), folder:
        return compose(name, overrides=list(overrides), return_hydra_config=True)


def plain_config(config: DictConfig) -> dict[str, Any]:
    """The config of a cell as dicts, lists and plain values, without the node `hydra`.

    Raises:
        InputError: a key has no value, or refers to another key that does not exist.
    """
    return {str(key): _plain(config, str(key)) for key in config if key != "hydra"}


def changed_config(config: DictConfig, keys: Sequence[str], changes: Mapping[str, Any]) -> DictConfig:
    """A copy of a config with only some of its keys, and with some values replaced.

    Args:
        config: the config.
        keys: the keys at its top to keep.
        changes: dotted key -> new value.
    """
    copy = OmegaConf.masked_copy(config, [key for key in keys if key in config])
    OmegaConf.set_struct(copy, False)
    for key, value in changes.items():
        OmegaConf.update(copy, key, value, merge=False)
    return copy


def _plain(config: DictConfig, key: str) -> Any:
    """One value of a config as dicts, lists and plain values."""
    try:
        value: Any = config[key]
        if OmegaConf.is_config(value):
            return OmegaConf.to_container(value, resolve=True, throw_on_missing=True)
        return value
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} has no value yet; set {error.full_key}=…") from error
    except OmegaConfBaseException as error:
        raise InputError(f"{error.full_key or 'the config'}: {reason_of(error)}") from error


def auto_dtypes(config: Mapping[str, Any], prefix: str = "") -> list[str]:
    """The keys of a config whose value is a dtype that depends on the machine, such as "model.dtype".

    Args:
        config: the config as dicts, lists and plain values.
        prefix: put before each key.
    """
    keys: list[str] = []
    for key, value in config.items():
        if isinstance(value, dict):
            keys += auto_dtypes(cast("dict[str, Any]", value), f"{prefix}{key}.")
        elif key == "dtype" and value == "auto":
            keys.append(f"{prefix}{key}")
    return keys


def check_option(config: Mapping[str, Any], group: str) -> None:
    """Check that an option of a config group is chosen.

    Args:
        config: the config as dicts, lists and plain values.
        group: a config group of which one option is chosen, such as "guidance".
    """
    node = config.get(group)
    if not isinstance(node, dict) or "_target_" not in node:
        value = "nothing" if group not in config else repr(cast("Any", node))
        raise InputError(f"{group} must be one of {', '.join(option_names(group))}, got {value}")


def nearest(name: str, names: Iterable[str]) -> str:
    """The most similar of some names as a question, to be added to an error: " (did you mean scale?)"."""
    matches = get_close_matches(name, names, 1)
    return f" (did you mean {matches[0]}?)" if matches else ""


def build(config: DictConfig, key: str) -> Any:
    """Create the object that the config node `key` describes.

    The `_target_` of the node names a class or function. The other keys of the node are its arguments. A node
    without a `_target_` is a mapping of such nodes by name; it becomes a dict of objects.

    Raises:
        InputError: a value in the node is wrong, missing or unknown. The message names its key.
    """
    node: Any = _plain(config, key) if key in config else None
    if key in _LISTS:
        _check_options(key, node)
    else:
        check_option({key: node} if key in config else {}, key)
    try:
        built = instantiate(config[key], _convert_="all")
    except InstantiationException as error:
        cause = error.__cause__
        try:
            check_arguments(key, node)
        except InputError as wrong_type:
            # What the class says of an argument says more than its type.
            if not isinstance(cause, InputError) or str(wrong_type).split()[0] not in str(cause):
                raise
        if isinstance(cause, InputError):
            raise cause from error
        raise InputError(f"{key}: {reason_of(cause or error)}") from error
    check_arguments(key, node)
    return built


def _check_options(group: str, node: Any) -> None:
    """Check that a node holds options of a config group by name."""
    nodes: list[Any] = [*cast("dict[str, Any]", node).values()] if isinstance(node, dict) else [None]
    if not all(isinstance(option, dict) and "_target_" in option for option in nodes):
        raise InputError(
            f"{group} must be a list of options, such as {group}=[{option_names(group)[0]}], got {node!r}; "
            f"options are {', '.join(option_names(group))}"
        )

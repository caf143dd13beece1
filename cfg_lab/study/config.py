"""Hydra configs: composing the config of a sweep, and creating the objects that a config describes.

This module does not import torch, so commands that need no model start fast.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.errors import HydraException, InstantiationException
from hydra.utils import instantiate
from omegaconf import DictConfig, MissingMandatoryValue, OmegaConf

from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG, RENAMED_KEYS, option_names


def check_renamed_keys(overrides: Sequence[str]) -> None:
    """Check that no override uses a config key that has been renamed.

    Args:
        overrides: as on the command line, such as "guidance.scale=2" or "+experiment=rules".

    Raises:
        InputError: a key has been renamed; the message names the new key.
    """
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0].partition("@")[0]
        if key in RENAMED_KEYS:
            replacement = RENAMED_KEYS[key]
            raise InputError(
                f"the config key {key} was renamed; use {replacement} instead (got {override!r})"
            )


def compose_group(group: str, overrides: Sequence[str], program: str) -> DictConfig:
    """Compose the config of a sweep with overrides of one config group.

    Args:
        group: the only group that may be overridden, such as "metrics".
        overrides: overrides in Hydra's grammar, such as "metrics=[readability]".
        program: name of the command, for error messages.

    Raises:
        InputError: an override belongs to another group, uses a renamed key, or is wrong.
    """
    check_renamed_keys(overrides)
    for override in overrides:
        if not override.lstrip("+~").startswith((f"{group}=", f"{group}.")):
            raise InputError(f"{program} takes {group}=… and {group}.…=… only; got {override!r}")
    try:
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            return compose("sweep", overrides=list(overrides))
    except HydraException as error:
        reason = re.split("Config search path|Available options", str(error))[0].strip()
        reason = reason.removeprefix("In 'sweep': ").rstrip(".")
        raise InputError(f"{reason} ({group} can be {', '.join(option_names(group))})") from error


def build(config: DictConfig, key: str) -> Any:
    """Create the object that the config node `key` describes.

    The `_target_` of the node names a class or function. The other keys of the node are its arguments.

    Raises:
        InputError: a value in the node is wrong or missing. The message names its key.
    """
    try:
        built = instantiate(config[key], _convert_="all")
    except MissingMandatoryValue as error:
        raise InputError(f"{error.full_key} has no value yet; set {error.full_key}=…") from error
    except InstantiationException as error:
        cause = error.__cause__
        if isinstance(cause, InputError):
            raise cause from error
        if isinstance(cause, MissingMandatoryValue):
            raise InputError(f"{cause.full_key} has no value yet; set {cause.full_key}=…") from error
        raise InputError(f"{key}: {cause or str(error).splitlines()[0]}") from error
    for missing in sorted(OmegaConf.missing_keys(config[key])):  # in nodes that are called later
        raise InputError(f"{missing} has no value yet; set {missing}=…")
    return built

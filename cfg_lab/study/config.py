"""Hydra configs: composing the sweep's config, and making the objects that a config describes.

Imports no torch, so that commands which need no model start at once.
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
from cfg_lab.options import CONFIG, option_names


def compose_group(group: str, overrides: Sequence[str], program: str) -> DictConfig:
    """The sweep's config with overrides of one group.

    Raises:
        InputError: an override belongs to another group, or is wrong.
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


def build(config: DictConfig, key: str) -> Any:
    """The object that a config node describes.

    Raises:
        InputError: a value in the node is wrong or missing.
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

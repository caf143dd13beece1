"""The `--model_args` of lm-eval's command: options of the lab's config groups by name.

    pretrained=smollm2,guidance=cfg,scale=1.5,negatives=last_token,score=raw

- `pretrained` is an option of conf/model, a hub id, or a folder. `model.dtype=float32` sets a key of it.
- `guidance` and `negatives` are options of these config groups. `negatives.suffix=No` sets a key of an
  option, and `guidance/schedule=decay` chooses an option within an option.
- `scale` is short for `guidance.scale`.
- All other arguments are those of `CfgLabModel`.

A value with a comma must be given as JSON: `--model_args '{"pretrained": "smollm2", "negatives": "custom",
"negatives.phrases": "sad, boring"}'`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from cfg_lab.errors import InputError
from cfg_lab.options import option_names
from cfg_lab.study.config import build, compose_groups, nearest

_GROUPS = ("model", "guidance", "negatives")
_PLAIN = (
    "score",
    "max_rows",
    "max_length",
    "max_gen_toks",
    "add_bos_token",
    "prefix_token_id",
    "seed",
    "batch_size",
    "max_batch_size",
)
_NAMES = ("pretrained", "scale", "guidance", "negatives", "device", *_PLAIN)

_DEFAULT_DEVICE = "cuda:0"
"""The device that lm-eval's command passes if the user names none, also on machines without CUDA."""


def model_arguments(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `CfgLabModel`, made from those of lm-eval's command.

    Raises:
        InputError: an argument is wrong or unknown.
    """
    for name, value in arguments.items():
        group = name.partition(".")[0].partition("/")[0]
        if name not in _NAMES and (group not in _GROUPS or name == "model"):
            raise InputError(
                f"model_args has {name!r} (got {value!r}), which is unknown{nearest(name, _NAMES)}; it takes "
                f"{', '.join(_NAMES)}, and keys of the config groups such as guidance.schedule.start"
            )
    if arguments.get("pretrained") is None:
        names = ", ".join(option_names("model"))
        raise InputError(f"model_args must name a model: pretrained={names}, a hub id or a folder")
    config = compose_groups(_GROUPS, _overrides(arguments), "model_args")
    plain = {name: arguments[name] for name in _PLAIN if arguments.get(name) is not None}
    pretrained = arguments["pretrained"]
    return {
        **plain,
        "model": build(config, "model")() if isinstance(pretrained, str) else pretrained,
        "guidance": build(config, "guidance"),
        "negatives": build(config, "negatives"),
    }


def _overrides(arguments: Mapping[str, Any]) -> list[str]:
    """The arguments that name options of config groups or their keys, in Hydra's grammar."""
    values: dict[str, Any] = {"guidance": "cfg", "negatives": "last_token"}
    pretrained = arguments["pretrained"]
    if isinstance(pretrained, str):
        values["model" if pretrained in option_names("model") else "model.name"] = pretrained
    if arguments.get("scale") is not None:
        values["guidance.scale"] = arguments["scale"]
    if arguments.get("device") not in (None, _DEFAULT_DEVICE):
        values["model.device"] = arguments["device"]
    values |= {
        name: value
        for name, value in arguments.items()
        if name.partition(".")[0].partition("/")[0] in _GROUPS
    }
    # lm-eval reads the option `none` as None.
    is_option = {name: "." not in name for name in values}
    return [
        f"{name}={('none' if value is None else value) if is_option[name] else _in_grammar(value)}"
        for name, value in sorted(values.items(), key=lambda item: not is_option[item[0]])
    ]


def _in_grammar(value: Any) -> str:
    """A value in Hydra's grammar: a text is quoted."""
    if isinstance(value, str):
        return '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
    return json.dumps(value)

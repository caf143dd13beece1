"""Reads from a results folder how the study was run, and writes a description as HTML.

The description is enough for a reader to repeat the study.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from html import escape
from typing import Any, cast

import pandas as pd
import yaml

from cfg_lab.errors import StoreError
from cfg_lab.report.axes import prompts_of
from cfg_lab.report.recommendation import KEYS
from cfg_lab.study.costs import in_words
from cfg_lab.study.store import Store

MAIN_PACKAGES = (
    "cfg-lab", "torch", "transformers", "tokenizers", "numpy", "pandas", "scipy", "scikit-learn",
)  # fmt: skip
"""Packages that influence the results. Their versions are shown first."""


@dataclass(frozen=True)
class Record:
    """How a study was run.

    Attributes:
        name: name of the study.
        command: command line of the last sweep; "" if unknown.
        config: text of config.yaml.
        environment: content of environment.json.
        costs: time, work and memory of decoding, one row per run and model.
        planned: number of texts that were requested, decoded or not.
        recommendation: content of choice.yaml of `python -m cfg_lab.choose`; empty if the folder has none.
    """

    name: str
    command: str = ""
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    costs: Sequence[Mapping[str, Any]] = ()
    planned: int = 0
    recommendation: Mapping[str, Any] = field(default_factory=dict[str, Any])


def read_record(store: Store) -> Record:
    """Read the record of a results folder; a missing or damaged file leaves its fields empty."""
    config, environment = store.read_text("config.yaml") or "", store.read_text("environment.json") or "{}"
    parsed = _mapping(yaml.safe_load, config)
    recommendation = _mapping(yaml.safe_load, store.read_text("choice.yaml") or "{}")
    first_cell: Any = parsed.get("first_cell") or {}
    return Record(
        name=str(first_cell.get("name") or store.root.resolve().name),
        command=str(parsed.get("command", "")),
        config=config,
        environment=_mapping(json.loads, environment),
        costs=_costs(store),
        recommendation=recommendation if {*KEYS} <= {*recommendation} else {},
        planned=store.planned_text_count(),
    )


def record_html(
    record: Record, results: pd.DataFrame, cells: Sequence[tuple[str, str]], constants: Mapping[str, str]
) -> str:
    """Return the commands, versions, seeds, fingerprints, machine, settings and config of a study.

    Args:
        record: how the study was run.
        results: one row per text.
        cells: id and label of each cell.
        constants: settings that have the same value in all cells.
    """
    packages: Mapping[str, Any] = record.environment.get("packages") or {}
    environment = {
        key.replace("_", " "): value
        for key, value in record.environment.items()
        if isinstance(value, str | int | float) and key != "command"
    }
    models = results.drop_duplicates(["model_name", "model_fingerprint"])
    facts = {
        **{
            f"model {name}": f"fingerprint {fingerprint}"
            for name, fingerprint in zip(models["model_name"], models["model_fingerprint"], strict=True)
        },
        "prompts": f"{len(prompts_of(results))}, fingerprint {prompts_fingerprint(results)}",
        "seeds": ", ".join(sorted(set(map(str, results["seed"])))) if "seed" in results else "unknown",
        **environment,
        **_decoding(record.costs),
        "main packages": ", ".join(f"{name} {packages[name]}" for name in MAIN_PACKAGES if name in packages),
    }
    # Cells can come from several runs. config.yaml records the command of the last run only.
    commands = [str(cost.get("command") or "") for cost in record.costs] + [record.command]
    command = "\n".join(dict.fromkeys(filter(None, commands)))
    facts_html = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()
    )
    return "".join(
        [
            f"<pre class='command' tabindex='0'><code>{escape(command)}</code></pre>" if command else "",
            f"<dl class='facts'>{facts_html}</dl>",
            _details("Settings that all cells share", _table(("setting", "value"), list(constants.items()))),
            _details("Cells and their ids", _table(("cell", "id"), [(label, cell) for cell, label in cells])),
            _details(
                "config.yaml", f"<pre tabindex='0'>{escape(record.config)}</pre>" if record.config else ""
            ),
            _details(
                f"All {len(packages)} packages",
                _table(("package", "version"), [(str(key), str(value)) for key, value in packages.items()]),
            ),
        ]
    )


def prompts_fingerprint(results: pd.DataFrame) -> str:
    """Return a hash of the prompts' ids and texts that does not depend on their order."""
    prompts = prompts_of(results)
    pairs = sorted(zip(map(str, prompts["prompt_id"]), map(str, prompts["prompt"]), strict=True))
    return blake2b(repr(pairs).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _costs(store: Store) -> list[dict[str, Any]]:
    """Read what decoding cost. If a file is damaged, return no costs: the page is useful without costs."""
    try:
        return store.costs()
    except StoreError:
        return []


def _decoding(costs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """Say how much time, work and memory decoding needed, for each model and device."""
    pairs = dict.fromkeys((cost["model"], cost["device"]) for cost in costs)
    return {
        f"decoding, {model} on {device}": in_words(
            [cost for cost in costs if (cost["model"], cost["device"]) == (model, device)]
        )
        for model, device in pairs
    }


def _mapping(parse: Callable[[str], Any], text: str) -> Mapping[str, Any]:
    """Convert a text by `parse`. Return an empty mapping if the text is damaged or holds no mapping."""
    try:
        parsed = parse(text)
    except (yaml.YAMLError, ValueError):
        return {}
    return cast("Mapping[str, Any]", parsed) if isinstance(parsed, Mapping) else {}


def _details(title: str, body: str) -> str:
    """Return an HTML section that opens on a click; "" if the body is empty."""
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def _table(heads: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    """Return an HTML table of two columns; "" if there are no rows."""
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in heads)
    body = "".join(
        f"<tr><th scope='row'>{escape(name)}</th><td>{escape(value)}</td></tr>" for name, value in rows
    )
    return (
        f"<div class='box' tabindex='0' role='region' aria-label='{escape(heads[0])}s'>"
        f"<table class='plain'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

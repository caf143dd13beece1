"""What a reader needs to repeat the numbers, from the files a sweep leaves, as HTML."""

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
from cfg_lab.study.costs import in_words
from cfg_lab.study.store import Store

CORE = ("cfg-lab", "torch", "transformers", "tokenizers", "numpy", "pandas", "scipy", "scikit-learn")
"""Packages that decide what comes out, shown first."""


@dataclass(frozen=True)
class Record:
    """Attributes:
    name: of the study.
    command: the line that made it, "" if it was not kept.
    config: the text of config.yaml.
    environment: environment.json.
    costs: what decoding took, a row a run and model.
    planned: texts that were asked for; not all of them need be there.
    """

    name: str
    command: str = ""
    config: str = ""
    environment: Mapping[str, Any] = field(default_factory=dict[str, Any])
    costs: Sequence[Mapping[str, Any]] = ()
    planned: int = 0


def read_record(store: Store) -> Record:
    """What ran in a results folder; files that are missing or damaged leave their part empty."""
    config, environment = store.read_text("config.yaml") or "", store.read_text("environment.json") or "{}"
    ran = _mapping(yaml.safe_load, config)
    first: Any = ran.get("first_cell") or {}
    return Record(
        name=str(first.get("name") or store.root.resolve().name),
        command=str(ran.get("command", "")),
        config=config,
        environment=_mapping(json.loads, environment),
        costs=_costs(store),
        planned=store.planned_text_count(),
    )


def record_html(
    record: Record, results: pd.DataFrame, cells: Sequence[tuple[str, str]], constants: Mapping[str, str]
) -> str:
    """Command, versions, seeds, fingerprints, machine, settings, config.

    Args:
        cells: (id, label) of each.
        constants: settings that are the same in all cells.
    """
    packages: Mapping[str, Any] = record.environment.get("packages") or {}
    plain = {
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
        "seeds": ", ".join(sorted({str(seed) for seed in results["seed"]}))
        if "seed" in results
        else "unknown",
        **plain,
        **_decoding(record.costs),
        "main packages": ", ".join(f"{name} {packages[name]}" for name in CORE if name in packages),
    }
    # Cells may be of several runs; the last is in the config's record.
    commands = [str(cost.get("command") or "") for cost in record.costs] + [record.command]
    command = "\n".join(dict.fromkeys(filter(None, commands)))
    listed = "".join(
        f"<dt>{escape(str(key))}</dt><dd>{escape(str(value))}</dd>" for key, value in facts.items()
    )
    return "".join(
        [
            f"<pre class='command' tabindex='0'><code>{escape(command)}</code></pre>" if command else "",
            f"<dl class='facts'>{listed}</dl>",
            _details("Settings held fixed", _table(("setting", "value"), list(constants.items()))),
            _details("Cells and their ids", _table(("cell", "id"), [(label, cell) for cell, label in cells])),
            _details(
                "config.yaml", f"<pre tabindex='0'>{escape(record.config)}</pre>" if record.config else ""
            ),
            _details(
                f"All {len(packages)} packages",
                _table(("package", "version"), [(str(k), str(v)) for k, v in packages.items()])
                if packages
                else "",
            ),
        ]
    )


def _costs(store: Store) -> list[dict[str, Any]]:
    try:
        return store.costs()
    except StoreError:  # the page is worth having without it
        return []


def _decoding(costs: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """What decoding took, for each model and device."""
    kinds = dict.fromkeys((cost["model"], cost["device"]) for cost in costs)
    return {
        f"decoding, {model} on {device}": in_words(
            [cost for cost in costs if (cost["model"], cost["device"]) == (model, device)]
        )
        for model, device in kinds
    }


def _mapping(parse: Callable[[str], Any], text: str) -> Mapping[str, Any]:
    """What a file says, nothing where it is not a mapping or damaged: the page is worth having without it."""
    try:
        parsed = parse(text)
    except (yaml.YAMLError, ValueError):
        return {}
    return cast("Mapping[str, Any]", parsed) if isinstance(parsed, Mapping) else {}


def prompts_fingerprint(results: pd.DataFrame) -> str:
    """Of ids and texts, in any order: equal prompts, equal fingerprint."""
    prompts = prompts_of(results)
    pairs = sorted(zip(map(str, prompts["prompt_id"]), map(str, prompts["prompt"]), strict=True))
    return blake2b(repr(pairs).encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _details(title: str, body: str) -> str:
    return f"<details><summary>{escape(title)}</summary>{body}</details>" if body else ""


def _table(heads: Sequence[str], rows: Sequence[tuple[str, str]]) -> str:
    if not rows:
        return ""
    head = "".join(f"<th scope='col'>{escape(name)}</th>" for name in heads)
    body = "".join(f"<tr><th scope='row'>{escape(a)}</th><td>{escape(b)}</td></tr>" for a, b in rows)
    return (
        f"<div class='box' tabindex='0' role='region' aria-label='{escape(heads[0])}s'>"
        f"<table class='plain'><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )

"""The data card of an export: README.md in the form of the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import pyarrow as pa
import yaml

from cfg_lab.export.folder import CSV, MARK
from cfg_lab.export.meanings import meaning_of
from cfg_lab.options import CONFIG, option_names
from cfg_lab.prompts.packaged import LICENCES
from cfg_lab.study.formats import count, joined

MAIN_PACKAGES = ("cfg-lab", "torch", "transformers", "tokenizers", "datasets", "numpy", "pandas", "pyarrow")
_SIZES = ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K"), (1_000_000, "100K<n<1M"))
_LONGEST_LIST = 6  # values of a setting; more are only counted
_NOT_KNOWN = "not known to cfg_lab: see its own page before you share the texts"


@dataclass(frozen=True, kw_only=True)
class CardFacts:
    """What a data card says about an export.

    Attributes:
        name: name of the study.
        commands: command lines of the sweeps that decoded the texts.
        packages: name of a package -> its version when the last sweep ran.
        machine: Python, platform and processor of the last sweep.
        schema: the columns of the dataset, in order.
        csv_columns: the columns of the CSV file, in order.
        left_out: columns of the results that the dataset does not have.
        settings: setting -> its different values, as text.
        models: name and fingerprint of each model.
        prompt_options: options of the prompts, such as "openers".
        rows, cells, prompts, distinct_texts: counts.
    """

    name: str
    commands: Sequence[str]
    packages: Mapping[str, str]
    machine: str
    schema: pa.Schema
    csv_columns: Sequence[str]
    left_out: Sequence[str]
    settings: Mapping[str, Sequence[str]]
    models: Sequence[tuple[str, str]]
    prompt_options: Sequence[str]
    rows: int
    cells: int
    prompts: int
    distinct_texts: int


def data_card(facts: CardFacts) -> str:
    """Return the text of README.md."""
    return "\n".join(
        [
            "---",
            _header(facts).rstrip(),
            "---",
            "",
            f"# {facts.name}",
            "",
            f"Texts that language models decoded with classifier-free guidance and negative prompts. {MARK}.",
            "",
            *_section("A row", _row(facts)),
            *_section("Load it", _loading(facts)),
            *_section("Columns", _columns(facts)),
            *_section("How it was made", _origin(facts)),
            *_section("Licences", _licences(facts)),
        ]
    )


def _header(facts: CardFacts) -> str:
    size = next((name for most, name in _SIZES if facts.rows < most), "1M<n<10M")
    return yaml.safe_dump(
        {
            "pretty_name": facts.name,
            "license": "unknown",
            "task_categories": ["text-generation"],
            "size_categories": [size],
            "tags": ["cfg_lab", "classifier-free-guidance", "negative-prompts", "synthetic"],
            "configs": [{"config_name": "default", "data_files": "data-*.arrow"}],
        },
        sort_keys=False,
        allow_unicode=True,
    )


def _section(title: str, lines: Sequence[str]) -> list[str]:
    return [f"## {title}", "", *lines, ""]


def _row(facts: CardFacts) -> list[str]:
    return [
        "One row is one text: one sample of one prompt in one cell. A cell is one combination of settings. "
        "Rows with the same prompt and sample in other cells had the same sampling noise, so their "
        "difference is the effect of the settings.",
        "",
        f"{count(facts.rows, 'row')}, {count(facts.cells, 'cell')}, {count(facts.prompts, 'prompt')}, "
        f"{count(facts.distinct_texts, 'distinct text')}. Cells without guidance that differ only in their "
        "negatives have the same texts, in one row each.",
    ]


def _loading(facts: CardFacts) -> list[str]:
    nested = [name for name in facts.schema.names if name not in facts.csv_columns]
    lines = [
        "```python",
        "from datasets import load_from_disk",
        'texts = load_from_disk("path/to/this/folder")',
        "",
        "import pandas",
        "table = pandas.read_csv(",
        f'    "{CSV}", keep_default_na=False, na_values=[""],',
        '    float_precision="round_trip", lineterminator="\\n",',
        ")",
        "```",
        "",
        f"In {CSV} an empty text and a missing value are both an empty field.",
    ]
    if nested:
        lines += [
            "",
            f"{CSV} has no lists. These columns are only in the dataset: {joined(map(_code, nested))}.",
        ]
    if facts.left_out:
        lines += [
            "",
            f"The results have more columns: {joined(map(_code, facts.left_out))}. "
            "`python -m cfg_lab.export` with `--columns all` writes them too.",
        ]
    return lines


def _columns(facts: CardFacts) -> list[str]:
    lines = ["| column | type | meaning |", "|---|---|---|"]
    for field in cast("Any", facts.schema):
        if field.name in facts.settings:
            meaning = f"setting; {_values(facts.settings[field.name])}"
        else:
            meaning = meaning_of(field.name)
        lines.append(f"| {_code(field.name)} | {_cell(str(field.type))} | {_cell(meaning)} |")
    return lines


def _values(values: Sequence[str]) -> str:
    if len(values) > _LONGEST_LIST:
        return f"{len(values)} values, from {values[0]} to {values[-1]}"
    return f"always {values[0]}" if len(values) == 1 else f"values {', '.join(values)}"


def _origin(facts: CardFacts) -> list[str]:
    versions = [f"{name} {facts.packages[name]}" for name in MAIN_PACKAGES if name in facts.packages]
    return [
        "```sh",
        *(facts.commands or ["# the command is not known"]),
        "```",
        "",
        *([f"Versions: {', '.join(versions)}."] if versions else []),
        *([f"Machine: {facts.machine}."] if facts.machine else []),
    ]


def _licences(facts: CardFacts) -> list[str]:
    lines = [
        "Whether texts of a model may be shared depends on the licences of the model and of the prompts.",
        "",
    ]
    for name, fingerprint in facts.models:
        licence = _licence_of_model(name) or _NOT_KNOWN
        lines.append(f"- Model {_code(name)}, fingerprint {_code(fingerprint)}. Licence: {licence}.")
    return lines + [
        f"- Prompts {_code(option)}. Licence: {_licence_of_prompts(option) or _NOT_KNOWN}."
        for option in facts.prompt_options
    ]


def _licence_of_model(name: str) -> str:
    """The licence that the comments of the model's YAML file name; "" if there is no such file or comment."""
    start = "# Licence of the weights: "
    for option in option_names("model"):
        lines = (CONFIG / "model" / f"{option}.yaml").read_text(encoding="utf-8").splitlines()
        if f"name: {name}" in lines:
            return next((line.removeprefix(start) for line in lines if line.startswith(start)), "")
    return ""


def _licence_of_prompts(option: str) -> str:
    """The licence of packaged prompts; the lab's own for prompts that stand in one of its own files."""
    if option in LICENCES:
        return LICENCES[option]
    path = CONFIG / "prompts" / f"{option}.yaml"
    text = path.read_text(encoding="utf-8") if path.is_file() else ""
    if any(f"_target_: cfg_lab.prompts.{source}\n" in text for source in ("inline", "of_this_lab")):
        return "Apache-2.0 (written for cfg_lab)"
    return ""


def _code(text: str) -> str:
    return f"`{text}`"


def _cell(text: str) -> str:
    """A text inside a table of Markdown."""
    return text.replace("|", "\\|").replace("\n", " ")

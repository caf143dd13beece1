"""Everything put into one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import json
import math
import re
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cfg_lab import analysis
from cfg_lab.options import CONFIG, option_names
from cfg_lab.report.answer import answer, question
from cfg_lab.report.axes import Cells, cells_of, constant_settings, prompts_of, value_text
from cfg_lab.report.cards import cards_html, meanings_html
from cfg_lab.report.findings import compare, findings
from cfg_lab.report.payload import cells_payload, fronts_payload, metrics_payload, texts_payload
from cfg_lab.report.record import Record, record_html
from cfg_lab.report.roles import roles_of
from cfg_lab.report.sentences import Scope
from cfg_lab.study.formats import count, joined

HERE = Path(__file__).parent
SCRIPTS = (
    "dom", "data", "chart", "filters", "curves", "forest", "tradeoff", "heatmap", "table", "diff", "tokens",
    "texts", "download", "main",
)  # fmt: skip
"""Files of js/, in the order they are put together."""

STYLES = ("base", "figures", "texts")
"""Files of css/, in the order they are put together."""

SETTINGS = re.compile(r"(model|prompts|negatives|guidance|sampling)(\..+)?|seed|samples|max_new_tokens|stop")
TEXT_BUDGET = 6_000_000
TOKEN_BUDGET = 7_000_000


def document(
    results: pd.DataFrame,
    record: Record,
    cards: Mapping[str, Mapping[str, Any]],
    *,
    text_budget: int = TEXT_BUDGET,
    token_budget: int = TOKEN_BUDGET,
) -> str:
    """The page of some results.

    Args:
        results: a row a text, as `cfg_lab.load_results` gives them.
        record: what ran.
        cards: metric -> how good its classifier is.
        text_budget: characters of texts, at most.
        token_budget: bytes of token views, at most.
    """
    measured = analysis.metrics_of(results)
    unscored = [name for name in measured if not results[name].notna().any()]
    cells, roles = cells_of(results), roles_of([name for name in measured if name not in unscored])
    metrics = [*roles.aims, *roles.prices, *roles.others]
    summary = analysis.summary(results, metrics=metrics).reset_index(drop=True)
    compared = compare(results, summary, cells, roles)
    texts, packs = texts_payload(results, cells, metrics, text_budget, token_budget)
    scope = Scope(
        labels=tuple(cells.labels),
        prompts=len(prompts_of(results)),
        texts=len(results),
        planned=max(record.planned, len(results)),
        comparisons=sum(math.isfinite(change.p) for change in compared.primary),
    )
    payload = {
        "name": record.name,
        **cells_payload(results, cells, compared),
        "metrics": metrics_payload(metrics, summary, compared, roles, cells),
        "fronts": fronts_payload(results, cells, roles),
        **texts,
    }
    settings = [name for name in map(str, results.columns) if SETTINGS.fullmatch(name)]
    constants = constant_settings(results, settings, cells)
    script = "".join((HERE / "js" / f"{name}.js").read_text() for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{script}}})();\n'
    return _fill(
        (HERE / "page.html").read_text(),
        {
            "title": escape(record.name),
            "deck": _deck(results, cells),
            "options": _options(cells),
            "question": question(cells.axes, roles, bool(compared.primary)),
            "answer": answer(findings(results, summary, cells, roles, compared), scope, unscored, cards),
            "meanings": meanings_html(metrics),
            "cards": cards_html(cards),
            "record": record_html(
                record, results, list(zip(cells.ids, cells.labels, strict=True)), constants
            ),
            "style": "".join((HERE / "css" / f"{name}.css").read_text() for name in STYLES),
            "policy": _policy(script),
            "data": as_script_text(payload),
            "packs": "".join(
                f'<script type="text/plain" id="pack-{number}">{pack}</script>'
                for number, pack in enumerate(packs.packs)
            ),
            "script": script,
        },
    )


def as_script_text(value: Any) -> str:
    """JSON that can stand inside a script element, whatever texts are in it.

    No `<` is left, so no tag can close the element or open a comment in it; control characters and lone
    surrogates, which HTML or UTF-8 cannot carry, are escaped.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub(
        "[<\u007f-\u009f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]",
        lambda found: f"\\u{ord(found[0]):04x}",
        text,
    )


def _deck(results: pd.DataFrame, cells: Cells) -> str:
    models = joined(escape(str(name)) for name in results["model_name"].unique())
    different = results["completion"].nunique()
    same = f" ({different:,} different ones)" if different < len(results) else ""
    return (
        f"{count(len(results), 'text')}{same} by {models}: {count(len(cells.ids), 'cell')}, "
        f"{count(len(prompts_of(results)), 'prompt')}, {count(results['sample'].nunique(), 'sample')} each."
    )


def _options(cells: Cells) -> str:
    """What the compared options are, as the first line of their YAML says; "" of too many to be read."""
    said: list[str] = []
    for axis in cells.axes:
        group = axis.key.replace(".", "/")
        known = option_names(group)
        for value in filter(known.__contains__, map(value_text, axis.values)):
            first = (CONFIG / group / f"{value}.yaml").read_text().partition("\n")[0].removeprefix("# ")
            said.append(f"<dt>{escape(axis.name)} {value}</dt><dd>{escape(first)}</dd>")
    return f"<dl class='facts'>{''.join(said)}</dl>" if 0 < len(said) <= 12 else ""


def _policy(script: str) -> str:
    """A content security policy: this script and no other runs, and nothing is fetched."""
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Put parts in place of {{name}}, in one pass: what a part holds is not filled again."""
    filled = re.sub(r"\{\{(\w+)\}\}", lambda found: parts[found[1]], template)
    # what HTML outside of the data cannot carry either: such as a prompt's lone surrogate in a label
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", filled)

"""The page of a results folder: one HTML file that needs no other file."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Mapping
from hashlib import sha256
from html import escape
from pathlib import Path
from typing import Any

import pandas as pd

from cfg_lab.options import CONFIG, option_names
from cfg_lab.report.answer import answer, conclusion_html, design, question
from cfg_lab.report.axes import Cells, constant_settings, prompts_of, value_text
from cfg_lab.report.cards import cards_html, meanings_html
from cfg_lab.report.payload import cells_payload, fronts_payload, metrics_payload, texts_payload
from cfg_lab.report.recommendation import recommendation_lines, recommendation_section
from cfg_lab.report.record import record_html
from cfg_lab.report.scripts import page_script
from cfg_lab.report.search_section import search_section
from cfg_lab.report.shown_texts import ShownTexts
from cfg_lab.report.study_analysis import StudyAnalysis
from cfg_lab.study.formats import count, joined

FOLDER = Path(__file__).parent
STYLES = ("base", "figures", "texts")
"""Names of the files in css/, in the order in which they apply."""

TEXT_BUDGET = 6_000_000
TOKEN_BUDGET = 7_000_000
HELD_OUT_SENTENCE = "The answer is about the cells of the held-out prompts: the others served to choose."
MOST_OPTIONS = 12  # with more options, none is described


def document(
    study: StudyAnalysis,
    cards: Mapping[str, Mapping[str, Any]],
    shown: ShownTexts | None = None,
    *,
    text_budget: int = TEXT_BUDGET,
    token_budget: int = TOKEN_BUDGET,
) -> str:
    """Return the page of a study as HTML.

    Args:
        study: the results and their analysis.
        cards: metric -> card, which says how accurate the classifier of the metric is.
        shown: the texts to show; None shows all rows of the results, which then hold their traces.
        text_budget: number of characters after which no more texts are added to the page.
        token_budget: largest size, in bytes, of the data with which the page shows tokens.
    """
    results, cells, comparisons, metrics = study.results, study.cells, study.comparisons, study.metrics
    shown = shown or ShownTexts.of_frame(results)
    compared_cells = {
        cell
        for finding in study.findings
        if finding.change
        for cell in (finding.change.cell, finding.change.baseline)
    }
    texts, packs = texts_payload(shown, cells, metrics, text_budget, token_budget, compared_cells)
    payload = {
        "name": study.record.name,
        **cells_payload(results, cells, comparisons),
        "metrics": metrics_payload(metrics, study.summary, comparisons, study.roles, cells),
        "fronts": fronts_payload(results, cells, study.roles),
        "distinct_prompts": study.distinct_prompts,
        **texts,
    }
    compared, recommendation = bool(comparisons.primary), study.record.recommendation
    facts = {**design(cells.axes, study.roles, compared), **_option_descriptions(cells)}
    script = page_script()
    return _fill(
        (FOLDER / "page.html").read_text(encoding="utf-8"),
        {
            "title": escape(study.record.name),
            "size": " ".join(
                filter(
                    None,
                    [
                        _size(results, cells, study.distinct_prompts),
                        HELD_OUT_SENTENCE if study.is_held_out else "",
                        escape(shown.sentence),
                    ],
                )
            ),
            "design": "".join(f"<dt>{title}</dt><dd>{detail}</dd>" for title, detail in facts.items()),
            "question": question(cells.axes, study.roles, compared),
            "conclusion": conclusion_html(recommendation_lines(recommendation) or study.conclusion),
            "recommendation": recommendation_section(recommendation),
            "recommendation_link": (
                "<li><a href='#recommendation'>Recommendation</a></li>" if recommendation else ""
            ),
            "answer": answer(study.findings, study.scope, study.unscored, cards),
            "search": search_section(study.searches),
            "search_link": "<li><a href='#search'>Search</a></li>" if study.searches else "",
            "meanings": meanings_html(metrics),
            "cards": cards_html(cards),
            "record": record_html(
                study.record,
                results,
                list(zip(cells.ids, cells.labels, strict=True)),
                constant_settings(results, cells),
            ),
            "style": "".join((FOLDER / "css" / f"{name}.css").read_text(encoding="utf-8") for name in STYLES),
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
    """Return a value as JSON that can stand inside a script element, whatever its texts contain.

    The JSON contains no `<`, so no text can close the element or open a comment. Control characters and lone
    surrogates, which HTML or UTF-8 cannot represent, are escaped.
    """
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"), allow_nan=False)
    return re.sub(
        "[<\u007f-\u009f\u2028\u2029\ud800-\udfff\ufdd0-\ufdef\ufeff\ufffe\uffff]",
        lambda character: f"\\u{ord(character[0]):04x}",
        text,
    )


def _size(results: pd.DataFrame, cells: Cells, distinct_prompts: int) -> str:
    """Say how many texts, cells, prompts and samples there are, and which models generated the texts.

    If prompts have the same context, say also how many distinct prompts there are.
    """
    models = joined(escape(str(name)) for name in results["model_name"].unique())
    distinct = results["completion"].nunique()
    duplicates = f", {distinct:,} of them distinct" if distinct < len(results) else ""
    prompts = len(prompts_of(results))
    repeated = (
        f" {count(prompts - distinct_prompts, 'duplicate prompt')}: intervals and p values count "
        f"{count(distinct_prompts, 'distinct prompt')}."
        if distinct_prompts < prompts
        else ""
    )
    return (
        f"{count(len(results), 'text')} by {models}{duplicates}. {count(len(cells.ids), 'cell')}, "
        f"{count(prompts, 'prompt')}, {count(results['sample'].nunique(), 'sample')} per prompt.{repeated}"
    )


def _option_descriptions(cells: Cells) -> dict[str, str]:
    """Return a description of each option that differs between cells, as setting and option -> description.

    A description is the first line of the option's YAML file. The result is empty if there are more than
    MOST_OPTIONS options.
    """
    descriptions: dict[str, str] = {}
    for axis in cells.axes:
        group = axis.key.replace(".", "/")
        known = option_names(group)
        for value in filter(known.__contains__, map(value_text, axis.values)):
            first_line = (CONFIG / group / f"{value}.yaml").read_text(encoding="utf-8").partition("\n")[0]
            descriptions[f"{escape(axis.name)} {value}"] = escape(first_line.removeprefix("# "))
    return descriptions if len(descriptions) <= MOST_OPTIONS else {}


def _policy(script: str) -> str:
    """Return a content security policy. It lets a browser run only `script`, and fetch nothing."""
    digest = base64.b64encode(sha256(script.encode()).digest()).decode()
    return (
        f"default-src 'none'; script-src 'sha256-{digest}'; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )


def _fill(template: str, parts: Mapping[str, str]) -> str:
    """Replace each {{name}} of a template. A {{name}} inside an inserted text is not replaced."""
    page = re.sub(r"\{\{(\w+)\}\}", lambda name: parts[name[1]], template)
    # Labels and sentences can contain what HTML cannot represent, such as a prompt's lone surrogate.
    return re.sub("[\x00\ud800-\udfff]", "\N{REPLACEMENT CHARACTER}", page)

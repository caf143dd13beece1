"""What the metrics are, and how good the classifiers are whose scores the page shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, cast

from cfg_lab import analysis
from cfg_lab.study.formats import interval, three_digits

METRICS = Path(__file__).parent.parent / "metrics"


def packaged_cards(metrics: Sequence[str], folder: Path = METRICS) -> dict[str, dict[str, Any]]:
    """Cards that lie beside the metrics, of those metrics that the results have.

    They are the entries of cards.json, {metric: card}, and files `<metric>_head.json`, which hold a
    classifier's weights too.
    """
    found: dict[str, dict[str, Any]] = {}
    together = folder / "cards.json"
    if together.is_file():
        found |= cast("dict[str, dict[str, Any]]", json.loads(together.read_text()))
    for path in sorted(folder.glob("*_head.json")):
        found[path.stem.removesuffix("_head")] = json.loads(path.read_text())
    shown = ("what", "data", "held_out")
    return {
        metric: {key: found[metric][key] for key in shown if key in found[metric]}
        for metric in metrics
        if metric in found
    }


def meanings_html(metrics: Sequence[str]) -> str:
    """A list of the metrics with what each measures; the user's own are named alone."""
    listed = "".join(f"<dt>{escape(name)}</dt><dd>{meaning_of(name)}</dd>" for name in metrics)
    return f"<dl class='facts'>{listed}</dl>" if metrics else ""


def meaning_of(metric: str) -> str:
    """What a metric measures and which direction is good, as a phrase in HTML."""
    way = analysis.better(metric)
    known = escape(analysis.meaning(metric) or "defined by its config")
    return known + (f"; {way} is better" if way else "")


def cards_html(cards: Mapping[str, Mapping[str, Any]]) -> str:
    """A card a metric: its plain values as a list, `held_out` as a table. "" without cards.

    Args:
        cards: metric -> values. `held_out` maps a set's name to its "accuracy" or "auc" or both, and perhaps
            "low", "high" (of the accuracy where there is one) and "n".
    """
    listed = "".join(_card(metric, card) for metric, card in cards.items())
    return f"<h3>How good the classifiers are</h3><div class='cards'>{listed}</div>" if cards else ""


def _card(metric: str, card: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in card.items() if isinstance(value, str | int | float)}
    listed = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt>"
        f"<dd>{escape(three_digits(value) if isinstance(value, float) else str(value))}</dd>"
        for key, value in plain.items()
    )
    held_out: Any = card.get("held_out")
    table = _held_out(metric, cast("Mapping[str, Any]", held_out)) if isinstance(held_out, Mapping) else ""
    return f"<article class='card'><h4>{escape(metric)}</h4><dl>{listed}</dl>{table}</article>"


def _held_out(metric: str, sets: Mapping[str, Any]) -> str:
    rows = "".join(
        _row(name, cast("Mapping[str, Any]", values))
        for name, values in sets.items()
        if isinstance(values, Mapping)
    )
    return (
        f"<div class='box' tabindex='0' role='region' aria-label='Accuracy of {escape(metric)}'>"
        "<table class='plain'><caption>Measured on texts that others have labelled.</caption><thead><tr>"
        "<th scope='col'>held out</th><th scope='col' class='n'>accuracy</th>"
        "<th scope='col' class='n'>AUC</th><th scope='col' class='n'>n</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(name: str, values: Mapping[str, Any]) -> str:
    def number(key: str) -> float:
        return float(values[key]) if isinstance(values.get(key), int | float) else float("nan")

    around = f" <small>{interval(number('low'), number('high'))}</small>" if "low" in values else ""
    of_accuracy, of_auc = (around, "") if "accuracy" in values else ("", around)
    return (
        f"<tr><th scope='row'>{escape(str(name))}</th>"
        f"<td class='n'>{three_digits(number('accuracy'))}{of_accuracy}</td>"
        f"<td class='n'>{three_digits(number('auc'))}{of_auc}</td>"
        f"<td class='n'>{three_digits(number('n'))}</td></tr>"
    )

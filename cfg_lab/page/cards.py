"""How good the classifiers are whose scores the page shows."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any, cast

from cfg_lab.formats import interval, short

METRICS = Path(__file__).parent.parent / "metrics"


def packaged_cards(metrics: Sequence[str], folder: Path = METRICS) -> dict[str, dict[str, Any]]:
    """Cards that lie beside the metrics, `<metric>.json`, `<metric>_head.json` or `<metric>_card.json`,
    of those metrics that the results have."""
    found: dict[str, dict[str, Any]] = {}
    for path in sorted(folder.glob("*.json")):
        metric = path.stem.removesuffix("_head").removesuffix("_card")
        if metric not in metrics:
            continue
        content = json.loads(path.read_text())
        if isinstance(content, dict):
            whole = cast("dict[str, Any]", content)
            found[metric] = {key: value for key, value in whole.items() if not isinstance(value, list)}
    return found


def cards_html(cards: Mapping[str, Mapping[str, Any]]) -> str:
    """A card a metric: its plain values as a list, `held_out` as a table. "" without cards.

    Args:
        cards: metric -> values. `held_out` maps a set's name to its accuracy, and perhaps low, high, n, auc.
    """
    return "".join(_card(metric, card) for metric, card in cards.items())


def _card(metric: str, card: Mapping[str, Any]) -> str:
    plain = {
        key: value for key, value in card.items() if isinstance(value, str | int | float) and key != "bias"
    }
    listed = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt>"
        f"<dd>{escape(short(value) if isinstance(value, float) else str(value))}</dd>"
        for key, value in plain.items()
    )
    held_out: Any = card.get("held_out")
    table = _held_out(metric, cast("Mapping[str, Any]", held_out)) if isinstance(held_out, Mapping) else ""
    return f"<article class='card'><h3>{escape(metric)}</h3><dl>{listed}</dl>{table}</article>"


def _held_out(metric: str, sets: Mapping[str, Any]) -> str:
    rows = "".join(
        _row(name, cast("Mapping[str, Any]", values))
        for name, values in sets.items()
        if isinstance(values, Mapping)
    )
    return (
        f"<div class='box' tabindex='0' role='region' aria-label='Accuracy of {escape(metric)}'>"
        "<table class='plain'><caption>Accuracy on texts it was not trained on.</caption><thead><tr>"
        "<th scope='col'>held out</th><th scope='col' class='n'>accuracy</th>"
        "<th scope='col' class='n'>AUC</th><th scope='col' class='n'>n</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row(name: str, values: Mapping[str, Any]) -> str:
    def number(key: str) -> float:
        return float(values[key]) if isinstance(values.get(key), int | float) else float("nan")

    around = f" <small>{interval(number('low'), number('high'))}</small>" if "low" in values else ""
    return (
        f"<tr><th scope='row'>{escape(str(name))}</th><td class='n'>{short(number('accuracy'))}{around}</td>"
        f"<td class='n'>{short(number('auc'))}</td><td class='n'>{short(number('n'))}</td></tr>"
    )

"""HTML that explains the metrics: what each metric measures, and how accurate the classifiers are."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any, cast

from cfg_lab.metrics.column_info import ANY_LANGUAGE
from cfg_lab.metrics.known_columns import column_info
from cfg_lab.study.formats import interval, three_digits


def meanings_html(metrics: Sequence[str]) -> str:
    """Return an HTML list that says what each metric measures; "" without metrics."""
    items = "".join(f"<dt>{escape(name)}</dt><dd>{meaning_html(name)}</dd>" for name in metrics)
    return f"<dl class='facts'>{items}</dl>" if metrics else ""


def meaning_html(metric: str) -> str:
    """Return one phrase: what a metric measures, which values are better, and for which languages.

    The languages are left out if they are all languages or not known.
    """
    info = column_info(metric)
    phrase = escape(info.meaning or "defined by its config")
    phrase += f"; {info.better} is better" if info.better else ""
    return phrase + ("" if info.languages in ("", ANY_LANGUAGE) else f"; languages: {escape(info.languages)}")


def cards_html(cards: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the cards of classifiers as HTML; "" without cards.

    A card says how accurate a classifier is on labelled texts.

    Args:
        cards: metric -> card. Texts and numbers in a card are shown as a list. The entry "held_out" is shown
            as a table. It maps the name of a set of labelled texts to a row with these entries:
            "n": number of texts.
            "accuracy", "auc": at least one of the two.
            "low", "high": optional. They are the ends of the interval of the accuracy, or of the AUC if there
            is no accuracy.
    """
    articles = "".join(_card_html(metric, card) for metric, card in cards.items())
    return f"<h3>How good the classifiers are</h3><div class='cards'>{articles}</div>" if cards else ""


def _card_html(metric: str, card: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in card.items() if isinstance(value, str | int | float)}
    items = "".join(
        f"<dt>{escape(key.replace('_', ' '))}</dt>"
        f"<dd>{escape(three_digits(value) if isinstance(value, float) else str(value))}</dd>"
        for key, value in plain.items()
    )
    held_out: Any = card.get("held_out")
    table = _table_html(metric, cast("Mapping[str, Any]", held_out)) if isinstance(held_out, Mapping) else ""
    return f"<article class='card'><h4>{escape(metric)}</h4><dl>{items}</dl>{table}</article>"


def _table_html(metric: str, held_out: Mapping[str, Any]) -> str:
    """The accuracies of a classifier as an HTML table, with one row per set of labelled texts."""
    rows = "".join(
        _row_html(name, cast("Mapping[str, Any]", values))
        for name, values in held_out.items()
        if isinstance(values, Mapping)
    )
    return (
        f"<div class='box' tabindex='0' role='region' aria-label='Accuracy of {escape(metric)}'>"
        "<table class='plain'><caption>Measured on texts that others have labelled.</caption><thead><tr>"
        "<th scope='col'>held out</th><th scope='col' class='n'>accuracy</th>"
        "<th scope='col' class='n'>AUC</th><th scope='col' class='n'>n</th></tr></thead>"
        f"<tbody>{rows}</tbody></table></div>"
    )


def _row_html(name: str, values: Mapping[str, Any]) -> str:
    def number(key: str) -> float:
        return float(values[key]) if isinstance(values.get(key), int | float) else float("nan")

    ends = f" <small>{interval(number('low'), number('high'))}</small>" if "low" in values else ""
    accuracy_ends, auc_ends = (ends, "") if "accuracy" in values else ("", ends)
    return (
        f"<tr><th scope='row'>{escape(str(name))}</th>"
        f"<td class='n'>{three_digits(number('accuracy'))}{accuracy_ends}</td>"
        f"<td class='n'>{three_digits(number('auc'))}{auc_ends}</td>"
        f"<td class='n'>{three_digits(number('n'))}</td></tr>"
    )

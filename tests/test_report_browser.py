"""The page in a real browser: what a reader sees and does, with a mouse, a keyboard and a phone."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import combinations, pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from cfg_lab import analysis
from cfg_lab.decoding.trace import DISTRIBUTIONS
from cfg_lab.metrics import packaged_cards
from cfg_lab.report import document
from cfg_lab.report.record import Record
from cfg_lab.report.scripts import FOLDER, join_modules
from cfg_lab.report.study_analysis import analyse_study
from cfg_lab.report.write import report
from cfg_lab.study.formats import MINUS, interval, p_value, signed, three_digits
from cfg_lab.study.results import load_results
from tests.cli import on, sweep
from tests.fabricated import results
from tests.test_report import HOSTILE

playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
axe = pytest.importorskip("axe_playwright_python.sync_playwright", reason="axe is not installed")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(BROWSER is None, reason="no chromium, chromium-browser or google-chrome on the PATH"),
]

QUIET = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
PHONE = {"viewport": {"width": 390, "height": 844}, "is_mobile": True, "has_touch": True}


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as running:
        opened = running.chromium.launch(executable_path=BROWSER, args=QUIET)
        yield opened
        opened.close()


@pytest.fixture(scope="module")
def swept(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> pd.DataFrame:
    """A real small sweep."""
    folder = tmp_path_factory.mktemp("swept")
    sweep(*on(folder, tiny_folder), "guidance.scale=1,2,3", "negatives=empty,own", "top=4")
    return load_results(folder / "results" / "study")


Open = Callable[..., Any]
ITEMS = "lists => lists.map(list => [...list.children].map(item => item.textContent))"
TWO_FRAMES = "() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))"
WHERE = "(e => e.closest('section, form, nav')?.id || e.tagName)(document.activeElement)"


@pytest.fixture
def show(browser: Any, tmp_path: Path) -> Iterator[Open]:
    """Open results or a file as a page from disk. At the end, fail if the page logged or fetched anything."""
    troubles: list[str] = []
    contexts: list[Any] = []

    def opened(source: pd.DataFrame | Path, **options: Any) -> Any:
        path = source if isinstance(source, Path) else tmp_path / "report.html"
        if isinstance(source, pd.DataFrame):
            cards = packaged_cards(["sentiment"])
            path.write_text(document(analyse_study(source, Record("study")), cards), encoding="utf-8")
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("dialog", lambda dialog: (troubles.append("dialog"), dialog.dismiss()))
        page.on(
            "request",
            lambda request: (
                None if request.url.startswith(("file:", "blob:", "data:")) else troubles.append(request.url)
            ),
        )
        page.goto(path.as_uri())
        page.wait_for_selector("html[data-ready]", timeout=120_000)
        return page

    yield opened
    for context in contexts:
        context.close()
    assert troubles == []


def read(page: Any, mode: str) -> None:
    page.locator(f"input[name=texts-mode][value={mode}]").dispatch_event("click")
    page.wait_for_selector("#texts-grid:not([aria-busy])", state="attached")


def background(page: Any) -> str:
    return page.evaluate("getComputedStyle(document.documentElement).backgroundColor")


def test_a_sweeps_page_opens_from_disk_without_error_or_request(
    tmp_path: Path, tiny_folder: Path, show: Open
) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2")
    page = show(report(tmp_path / "results" / "study"))
    assert page.locator("h1").inner_text().endswith("?")
    assert page.locator("#curves svg .point").count() == 2
    assert page.locator("#texts-grid article").count() == 2


def test_it_is_quick(show: Open) -> None:
    frame = results({1: 0, 1.5: 0.1, 2: 0.2, 3: 0.3}, prompts=60, samples=4, pieces=True, top=5)
    page = show(frame)
    assert page.evaluate("performance.getEntriesByName('cfg_lab-ready')[0].startTime") < 2000


def test_filters_hide_cells_everywhere(swept: pd.DataFrame, show: Open) -> None:
    page = show(swept)
    assert page.locator("#table tbody tr").count() == 6
    page.locator("#filters input[name=negatives][value=empty]").dispatch_event("click")
    assert page.locator("#filters output").inner_text() == "3 of 6 cells"
    for marks in ("#table tbody tr", "#curves .point", "#tradeoff-chart .point", "#heatmap button"):
        assert page.locator(marks).count() == 3, marks
    lines = page.locator(".plates label").first.locator(".line")
    assert lines.count() == 1
    page.locator("#filters input[name=negatives][value=own]").dispatch_event("click")
    assert lines.count() == 0
    for section in ("#curves", "#tradeoff-chart", "#texts-grid"):
        assert "No cell is shown" in page.locator(section).inner_text(), section


def test_texts_fall_back_to_cells_that_the_filters_show(show: Open) -> None:
    page = show(results({1: 0, 2: 0.1, 3: 0.3}, negatives=("empty", "own")))
    names, chosen = page.locator("#texts-grid h3"), page.locator("#texts-picker summary")
    page.locator("#curves .point").last.click()
    assert names.all_inner_texts() == ["negatives own, scale 1 unguided", "negatives own, scale 3"]
    own = page.locator("#filters input[name=negatives][value=own]")
    own.dispatch_event("click")
    page.wait_for_selector("#texts-grid:not([aria-busy])", state="attached")
    assert [name.split()[1] for name in names.all_inner_texts()] == ["empty,"] * 3
    assert chosen.inner_text().startswith("Cells: 3 chosen")
    chosen.click()
    assert page.locator("#texts-picker input:checked").count() == 3
    own.dispatch_event("click")
    assert chosen.inner_text().startswith("Cells: 2 chosen")
    for _ in range(2):
        page.locator("#texts-picker input:checked").first.dispatch_event("click")
    assert "No cell is chosen" in page.locator("#texts-grid").inner_text()


def test_hover_and_focus_show_a_cells_numbers_and_a_click_its_texts(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, negatives=("empty", "own")))
    point = page.locator("#curves .point").last
    point.hover()
    card = page.locator("#card")
    assert card.is_visible()
    for expected in ("negatives own, scale 2", "sentiment 0.", "n=40", "significantly better"):
        assert expected in card.inner_text()
    page.mouse.move(5, 5)
    assert card.is_hidden()
    point.click()
    shown = page.locator("#texts-grid h3").all_inner_texts()
    assert shown == ["negatives own, scale 1 unguided", "negatives own, scale 2"]
    assert page.evaluate("document.activeElement.id") == "h-texts"


@pytest.mark.parametrize("selector", ["#curves .mark", "#tradeoff-chart .mark", "#heatmap .heat"])
def test_a_first_tap_shows_the_numbers_and_a_second_the_texts(selector: str, show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, negatives=("empty", "own")), **PHONE)
    card, marks = page.locator("#card"), page.locator(selector)
    opened = "document.activeElement.id === 'h-texts'"
    marks.nth(0).tap(force=True)  # near marks overlap: whichever is on top answers
    assert "Tap again to read its texts." in card.inner_text()
    marks.nth(3).tap(force=True)
    assert card.is_visible(), "another mark has a first tap of its own"
    assert not page.evaluate(opened)
    page.locator("#h-answer").tap()
    assert card.is_hidden()
    for _ in range(2):
        assert not page.evaluate(opened)
        marks.nth(3).tap(force=True)
    assert page.evaluate(opened)
    assert card.is_hidden()


def test_the_difference_map_is_coloured_by_what_is_better(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, negatives=("empty", "own"), price=2))
    page.locator("input[name=map-show][value=change]").dispatch_event("click")

    def colour(metric: str) -> tuple[str, str]:
        page.locator("#map-controls select").first.select_option(metric)
        painted = page.locator("#heatmap .heat").nth(1)
        hue = painted.evaluate("cell => getComputedStyle(cell).getPropertyValue('--hue')")
        return hue, page.locator("#map-caption").inner_text()

    better, caption_of_better = colour("sentiment")
    worse, caption_of_worse = colour("perplexity")
    neutral, caption_of_neutral = colour("length")
    assert len({better, worse, neutral}) == 3
    assert "Blue is better than unguided (higher). Orange is worse." in caption_of_better
    assert "Blue is better than unguided (lower). Orange is worse." in caption_of_worse
    assert "Neither direction is better." in caption_of_neutral


def test_metrics_axes_and_sizes_can_be_chosen(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, negatives=("empty", "own")))
    page.locator("input[name=curves-metric][value=perplexity]").dispatch_event("click")
    assert "perplexity" in page.locator("#curves-caption").inner_text()
    page.locator("#tradeoff-controls select").nth(0).select_option("distinct_1")
    page.locator("#tradeoff-controls select").nth(2).select_option("length")
    assert "distinct_1 against perplexity" in page.locator("#tradeoff-caption").inner_text()
    page.locator("#tradeoff-controls select").nth(1).select_option("distinct_1")
    assert "two different metrics" in page.locator("#tradeoff-chart").inner_text()
    page.locator("input[name=map-show][value=change]").dispatch_event("click")
    assert page.locator("#heatmap button").first.inner_text() == "0"
    page.locator("#curves-table summary").click()
    assert page.locator("#curves-table tbody tr").count() == 4


@pytest.mark.parametrize(
    ("sentiment", "leakage", "opens"),
    [(0.3, 0, "sentiment"), (0, -0.3, "leakage"), (0, 0, "sentiment"), (0.3, -0.3, "sentiment")],
)
def test_the_tradeoff_opens_on_the_first_aim_with_a_significant_change(
    sentiment: float, leakage: float, opens: str, show: Open
) -> None:
    frame = results({1: 0, 2: sentiment})
    frame["leakage"] = frame["distinct_1"] + leakage * (frame["guidance.scale"] - 1)
    page = show(frame)
    assert page.locator("#tradeoff-controls select").first.input_value() == opens


# left, top, right, bottom of the names in the trade-off; x, y, radius of its marks with their rings
NAMES = """all => all.map(e => e.getBoundingClientRect()).map(r => [r.left, r.top, r.right, r.bottom])"""
MARKS = """all => all.map(e => e.getBoundingClientRect()).map(
    r => [(r.left + r.right) / 2, (r.top + r.bottom) / 2, r.width / 2])"""


@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_the_tradeoff_names_unguided_once_and_no_name_covers_anything(
    options: dict[str, Any], show: Open
) -> None:
    scales = {1: 0, 1.25: 0.02, 1.5: 0.04, 2: 0.1, 3: 0.12}
    page = show(results(scales, negatives=("empty", "own"), price=0.05), **options)
    names = page.locator("#tradeoff-chart .mark-name")
    texts = names.all_text_contents()
    assert texts.count("unguided") == 1
    assert texts.count("3") == 2
    boxes = names.evaluate_all(NAMES)
    assert len(boxes) > 4
    for a, b in combinations(boxes, 2):
        apart = a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] + 3 or b[3] <= a[1] + 3
        assert apart, (texts, a, b)
    marks = page.locator("#tradeoff-chart :is(.ring, .mark)").evaluate_all(MARKS)
    assert len(marks) >= 10
    for x, y, radius in marks:
        for left, top, right, bottom in boxes:
            near = (min(max(x, left), right), min(max(y, top + 2), bottom - 2))
            assert math.dist((x, y), near) > radius - 1, (texts, x, y)
    width = page.evaluate("document.documentElement.clientWidth")
    assert all(left >= 0 and right <= width for left, _, right, _ in boxes)


def test_the_table_sorts_and_says_so(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3, 3: 0.1}))
    header = page.locator("#table thead button", has_text="sentiment")
    header.click()
    scales = [row.split()[1] for row in page.locator("#table tbody tr").all_inner_texts()]
    assert page.locator("#table th[aria-sort=ascending]").inner_text().startswith("sentiment")
    header.click()
    assert page.locator("#table th[aria-sort=descending]").count() == 1
    again = [row.split()[1] for row in page.locator("#table tbody tr").all_inner_texts()]
    assert again == scales[::-1]


def test_chinese_texts_are_compared_by_character_and_no_character_of_a_prompt_is_cut(show: Open) -> None:
    frame = results({1: 0, 2: 0.3}, prompts=2, samples=1)
    guided = frame["guidance.scale"] == 2
    frame["text"] = [
        "今天天气真好，他们去公园。" if each else "今天天气很好，我们去公园。" for each in guided
    ]
    frame["prompt"] = "😀" * 70
    page = show(frame)
    read(page, "differences")
    assert page.locator("#texts-grid ins").all_inner_texts() == ["真", "他"]
    names = page.locator("#texts-controls option").all_text_contents()
    assert f"p0: {'😀' * 59}…" in names


def test_texts_are_shown_beside_each_other_with_their_differences(swept: pd.DataFrame, show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}))
    cards = page.locator("#texts-grid .body")
    assert cards.all_inner_texts() == ["The knight rode\n home.", "The knight rode\n home. Then own 2"]
    read(page, "differences")
    assert page.locator("#texts-grid ins").all_inner_texts() == ["Then own 2"]
    assert (
        "3 of 7 words differ from unguided. The first is word 5." in page.locator("#texts-grid").inner_text()
    )
    page.locator("#texts-controls [data-step=on]").click()
    assert page.locator("#texts-prompt").inner_text().endswith("knight 1")
    page = show(swept)
    page.locator("#texts-picker summary").click()
    page.get_by_role("button", name="all cells").click()
    assert page.locator("#texts-grid article").count() == 6
    chosen = swept[(swept["prompt_id"] == "p0") & (swept["sample"] == 0)]
    bodies = page.locator("#texts-grid .body").evaluate_all("all => all.map(e => e.textContent)")
    assert set(bodies) == {text or "empty text" for text in chosen["text"]}
    assert page.locator("#texts-prompt").inner_text() == "Prompt Text 0\nNegative bad:0.1, dull"


def test_tokens_are_coloured_and_show_numbers_and_alternatives(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, pieces=True, top=3))
    read(page, "tokens")
    tokens = page.locator("#texts-grid article").nth(1).locator(".t")
    assert tokens.count() == 6
    assert tokens.nth(1).get_attribute("class") == "t up l5"
    assert tokens.nth(4).get_attribute("class") == "t down l4"
    assert "more likely through guidance" in page.locator("#legend").inner_text()
    tokens.nth(1).hover()
    inspector = page.locator("#inspector")
    assert "+3 nats, 20.1 times as likely" in inspector.inner_text()
    names, values = inspector.locator("dt").all_inner_texts(), inspector.locator("dd").all_inner_texts()
    assert dict(zip(names, values, strict=True)) == {
        "guided log-prob": f"{MINUS}1 (37 %)",
        "positive log-prob": f"{MINUS}4 (2 %)",
        "negative log-prob": f"{MINUS}5 (<1 %)",
        "entropy of guided": "1.25 nats",
        "KL(positive‖negative)": "0.5 nats",
        "scale": "2",
    }
    assert inspector.locator("h4").all_inner_texts() == list(DISTRIBUTIONS)
    assert [len(column) for column in inspector.locator("ol").evaluate_all(ITEMS)] == [3, 3, 3]
    assert inspector.locator("ol").first.inner_text().split() == [
        "guided0",
        "61",
        "%",
        "guided1",
        "22",
        "%",
        "guided2",
        "8",
        "%",
    ]
    tokens.nth(0).focus()
    page.keyboard.press("End")
    assert "0 nats, unchanged" in page.locator("#inspector").inner_text()


@pytest.mark.parametrize("way", ["click", "tap", "Enter", "Escape"])
def test_the_inspector_closes_and_gives_the_focus_back(way: str, show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, pieces=True, top=3), **(PHONE if way == "tap" else {}))
    read(page, "tokens")
    tokens, inspector = page.locator("#texts-grid .t"), page.locator("#inspector")
    tokens.nth(2).focus()
    assert inspector.is_visible()
    close = inspector.locator(".close")
    if way in ("click", "tap"):
        getattr(close, way)()
    elif way == "Enter":
        close.press("Enter")
    else:
        page.keyboard.press("Escape")
    assert inspector.is_hidden()
    assert tokens.nth(2).evaluate("token => token === document.activeElement")
    tokens.nth(3).hover()
    assert inspector.is_hidden(), "hovering opened it again"
    page.keyboard.press("Enter")
    assert inspector.is_visible()


def test_without_alternatives_or_pieces_the_page_says_what_to_do(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3}, pieces=True))
    read(page, "tokens")
    page.locator("#texts-grid .t").first.hover()
    assert "Run the sweep with top=5" in page.locator("#inspector").inner_text()
    page = show(results({1: 0, 2: 0.3}))
    read(page, "tokens")
    assert "made before the text of each token was kept" in page.locator("#texts-note").inner_text()
    assert page.locator("#texts-grid article").count() == 2


def test_a_real_sweeps_tokens_open(swept: pd.DataFrame, show: Open) -> None:
    page = show(swept)
    read(page, "tokens")
    page.locator("#texts-grid .t").last.hover()
    lists = page.locator("#inspector ol")
    assert lists.count() == 3
    assert [lists.nth(number).locator("li").count() for number in range(3)] == [4, 4, 4]


def test_everything_is_reached_by_keyboard(show: Open) -> None:
    page = show(results({1: 0, 2: 0.3, 3: 0.1}, negatives=("empty", "own"), pieces=True, top=2))
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached: set[str] = set()
    for _ in range(120):
        page.keyboard.press("Tab")
        reached.add(page.evaluate(WHERE))
    assert {"filters", "scale", "tradeoff", "map", "cells", "texts", "repeat"} <= reached
    first = page.locator("#curves .point").first
    first.focus()
    assert page.locator("#card").is_visible()
    page.keyboard.press("ArrowRight")
    assert page.evaluate("document.activeElement === document.querySelectorAll('#curves .point')[1]")
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "h-texts"
    assert page.locator("#curves .point[tabindex='0']").count() == 1


@pytest.mark.parametrize("mode", ["text", "differences", "tokens"])
def test_a_phone_needs_no_sideways_scrolling(mode: str, show: Open) -> None:
    scales = {1: 0, 1.25: 0.1, 1.5: 0.1, 2: 0.3, 3: 0.2}
    frame = results(scales, negatives=("empty", "own", "last_token"), pieces=True, top=5)
    frame["prompt"] = "A_prompt_without_any_space_" * 12
    page = show(frame, **PHONE)
    read(page, mode)
    if mode == "tokens":
        page.locator("#texts-grid .t").nth(1).tap()
        assert page.locator("#inspector").is_visible()
    for summary in page.locator("summary").all():
        summary.click()
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


@pytest.mark.parametrize("width", [320, 390])
def test_a_phone_shows_at_least_two_metrics_per_row(width: int, show: Open) -> None:
    frame = results({1: 0, 2: 0.3}).assign(
        a_metric_with_a_very_long_name_in_one_word=0.5, negatives_saved=0.1
    )
    page = show(frame, **{**PHONE, "viewport": {"width": width, "height": 844}})
    tops = page.locator(".plates label").evaluate_all("all => all.map(e => e.getBoundingClientRect().top)")
    assert len(tops) == 6
    rows = Counter(map(round, tops))
    assert all(count >= 2 for count in list(rows.values())[:-1]), rows
    assert len(rows) <= 3


def test_cells_are_marked_as_unguided_by_their_requests_and_not_by_their_scale(show: Open) -> None:
    frame = results({1: 0.1, 2: 0, 3: 0.3}, prompts=4)
    frame["negative_ids"] = [[] if scale == 2 else [[1]] for scale in frame["guidance.scale"]]
    page = show(frame)
    assert page.locator("#table tbody tr.unguided").all_inner_texts()[0].split()[0] == "2"
    assert page.locator("#table tbody tr.unguided").count() == 1
    line, ticks = page.locator("#curves line.off"), page.locator("#curves .tickline")
    assert line.count() == 1
    assert line.get_attribute("x1") == ticks.nth(1).get_attribute("x1")
    assert "unguided" in page.locator("#tradeoff-chart .mark-name").all_text_contents()


def test_numbers_look_the_same_in_scripts_as_in_python(browser: Any) -> None:
    random = np.random.default_rng(0)
    magnitudes = 10.0 ** random.uniform(-7, 6, 3000) * random.choice([-1, 1], 3000)
    values = [0.0, 1.0, -1.0, 0.5, 1e-5, 999.4, 999.5, 999.9, 1000.0, *magnitudes.tolist()]
    sources = {"numbers": (FOLDER / "numbers.js").read_text()}
    sources["main"] = (
        'import { intervalText, numberText, pValueText, signedText } from "./numbers.js";\n'
        "Object.assign(window, { intervalText, numberText, pValueText, signedText });\n"
    )
    page = browser.new_page()
    page.add_script_tag(content=join_modules(sources, "main"))
    assert page.evaluate("values => values.map(numberText)", values) == [three_digits(v) for v in values]
    assert page.evaluate("values => values.map(signedText)", values) == [signed(v) for v in values]
    chances = random.uniform(0, 1, 500).tolist() + (10.0 ** random.uniform(-5, 0, 500)).tolist()
    assert page.evaluate("values => values.map(pValueText)", chances) == [p_value(p) for p in chances]
    pairs = list(pairwise(values))
    written = page.evaluate("pairs => pairs.map(([low, high]) => intervalText(low, high))", pairs)
    assert written == [interval(low, high) for low, high in pairs]
    unknown = page.evaluate("[numberText(null), pValueText(null), intervalText(null, 1)]")
    assert unknown == [three_digits(math.nan), p_value(math.nan), interval(math.nan, 1)]
    page.close()


def test_no_classifiers_card_reaches_over_a_phones_edge(show: Open, tmp_path: Path) -> None:
    path = tmp_path / "cards.html"
    cards = packaged_cards(["leakage", "relevance", "sentiment", "toxicity"])
    assert len(cards) == 4
    path.write_text(
        document(analyse_study(results({1: 0, 2: 0.3}), Record("study")), cards), encoding="utf-8"
    )
    page = show(path, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") <= 390


def test_a_phone_shows_all_columns_of_a_map_and_breaks_names_at_underscores(show: Open) -> None:
    frame = results({1: 0, 1.25: 0.01, 1.5: 0.02, 2: 0.0061, 3: 0.3}, negatives=("empty", "own"))
    frame["forward_tokens"] = frame["length"]
    page = show(frame, **PHONE)
    for value in ("mean", "change"):
        page.locator(f"input[name=map-show][value={value}]").dispatch_event("click")
        box = "document.querySelector('#heatmap .box')"
        assert page.evaluate(f"{box}.scrollWidth <= {box}.clientWidth"), value
        assert page.locator("#heatmap .heat").evaluate_all(
            "all => all.every(e => e.scrollWidth <= e.clientWidth)"
        )
    name = page.locator(".plates label", has_text="forward_tokens").locator(".plate-name")
    assert name.evaluate("e => [...e.childNodes].map(node => node.textContent)") == ["forward_", "", "tokens"]
    assert name.evaluate("e => e.scrollWidth <= e.clientWidth && e.getClientRects().length === 1")


@pytest.mark.parametrize(("options", "more"), [({}, False), (PHONE, True)], ids=["desk", "phone"])
def test_a_table_that_goes_on_beyond_the_edge_fades_there(
    options: dict[str, Any], more: bool, show: Open
) -> None:
    """Six metrics fit a desk; a phone says that there are more."""
    frame = results({1: 0, 2: 0.3})
    for name in ("leakage", "toxicity", "relevance"):
        frame[name] = frame["distinct_1"] / 9
    page = show(frame, **options)
    faded = "box => getComputedStyle(box).maskImage !== 'none'"
    for selector in ("#table .box", "#answer .box >> nth=0"):
        box = page.locator(selector)
        page.evaluate(TWO_FRAMES)  # a ResizeObserver reports with the next frame
        assert box.evaluate("box => box.scrollWidth > box.clientWidth + 1") is more, selector
        assert box.evaluate(faded) is more, selector
        box.evaluate("box => box.scrollTo(box.scrollWidth, 0)")
        page.evaluate(TWO_FRAMES)
        assert not box.evaluate(faded), selector


def test_dark_mode_has_its_own_colours_that_can_be_read(show: Open) -> None:
    frame = results({1: 0, 2: 0.3})
    light, dark = show(frame), show(frame, color_scheme="dark")
    assert background(light) != background(dark)
    for page in (light, dark):
        colour = page.evaluate("getComputedStyle(document.querySelector('.deck')).color")
        assert contrast(colour, background(page)) > 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("options", [{}, PHONE], ids=["desk", "phone"])
def test_axe_finds_nothing_to_mend(scheme: str, options: dict[str, Any], show: Open) -> None:
    """axe-core's rules of WCAG 2 and its best practices, with every part of the page open."""
    frame = results({1: 0, 1.5: 0.2, 2: 0.3}, negatives=("empty", "own"), pieces=True, top=3)
    page = show(frame, color_scheme=scheme, bypass_csp=True, **options)
    for summary in page.locator("summary").all():
        summary.click()
    for mode in ("text", "differences", "tokens"):
        read(page, mode)
        if mode == "tokens":
            page.locator("#texts-grid .t").nth(1).click()
        violations = axe.Axe().run(page).response["violations"]
        assert [(rule["id"], node["html"]) for rule in violations for node in rule["nodes"]] == []


def contrast(first: str, second: str) -> float:
    """WCAG 2 contrast ratio of two rgb() colours."""

    def luminance(colour: str) -> float:
        channels = [int(part) / 255 for part in colour[colour.index("(") + 1 : -1].split(",")[:3]]
        linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    high, low = sorted((luminance(first), luminance(second)), reverse=True)
    return (high + 0.05) / (low + 0.05)


def test_hostile_texts_are_shown_as_text(show: Open) -> None:
    """And as prompts, names of settings, pieces and alternatives."""
    frame = results({1: 0, 2: 0.3}, prompts=len(HOSTILE), pieces=True, top=2)
    hostile = [HOSTILE[int(name[1:])] for name in frame["prompt_id"]]
    frame["text"] = pd.Series(hostile, dtype=object)  # Arrow's strings hold no lone surrogate
    frame["prompt_id"] = frame["prompt"] = [text.encode("utf-8", "replace").decode() for text in hostile]
    frame["pieces"] = [HOSTILE[:6]] * len(frame)
    frame["negatives"] = HOSTILE[1]
    frame.loc[frame["guidance.scale"] == 2, "model_name"] = HOSTILE[0]
    page = show(frame)
    for text in HOSTILE:
        for mode in ("text", "differences", "tokens"):
            read(page, mode)
            shown = page.locator("#texts-grid .body").first.evaluate("e => e.textContent")
            if mode == "text":
                assert shown == text
        page.locator("#texts-controls [data-step=on]").click()
    assert page.locator("main img").count() == 0
    assert page.evaluate("document.scripts.length") == 2 + page.locator("script[id^=pack-]").count()


def test_csv_holds_every_text_and_number(show: Open, tmp_path: Path) -> None:
    frame = results({1: 0, 2: 0.3}, text='a "quoted", text\nwith lines')
    page = show(frame)
    for number, name in enumerate(("summary", "texts")):
        with page.expect_download() as started:
            page.locator("#downloads button").nth(number).click()
        assert started.value.suggested_filename == f"study-{name}.csv"
        started.value.save_as(tmp_path / f"{name}.csv")
    texts = pd.read_csv(tmp_path / "texts.csv")
    assert sorted(texts["text"]) == sorted(frame["text"])
    assert texts["sentiment"].mean() == pytest.approx(frame["sentiment"].mean(), rel=1e-3)
    summary = pd.read_csv(tmp_path / "summary.csv").set_index("guidance.scale")
    assert len(summary) == 2
    compared = analysis.comparisons(frame, ["sentiment", "perplexity", "distinct_1"]).set_index("metric")
    for metric, row in compared.iterrows():
        for column in ("difference", "p", "p_holm", "effect", "needed"):
            assert summary.loc[2, f"{metric}_{column}"] == pytest.approx(row[column], rel=1e-4)


def test_a_single_cell_and_a_single_prompt_draw(show: Open) -> None:
    page = show(results({2: 0.1}, prompts=1, samples=1))
    assert page.locator("#tradeoff").is_hidden()
    assert page.locator("#map").is_hidden()
    assert page.locator("#curves svg").count() == 1
    assert page.locator("nav li:visible").all_inner_texts() == [
        "Answer", "Scale", "Cells", "Texts", "Metrics", "Repeat",
    ]  # fmt: skip


def test_a_study_without_a_scale_is_drawn_row_by_row(show: Open) -> None:
    frame = results({1.5: 0}, negatives=("empty", "own-words"))
    frame["completion"] = frame["negatives"] + frame["completion"]
    page = show(frame)
    assert page.locator("#h-scale").inner_text().endswith("Metric by metric")
    assert page.locator("#curves .row-label").all_text_contents() == [
        "negatives empty",
        "negatives own-words",
    ]


def test_a_large_grid_keeps_its_table_and_names_in_bounds(show: Open) -> None:
    frame = results(
        {1 + step / 4: 0.01 * step for step in range(10)},
        negatives=[f"n{number}" for number in range(20)],
        prompts=3,
        samples=1,
    )
    page = show(frame)
    assert page.locator("#table tbody tr").count() == 200
    assert page.locator("#table .box").bounding_box()["height"] < 900
    assert page.locator("#curves .key li").count() == 20
    page.locator("#curves .point").nth(30).focus()
    assert page.locator("#curves .line.faded").count() == 19

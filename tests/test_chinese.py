"""README and the pages of docs have the same sections, commands, numbers, names and links in Chinese."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from cfg_lab.options import CONFIG

REPOSITORY = CONFIG.parent
PAGES = [
    path
    for path in (REPOSITORY / "README.md", *sorted((REPOSITORY / "docs").glob("*.md")))
    if not path.name.endswith(".zh.md")
]
EVERY_PAGE = pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)


def sections(text: str) -> list[tuple[int, str]]:
    """The sections of a README: level of the heading, and all text up to the next heading."""
    outside_code = re.sub(r"(?ms)^```.*?^```$", lambda block: block[0].replace("\n#", "\n\\#"), text)
    parts = re.split(r"(?m)^(#+) ", outside_code)
    return [(len(marks), body) for marks, body in zip(parts[1::2], parts[2::2], strict=True)]


def in_chinese(page: Path) -> Path:
    return page.with_suffix(".zh.md")


def texts_of(page: Path) -> tuple[str, str]:
    """A page in English and in Chinese."""
    return page.read_text("utf-8"), in_chinese(page).read_text("utf-8")


SECTIONS = {
    f"{page.stem}, {english.partition(chr(10))[0]}": (english, chinese)
    for page in PAGES
    for (_, english), (_, chinese) in zip(*map(sections, texts_of(page)), strict=False)
}
EVERY_SECTION = pytest.mark.parametrize(("english", "chinese"), SECTIONS.values(), ids=SECTIONS)


def code(text: str) -> list[str]:
    """The lines of code blocks, fenced or indented, without what is said about them further right."""
    fenced = "\n".join(re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)).splitlines()
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    return [re.split(r"(?<=\S)\s{2,}", line)[0] for line in fenced + indented]


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


@EVERY_PAGE
def test_the_headings_have_the_same_number_and_levels(page: Path) -> None:
    english, chinese = map(sections, texts_of(page))
    assert [level for level, _ in chinese] == [level for level, _ in english]
    assert len(english) > (5 if page == PAGES[0] else 0)


@EVERY_SECTION
def test_the_commands_and_code_are_the_same(english: str, chinese: str) -> None:
    assert code(chinese) == code(english)


@EVERY_SECTION
def test_the_numbers_and_the_names_in_code_type_are_the_same(english: str, chinese: str) -> None:
    assert numbers(chinese) == numbers(english)
    assert Counter(re.findall(r"`[^`\n]+`", chinese)) == Counter(re.findall(r"`[^`\n]+`", english))


@EVERY_SECTION
def test_tables_have_the_same_rows_with_the_same_numbers(english: str, chinese: str) -> None:
    rows, rows_in_english = (re.findall(r"(?m)^\|.*\|$", text) for text in (chinese, english))
    assert [row.count("|") for row in rows] == [row.count("|") for row in rows_in_english]
    for row, row_in_english in zip(rows, rows_in_english, strict=True):
        assert re.findall(r"\d[\d.]*", row) == re.findall(r"\d[\d.]*", row_in_english)


@EVERY_SECTION
def test_there_are_as_many_points_in_every_list(english: str, chinese: str) -> None:
    assert len(re.findall(r"(?m)^- ", chinese)) == len(re.findall(r"(?m)^- ", english))


@EVERY_PAGE
def test_each_links_to_the_other_and_all_links_work(page: Path) -> None:
    links, links_in_english = (re.findall(r"\]\(([^)\s]+)\)", text) for text in reversed(texts_of(page)))
    assert (links[0], links_in_english[0]) == (page.name, in_chinese(page).name)
    for link, link_in_english in zip(links[1:], links_in_english[1:], strict=True):
        if link.startswith("https://"):
            assert link == link_in_english
        else:
            target = page.parent / link_in_english
            translated = target.resolve() in PAGES
            assert (page.parent / link).resolve() == (in_chinese(target) if translated else target).resolve()
            assert (page.parent / link).exists(), link


def test_readme_names_every_page() -> None:
    names = {page.relative_to(REPOSITORY).as_posix() for page in PAGES[1:]}
    assert {f"docs/{name}.md" for name in ("benchmarks", "options")} < names
    assert names <= {*re.findall(r"\]\(([^)\s]+)\)", PAGES[0].read_text("utf-8"))}

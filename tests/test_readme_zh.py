"""README.zh.md is README.md in Chinese: the same sections, commands, numbers, names and links."""

from __future__ import annotations

import re
from collections import Counter

import pytest

from cfg_lab.options import CONFIG

REPOSITORY = CONFIG.parent
ENGLISH, CHINESE = ((REPOSITORY / name).read_text("utf-8") for name in ("README.md", "README.zh.md"))


def sections(text: str) -> list[tuple[int, str]]:
    """The sections of a README: level of the heading, and all text up to the next heading."""
    outside_code = re.sub(r"(?ms)^```.*?^```$", lambda block: block[0].replace("\n#", "\n\\#"), text)
    parts = re.split(r"(?m)^(#+) ", outside_code)
    return [(len(marks), body) for marks, body in zip(parts[1::2], parts[2::2], strict=True)]


SECTIONS = list(zip(sections(ENGLISH), sections(CHINESE), strict=False))
EVERY_SECTION = pytest.mark.parametrize(
    ("english", "chinese"),
    [(english, chinese) for (_, english), (_, chinese) in SECTIONS],
    ids=[english.partition("\n")[0] for (_, english), _ in SECTIONS],
)


def code(text: str) -> list[str]:
    """The lines of code blocks, fenced or indented, without what is said about them further right."""
    fenced = "\n".join(re.findall(r"(?ms)^```\w*\n(.*?)^```$", text)).splitlines()
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    return [re.split(r"(?<=\S)\s{2,}", line)[0] for line in fenced + indented]


def numbers(text: str) -> Counter[str]:
    return Counter(re.findall(r"\d+(?:[.,]\d+)*", text))


def test_the_headings_have_the_same_number_and_levels() -> None:
    assert [level for level, _ in sections(CHINESE)] == [level for level, _ in sections(ENGLISH)]
    assert len(SECTIONS) > 5


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


def test_each_links_to_the_other_and_all_links_work() -> None:
    links, links_in_english = (re.findall(r"\]\(([^)\s]+)\)", text) for text in (CHINESE, ENGLISH))
    assert links[0] == "README.md"
    assert links_in_english[0] == "README.zh.md"
    assert links[1:] == links_in_english[1:]
    for link in links:
        assert link.startswith("https://") or (REPOSITORY / link).exists(), link

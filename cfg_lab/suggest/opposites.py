"""Words for the aims of the packaged metrics: what is wanted, and its opposite."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import NamedTuple

from cfg_lab.metrics.column_info import Direction


class AimInWords(NamedTuple):
    """An aim as words that follow "It should be".

    Attributes:
        wanted: what texts should be.
        opposites: what they should not be. The first one is "the opposite" in comparisons.
    """

    wanted: str
    opposites: tuple[str, ...]


IN_WORDS: Mapping[tuple[str, Direction], AimInWords] = MappingProxyType(
    {
        ("sentiment", "higher"): AimInWords("positive", ("negative", "sad", "disappointing", "angry")),
        ("sentiment", "lower"): AimInWords("negative", ("positive", "happy", "cheerful", "hopeful")),
        ("toxicity", "lower"): AimInWords("polite", ("toxic", "insulting", "threatening", "rude")),
        ("relevance", "higher"): AimInWords("on topic", ("off topic", "irrelevant", "unrelated")),
        ("perplexity", "lower"): AimInWords("fluent", ("incoherent", "unnatural", "ungrammatical")),
        ("longest_repeat", "lower"): AimInWords("varied", ("repetitive", "monotonous", "redundant")),
        ("reading_ease", "higher"): AimInWords("easy to read", ("hard to read", "complicated", "technical")),
        ("reading_ease", "lower"): AimInWords("sophisticated", ("easy to read", "simple", "childish")),
        ("formality", "higher"): AimInWords("formal", ("informal", "casual", "slang")),
        ("formality", "lower"): AimInWords("informal", ("formal", "stiff", "bureaucratic")),
        ("length", "higher"): AimInWords("long", ("short", "brief", "unfinished")),
        ("length", "lower"): AimInWords("short", ("long", "wordy", "rambling")),
    }
)
"""Column of a metric and its good direction -> the aim in words."""

_WORDS = """
window paper river chair lamp road bread stone garden table bottle cloud basket button curtain ladder
engine carpet pencil bridge mirror pocket blanket wheel hammer island kettle letter market needle orange
pillow rabbit saddle tunnel velvet wallet yellow zipper anchor barrel candle drawer feather glove hanger
jacket kitchen lemon meadow notebook oven parcel quilt ribbon shelf teapot umbrella valley wagon yard
acorn bucket copper daily eastern fabric granite hourly inland jar knitted lower metal northern outdoor
plastic quarterly round seasonal tall upper vertical wooden annual blue central diagonal early flat green
horizontal indoor local medium narrow official parallel quiet regional square tiny urban weekly
"""

ORDINARY_WORDS = tuple(_WORDS.split())
"""Ordinary words that name no quality of a text: random phrases for comparisons are drawn from them."""

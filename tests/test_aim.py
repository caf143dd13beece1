"""Aims: a column of a metric and the direction that is good."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from cfg_lab.errors import InputError
from cfg_lab.metrics.length import Length
from cfg_lab.metrics.repetition import Repetition
from cfg_lab.metrics.self_bleu import SelfBleu
from cfg_lab.study.aim import check_per_text, parse_aim
from tests.texts import text

METRICS = [Length(), Repetition(), SelfBleu()]


def test_rewards_are_high_where_a_text_is_good() -> None:
    texts = [text("a b c d"), text("a b a b a b a b a b a b")]
    repetition = parse_aim("repeated_4", METRICS)
    assert repetition.better == "lower"
    values = np.array(Repetition().score(texts)["repeated_4"])
    assert list(repetition.rewards(texts)) == list(-values)
    assert list(parse_aim("+repeated_4", METRICS).rewards(texts)) == list(values)
    assert repetition.rewards(texts)[0] > repetition.rewards(texts)[1]


@pytest.mark.parametrize(
    ("aim", "message"),
    [
        ("lenght", "no metric of this command gives the column 'lenght'.*did you mean length"),
        ("length", r"neither high nor low values are good in general; write \+length or -length"),
        ("-", "must be the name of a column"),
        (3, "must be the name of a column"),
    ],
)
def test_a_wrong_aim_is_named(aim: Any, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_aim(aim, METRICS)


def test_a_reward_is_of_a_single_text() -> None:
    check_per_text(parse_aim("-length", METRICS))
    with pytest.raises(InputError, match="'self_bleu', which is measured on all texts of a cell together"):
        check_per_text(parse_aim("-self_bleu", METRICS))

"""Decodes the texts of adaptive scales again with their own scales in another order, held-out half.

Run `python -m experiments.learned_scale.shuffled` after the training and the sweeps. The policy, and each KL
budget, gets one more cell.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

import cfg_lab
from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Prompt, Request
from cfg_lab.analysis.frame import settings_of
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.models import LanguageModel
from cfg_lab.study.columns import CELL_COLUMNS, COMPLETION_COLUMNS, Decoded, row
from cfg_lab.study.config import build, compose_group
from cfg_lab.study.console import open_console
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.scoring import score_missing
from cfg_lab.study.store import Store
from experiments.record import size_of

ADAPTIVE = ("policy", "kl_budget")
"""Options of guidance/adaptive whose scales change from token to token."""

METRICS = "metrics=[sentiment,leakage,perplexity,kl_from_plain,relevance,diversity,length,cost]"


@dataclass(frozen=True, kw_only=True)
class Replay:
    """A schedule that repeats given shares of guidance.

    Args:
        shares: one share per token. A longer text begins with the first again.
    """

    shares: tuple[float, ...]

    def share(self, step: int) -> float:
        return self.shares[step % len(self.shares)]


def main(folder: Path) -> None:
    """Decode, store and score the shuffled cells.

    Args:
        folder: the results folder of the training and the sweeps.
    """
    store, console = Store(folder), open_console()
    results = pd.DataFrame(cfg_lab.load_results(folder))
    texts = results[
        results["guidance.adaptive"].isin(ADAPTIVE)
        & (results["guidance.schedule"] == "constant")
        & (results["prompts.half"] == "held_out")
    ]
    model = cfg_lab.load_model(texts["model.name"].iloc[0])
    cells = list(texts["cell"].unique())
    for cell in cells:
        decode(store, model, f"shuffled-{cell}", texts[texts["cell"] == cell])
    metrics = list(build(compose_group("metrics", [METRICS], "shuffled"), "metrics").values())
    score_missing(store, metrics, console, {f"shuffled-{cell}" for cell in cells})


def decode(store: Store, model: LanguageModel, cell: str, texts: pd.DataFrame) -> None:
    """Store a cell with the texts of another one, each with its own scales in another order."""
    first: dict[str, Any] = texts.iloc[0].to_dict()
    planned = [_planned(text, number, model) for number, text in enumerate(texts.to_dict("records"))]
    settings = {name: _plain(first[name]) for name in settings_of(texts)} | {"guidance.schedule": "shuffled"}
    store.write_cell(cell, settings, [row(CELL_COLUMNS, text) for text in planned])
    missing = {id(text.request): text for text in planned if text.completion_id not in store.completion_ids()}
    rows = [
        row(
            COMPLETION_COLUMNS,
            Decoded(
                planned=missing[id(completion.request)],
                completion=completion,
                models=tuple(model for _ in completion.request.contexts),
                text=model.decode(completion.text_tokens),
            ),
        )
        for completion in Decoder(model).decode([text.request for text in missing.values()])
    ]
    if rows:
        store.add_completions(rows)


def _planned(text: dict[str, Any], number: int, model: LanguageModel) -> PlannedText:
    """The text again, with its scales in a random order that is fixed by its number."""
    scales = np.random.default_rng([0, number]).permutation(np.asarray(text["trace_scale"], np.float64))
    largest = float(text["guidance.scale"])
    shares = tuple(float(round((scale - 1) / (largest - 1), 4)) for scale in scales)
    request = Request(
        positive=tuple(map(int, text["positive_ids"])),
        negatives=tuple(
            Branch(tuple(map(int, ids)), float(weight))
            for ids, weight in zip(text["negative_ids"], text["negative_weights"], strict=True)
        ),
        guidance=ClassifierFreeGuidance(scale=largest, schedule=Replay(shares=shares)),
        sampling=Sampling(
            temperature=float(text["sampling.temperature"]), top_p=float(text["sampling.top_p"])
        ),
        max_new_tokens=int(text["max_new_tokens"]),
        stop_ids=model.stop_ids,
        seed=int(text["seed"]),
        sample=int(text["sample"]),
    )
    prompt = Prompt(id=text["prompt_id"], text=text["prompt"], negative=text["prompt_negative"])
    return PlannedText(prompt=prompt, request=request, completion_id=request.id(model.fingerprint))


def _plain(value: Any) -> Any:
    """A setting as JSON data. NaN stands for a setting that the cell does not have."""
    value = value.item() if isinstance(value, np.generic) else value
    return None if value != value else value


if __name__ == "__main__":
    size = size_of(sys.argv[1:])
    main(Path("results", *([] if size == "cpu" else [size]), "learned_scale"))

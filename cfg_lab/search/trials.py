"""The trials of a search, kept in the results folder.

    results/<name>/searches/<search>/
        definition.json      what is searched, in words that a person can read
        trials/<number>.json one file per finished trial
        result.json          the numbers of the chosen cells on both halves of the prompts

<search> is a hash of everything that the values of trials depend on. So another space or another objective in
the same folder is another search beside it, and a larger `trials=` goes on with the same search.

Every file is written whole and renamed, so a killed search loses at most the trials of its last batch, whose
texts are kept. (Optuna's own journal can end in half a line after a crash, and then cannot be read.)
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from cfg_lab.errors import StoreError
from cfg_lab.search.space import Value
from cfg_lab.study.store import Store

FOLDER = "searches"


@dataclass(frozen=True, kw_only=True)
class Proposal:
    """A point of the space to try.

    Attributes:
        values: key of each parameter -> value, as Optuna proposed it.
        attributes: what Optuna's sampler stored with the trial; it needs it again later.
    """

    values: Mapping[str, Value]
    attributes: Mapping[str, Any] = field(default_factory=dict[str, Any])


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """What a trial gave.

    Attributes:
        means: mean of each column of the objectives, column -> mean; empty if the trial failed.
        violations: text of each limit -> how far the trial is beyond it, 0 or less if it keeps the limit.
        failure: why the trial has no value; "" if it has one.
        cell: id of the cell that was decoded.
        seconds: time of the trial: that of its batch, divided by the trials of the batch.
    """

    means: Mapping[str, float] = field(default_factory=dict[str, float])
    violations: Mapping[str, float] = field(default_factory=dict[str, float])
    failure: str = ""
    cell: str = ""
    seconds: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A finished trial.

    Attributes:
        number: number of the trial in its search, from 0.
        proposal: the point of the space.
        texts: the same point as overrides write it, key -> text. Equal texts are equal cells.
        evaluation: what it gave.
    """

    number: int
    proposal: Proposal
    texts: Mapping[str, str]
    evaluation: Evaluation

    @property
    def is_feasible(self) -> bool:
        """Whether the trial has a value and keeps all limits."""
        return not self.evaluation.failure and all(
            violation <= 0 for violation in self.evaluation.violations.values()
        )


@dataclass(frozen=True, kw_only=True)
class TrialFolder:
    """The files of one search.

    Attributes:
        store: the results folder.
        search: id of the search.
    """

    store: Store
    search: str

    @property
    def path(self) -> Path:
        """The folder of the search."""
        return self.store.root / FOLDER / self.search

    def read(self) -> list[Trial]:
        """The finished trials, from number 0 up to the first that is missing.

        Raises:
            StoreError: a file is damaged.
        """
        trials: list[Trial] = []
        while (path := self._path(len(trials))).is_file():
            try:
                trials.append(_trial(json.loads(path.read_text(encoding="utf-8"))))
            except (ValueError, KeyError, TypeError, OSError) as error:
                raise StoreError(
                    f"{path} is damaged ({error!r}); delete it and the trials with higher numbers: the same "
                    "command makes them again from the stored texts"
                ) from error
        return trials

    def write(self, trial: Trial) -> None:
        """Keep a finished trial."""
        self.store.write_text(
            str(self._path(trial.number).relative_to(self.store.root)), json.dumps(asdict(trial), indent=1)
        )

    def write_json(self, name: str, content: Any) -> None:
        """Write another file of the search."""
        self.store.write_text(f"{FOLDER}/{self.search}/{name}", json.dumps(content, indent=1))

    def _path(self, number: int) -> Path:
        return self.path / "trials" / f"{number:04}.json"


def results_of(store: Store) -> list[dict[str, Any]]:
    """The result of each search of a results folder, the newest first. A damaged file is left out."""
    paths = sorted(
        (store.root / FOLDER).glob("*/result.json"), key=lambda path: path.stat().st_mtime, reverse=True
    )
    results: list[dict[str, Any]] = []
    for path in paths:
        try:
            results.append(json.loads(path.read_text(encoding="utf-8")))
        except (ValueError, OSError):
            continue
    return results


def _trial(content: dict[str, Any]) -> Trial:
    return Trial(
        number=content["number"],
        proposal=Proposal(**content["proposal"]),
        texts=content["texts"],
        evaluation=Evaluation(**content["evaluation"]),
    )

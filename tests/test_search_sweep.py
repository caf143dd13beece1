"""The command `hydra/sweeper=optuna`, as a user runs it: resumable, several processes, refusals, the page."""

from __future__ import annotations

import json
import re
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

import cfg_lab
from cfg_lab.commands import check_command_line
from cfg_lab.errors import InputError
from cfg_lab.search.trials import results_of
from cfg_lab.study.store import Store
from tests.cli import command, environment, on, shell, wait_until

SEARCH = [
    "hydra/sweeper=optuna",
    "guidance.scale=interval(1,5)",
    "guidance=cfg,union",
    "negatives=own,empty",
    "objective=[+distinct_1,-perplexity]",
    "trials=6",
    "hydra.sweeper.batch=4",
]


def many_prompts(folder: Path, *arguments: str) -> list[str]:
    """The overrides `on` gives, with prompts enough that both halves have some."""
    path = folder / "many.jsonl"
    path.write_text(
        "".join(f'{{"id": "p{n}", "text": "Text {n}", "negative": "bad:0.5, dull"}}\n' for n in range(8))
    )
    return [*(line for line in arguments if not line.startswith("prompts.path=")), f"prompts.path={path}"]


def arguments(folder: Path, model: Path, *overrides: str) -> list[str]:
    return many_prompts(folder, *on(folder, model), *SEARCH, *overrides)


def trials_of(root: Path) -> list[dict[str, Any]]:
    """The trials of the only search of a results folder, without their times."""
    trials = [json.loads(path.read_text()) for path in sorted(root.glob("searches/*/trials/*.json"))]
    for trial in trials:
        del trial["evaluation"]["seconds"]
    return trials


def test_a_search_reports_on_prompts_that_did_not_choose(tmp_path: Path, tiny_folder: Path) -> None:
    done = shell(*arguments(tmp_path, tiny_folder, "report=true"))
    assert done.returncode == 0, done.stderr
    root = tmp_path / "results" / "study"
    (result,) = results_of(Store(root))
    trials = trials_of(root)
    assert [trial["number"] for trial in trials] == list(range(6))
    results = cfg_lab.load_results(root)
    prompts = {half: set(rows["prompt"]) for half, rows in results.groupby("prompts.half")}
    assert not prompts["selection"] & prompts["held_out"]
    assert len(prompts["selection"] | prompts["held_out"]) == 8

    # All trials were decoded on one half, the finalists on both, as normal cells of the folder.
    half_of_cell = results.drop_duplicates("cell").set_index("cell")["prompts.half"]
    assert {half_of_cell[trial["evaluation"]["cell"]] for trial in trials} == {"selection"}
    roles = [row["role"] for row in result["finalists"]]
    assert roles[-2:] == ["default", "plain"]
    assert set(roles[:-2]) == {"chosen"}
    for row in result["finalists"]:
        for half, cell in row["cells"].items():
            assert half_of_cell[cell] == half
            texts = results[results["cell"] == cell]
            numbers = row["numbers"]["perplexity"][half]
            assert numbers["mean"] == pytest.approx(texts["perplexity"].mean(), rel=1e-4)
        chosen = results[results["cell"] == row["cells"]["held_out"]].iloc[0]
        if row["role"] == "default":
            assert (chosen["guidance"], chosen["guidance.scale"], chosen["negatives"]) == ("cfg", 3, "own")
        if row["role"] == "plain":
            assert chosen["guidance.scale"] == 1

    # The console and the page show both numbers.
    assert "optimism" in done.stdout
    assert "Choosing cost" in done.stdout
    assert result["cost"]["texts"] == len(
        set(results.loc[results["cell"].isin({t["evaluation"]["cell"] for t in trials}), "completion"])
    )
    page = (root / "report.html").read_text()
    section = re.search(r"<section id='search'.*?</section>", page, re.S)
    assert section is not None
    assert section[0].count("<circle") == 2 * 6
    assert page.count("href='#search'") == 1
    assert "about the cells of the held-out prompts" in page
    conclusion = next(
        line
        for line in done.stdout.splitlines()
        if "Conclusion from all" not in line
        and (line.startswith(("Not shown", "Yes", "No", "Unknown", "Not certain")))
    )
    assert "half selection" not in conclusion

    # The same command again decodes and proposes nothing; more trials go on.
    files = sorted(str(path) for path in root.glob("completions/*"))
    again = shell(*arguments(tmp_path, tiny_folder))
    assert again.returncode == 0, again.stderr
    assert trials_of(root) == trials
    assert sorted(str(path) for path in root.glob("completions/*")) == files
    assert "tokens in" not in again.stdout
    more = shell(*arguments(tmp_path, tiny_folder, "trials=8"))
    assert more.returncode == 0, more.stderr
    assert trials_of(root)[:6] == trials
    assert len(trials_of(root)) == 8


def test_a_killed_search_and_two_at_once_give_the_trials_of_one(tmp_path: Path, tiny_folder: Path) -> None:
    done = shell(*arguments(tmp_path, tiny_folder, "name=whole"))
    assert done.returncode == 0, done.stderr
    whole = tmp_path / "results" / "whole"
    expected = trials_of(whole)

    root = tmp_path / "results" / "killed"
    line = command(*arguments(tmp_path, tiny_folder, "name=killed"))
    pipes: dict[str, Any] = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    process = subprocess.Popen(line, env=environment(), **pipes)
    wait_until(lambda: any(root.glob("searches/*/trials/0000.json")), process)
    process.send_signal(signal.SIGKILL)
    process.communicate()
    assert len(trials_of(root)) < 6
    both = [subprocess.Popen(line, env=environment(), **pipes) for _ in range(2)]
    outputs = [process.communicate(timeout=300) for process in both]
    assert [process.returncode for process in both] == [0, 0], outputs
    assert trials_of(root) == expected
    ours = cfg_lab.load_results(root)
    theirs = cfg_lab.load_results(whole)
    keys = ["cell", "prompt_id", "sample"]
    left, right = (frame.sort_values(keys)[[*keys, "text"]].to_numpy() for frame in (ours, theirs))
    assert (left == right).all()


LOCAL = ("hydra/launcher=local", "hydra.launcher.workers=1", "hydra.launcher.threads=1")
SLURM = ("hydra/launcher=slurm", "hydra.launcher.workers=2", "hydra.launcher.cpus=1")


@pytest.mark.parametrize("launcher", [LOCAL, SLURM], ids=["local", "slurm"])
def test_workers_decode_each_batch(
    launcher: Sequence[str], request: pytest.FixtureRequest, tmp_path: Path, tiny_folder: Path
) -> None:
    if launcher is SLURM:
        request.getfixturevalue("slurm")
    small = ("trials=3", "hydra.sweeper.batch=2", "samples=1")
    done = shell(*arguments(tmp_path, tiny_folder, *small), *launcher)
    assert done.returncode == 0, f"{done.stdout}\n{done.stderr}"
    root = tmp_path / "results" / "study"
    assert len(trials_of(root)) == 3
    assert len(list(root.glob("jobs/*/end.json"))) >= 3  # two batches, and the held-out half
    assert "Choosing cost" in done.stdout


def test_a_second_search_in_a_folder_stands_beside_the_first(tmp_path: Path, tiny_folder: Path) -> None:
    small = ["trials=2", "hydra.sweeper.batch=2", "hydra.sweeper.finalists=1", "samples=1"]
    for objective in ("+distinct_1", "-perplexity"):
        done = shell(*arguments(tmp_path, tiny_folder, *small, f"objective={objective}"))
        assert done.returncode == 0, done.stderr
    root = tmp_path / "results" / "study"
    results = results_of(Store(root))
    assert {tuple(result["objective"]) for result in results} == {("+distinct_1",), ("-perplexity",)}
    assert [row["role"] for row in results[0]["finalists"]] == ["chosen", "default", "plain"]
    assert len(list(root.glob("searches/*/definition.json"))) == 2


REFUSED: list[tuple[Sequence[str], str]] = [
    (["prompts.half=selection"], "'prompts.half=selection' cannot be set"),
    (["objective=null"], "objective has no value"),
    (["objective=[+distinct_2x]"], "objective is '+distinct_2x', but no metric"),
    (["objective=[perplexity]", "trials=0"], "trials must be a whole number from 1"),
    (["objective=[perplexity]", "trials=many"], "trials must be a whole number from 1"),
    (["hydra.sweeper.batch=0"], "hydra.sweeper.batch must be a whole number"),
    (["hydra.sweeper.finalists=0"], "hydra.sweeper.finalists must be a whole number"),
    (['hydra.sweeper.default=["samples=3"]'], "hydra.sweeper.default must be a list"),
    (["seed=1,2"], "seed cannot be searched"),
    (["prompts.limit=1,2"], "prompts.limit cannot be searched"),
    (["guidance.scale=1,2"], "trials is 40, but the space has only 8 points"),
    (["guidance.scale=1", "guidance=cfg", "negatives=own"], "hydra/sweeper=optuna has nothing to search"),
    (["guidance.scale=shuffle(1,2)"], "'guidance.scale=shuffle(1,2)' has shuffle"),
    (["guidance=cfg,self_debias", "guidance.decay=interval(1,50)"], "guidance.decay is not a config key"),
    (["sampling.temperature=interval(-1,1)"], "sampling.temperature must be"),
    (["hydra/launcher=basic"], "hydra/launcher=basic runs whole cells as jobs"),
    (["hydra/launcher=local", "hydra.launcher.wait=false"], "hydra.launcher.wait is false"),
    (["hydra/sweeper=grid"], "objective belongs to a search; add hydra/sweeper=optuna"),
]


@pytest.mark.parametrize(("overrides", "sentence"), REFUSED, ids=lambda value: str(value)[:40])
def test_what_cannot_be_searched_is_refused_before_anything_is_written(
    overrides: Sequence[str],
    sentence: str,
    tmp_path: Path,
    tiny_folder: Path,
) -> None:
    given = {line.partition("=")[0] for line in overrides}
    base = [line for line in (*SEARCH, "trials=40") if line.partition("=")[0] not in given]
    done = shell(*many_prompts(tmp_path, *on(tmp_path, tiny_folder), *base, *overrides))
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: {sentence}"), done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert not (tmp_path / "results").exists()


def test_a_grid_refuses_what_only_a_search_has() -> None:
    for key in ("objective=sentiment", "trials=3"):
        with pytest.raises(InputError, match=r"belongs to a search; add hydra/sweeper=optuna"):
            check_command_line([key], "sweep")
    check_command_line(
        ["hydra/sweeper=optuna", "objective=sentiment", "guidance.scale=interval(1,5)"], "sweep"
    )


def test_a_grid_refuses_an_interval(tmp_path: Path, tiny_folder: Path) -> None:
    done = shell(*on(tmp_path, tiny_folder), "guidance.scale=interval(1,5)")
    assert done.returncode == 2
    assert done.stderr.startswith("error: 'guidance.scale=interval(1,5)' is an interval")
    assert not (tmp_path / "results").exists()

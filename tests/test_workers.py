"""A sweep on several processes of this machine gives the results of one process, whatever happens to them."""

from __future__ import annotations

import pickle
import shlex
import subprocess
import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pandas as pd
import psutil
import pyarrow.parquet as pq
import pytest
import torch
from hydra import compose, initialize_config_dir
from hypothesis import given, settings
from hypothesis import strategies as st
from omegaconf import OmegaConf

import cfg_lab
from cfg_lab.decoding.request import Request
from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG, option_names
from cfg_lab.prompts import Prompt
from cfg_lab.study.config import auto_dtypes, build, plain_config
from cfg_lab.study.planned_text import PlannedText
from cfg_lab.study.run import PreparedStudy
from cfg_lab.study.store import Store
from cfg_lab.sweep import check_dtypes
from cfg_lab.workers.shards import cut
from cfg_lab.workers.slurm import SlurmEngine
from cfg_lab.workers.submission import submissions
from tests.cli import environment, on, shell
from tests.workers import GRID, LONG, LONG_TEXTS, Sweeps, assert_equal_results, only_submission, wait_until

LOCAL = ["hydra/launcher=local", "hydra.launcher.workers=2"]


def kill_a_worker(root: Path) -> None:
    """Kill one worker of a results folder, and the process of submitit that started it."""
    state = next(state for state in only_submission(root).states() if state.name.endswith("texts"))
    process = psutil.Process(int(state.id))
    family = [process, *process.children(recursive=True)]
    for member in family:
        member.kill()
    psutil.wait_procs(family, timeout=60)


# Shards


def planned(prompt: int, sample: int, tokens: int) -> PlannedText:
    """A text of a prompt. Texts of one prompt have the same context."""
    request = Request(positive=(prompt + 1,) * 3, max_new_tokens=tokens, sample=sample)
    return PlannedText(
        prompt=Prompt(id=str(prompt), text="x"), request=request, completion_id=f"{prompt}-{sample}"
    )


@dataclass(eq=False)
class PlannedCell:
    """What cutting needs to know of a cell."""

    model_key: str


@settings(max_examples=60, deadline=None)
@given(
    st.lists(
        st.dictionaries(st.tuples(st.integers(0, 4), st.integers(0, 9)), st.integers(1, 80), max_size=30),
        min_size=1,
        max_size=3,
    ),
    st.integers(1, 12),
    st.integers(0, 5),
)
def test_shards_have_every_text_once_and_about_equal_costs(
    tokens_of_models: list[dict[tuple[int, int], int]], count: int, modulus: int
) -> None:
    models: Any = {str(n): SimpleNamespace(fingerprint=f"weights {n}") for n in range(len(tokens_of_models))}
    plans: Any = {
        PlannedCell(key): [planned(prompt, sample, n) for (prompt, sample), n in tokens.items()]
        for key, tokens in zip(models, tokens_of_models, strict=True)
    }
    all_ids = [(key.model_key, text.completion_id) for key, texts in plans.items() for text in texts]
    unfinished = {text for _, text in all_ids if not modulus or hash(text) % modulus}
    prepared = PreparedStudy(models=models, plans=plans, missing={})
    shards = cut(prepared, unfinished, (), count)
    found = [(shard.model_key, text) for shard in shards for text in shard.completion_ids]
    assert Counter(found) == Counter(pair for pair in all_ids if pair[1] in unfinished)
    assert all(shard.texts for shard in shards)
    assert all(shard.fingerprint == models[shard.model_key].fingerprint for shard in shards)
    if len(models) == 1 and shards:
        assert len(shards) <= count
        # One step of the decoder per token: with equal costs, no shard has more than its share and one text.
        costs = [sum(text.request.max_new_tokens for text in shard.texts) for shard in shards]
        total, largest = sum(costs), max(tokens_of_models[0].values())
        assert max(costs) <= 1.3 * (total / count + largest)


def test_texts_of_one_prompt_are_neighbours() -> None:
    """A shard then reads the context of a prompt once, whatever the order of cells is."""
    cells: Any = {PlannedCell("m"): [planned(p, s, 8) for p in range(6)] for s in range(4)}
    prepared = PreparedStudy(
        models=cast("Any", {"m": SimpleNamespace(fingerprint="f")}), plans=cells, missing={}
    )
    ids = {text.completion_id for texts in cells.values() for text in texts}
    shards = cut(prepared, ids, (), 3)
    assert [{text.prompt.id for text in shard.texts} for shard in shards] == [
        {"0", "1"},
        {"2", "3"},
        {"4", "5"},
    ]


# Sweeps


@pytest.fixture(scope="module")
def sweeps(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> Sweeps:
    """Sweeps on a path with spaces."""
    return Sweeps(tmp_path_factory.mktemp("on many workers"), tiny_folder)


@pytest.fixture(scope="module")
def whole(sweeps: Sweeps) -> Path:
    """The results of the long sweep in one process."""
    sweeps.run("whole", *LONG)
    return sweeps.root("whole")


def test_local_workers_give_the_results_of_one_process(sweeps: Sweeps, whole: Path) -> None:
    """Also if a worker and the waiting command are killed, and the same command runs twice at once."""
    root = sweeps.root("local")
    first = sweeps.start_and_wait("local", *LONG, *LOCAL)
    first.kill()
    first.wait()
    kill_a_worker(root)
    again = [sweeps.start("local", *LONG, *LOCAL), sweeps.start("local", *LONG, *LOCAL)]
    for process in again:
        output, errors = process.communicate()
        assert process.returncode == 0, errors
        assert "self_bleu" in output
    submission = only_submission(root)  # the later commands attached to it
    assert submission.end() == {"failed": []}
    assert len(Store(root).completion_ids()) == LONG_TEXTS
    assert_equal_results(root, whole)


def test_the_last_job_that_a_killed_command_did_not_submit_is_submitted_by_the_next(
    sweeps: Sweeps, whole: Path
) -> None:
    """The command is killed after it has submitted all jobs but the one that comes after them."""
    root = sweeps.root("cut short")
    with sweeps.held("cut short", *LONG, *LOCAL) as first:
        submission = only_submission(root)
        wait_until(submission.has_last_job, "the last job", first)
        first.kill()
        first.wait()
        for state in submission.states():
            if state.name.endswith("next"):
                psutil.Process(int(state.id)).kill()
        for task in submission.folder.glob("*-next/**/*_submitted.pkl"):
            task.unlink()
        second = sweeps.start("cut short", *LONG, *LOCAL)
        wait_until(submission.has_last_job, "the last job of the second command", second)
    output, errors = second.communicate()
    assert second.returncode == 0, f"{output}\n{errors}"
    assert only_submission(root).end() == {"failed": []}
    assert_equal_results(root, whole)


def test_what_fails_is_named_and_the_rest_is_scored(sweeps: Sweeps) -> None:
    broken = [*GRID, "guidance._target_=slow_rule.Broken", *LOCAL, "hydra.launcher.retries=0"]
    _, errors = sweeps.run("broken", *broken, "hydra.launcher.shards=12", status=1)
    sentences = [line for line in errors.splitlines() if line.startswith("error: ")]
    assert sentences
    for sentence in sentences:
        assert "broken on purpose" in sentence
        log = Path(sentence.partition("messages are in ")[2])
        assert "slow_rule.py" in log.read_text()
    frame = cfg_lab.load_results(sweeps.root("broken"))
    assert set(frame["guidance.scale"]) == {1}  # scale 1 does not combine anything
    assert frame["perplexity"].notna().all()
    assert (sweeps.root("broken") / "summary.parquet").exists()


def test_without_waiting_the_command_says_how_to_watch(sweeps: Sweeps) -> None:
    root = sweeps.root("closed")
    output, _ = sweeps.run("closed", *GRID, *LOCAL, "hydra.launcher.wait=false")
    (watch,) = [line.partition(": ")[2] for line in output.splitlines() if line.startswith("watch: ")]
    watched = subprocess.run(
        [sys.executable, *shlex.split(watch)[1:]],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )
    assert watched.returncode == 0, watched.stderr
    assert "12 texts in" in watched.stdout
    wait_until(lambda: only_submission(root).end() is not None, "the sweep ends")
    # More cells and another metric: only what is missing is submitted.
    more = ["guidance.scale=1,2,3", "negatives=own", "metrics=[length,cost]", *LOCAL]
    sweeps.run("closed", *more)
    latest = submissions(Store(root))[-1].plan()
    assert (latest.undecoded_count, latest.text_count) == (6, 18)
    frame = cfg_lab.load_results(root)
    assert len(frame) == 18
    assert frame[["length", "forward_tokens"]].notna().all(axis=None)


def test_overlapping_sweeps_share_the_work(sweeps: Sweeps, whole: Path) -> None:
    """The second sweep decodes what the first one does not, and waits for the rest."""
    more = ["guidance.scale=1,2,3", *LONG[1:], *LOCAL]
    root = sweeps.root("shared")
    with sweeps.held("shared", *LONG, *LOCAL) as first:
        second = sweeps.start("shared", *more)
        wait_until(lambda: len(submissions(Store(root))) == 2, "the second submission", second)
    assert second.wait() == 0
    assert first.wait() == 0
    former, latter = submissions(Store(sweeps.root("shared")))
    assert latter.plan().waits_for == [former.id]
    assert [former.end(), latter.end()] == [{"failed": []}] * 2
    waits = [path for path in latter.folder.glob("*-next") if path.is_dir()]
    assert len(waits) <= 6  # a job that waits is one process, and not one after another
    files = [pq.read_metadata(path) for path in sweeps.root("shared").glob("completions/*.parquet")]
    assert sum(file.num_rows for file in files) == 3 * 36  # no text was decoded twice
    results = cfg_lab.load_results(sweeps.root("shared"))
    assert results[["perplexity", "self_bleu"]].notna().all(axis=None)
    assert set(pd.read_parquet(whole / "summary.parquet")["cell"]) < set(results["cell"])


def test_changed_prompts_are_not_taken_for_those_that_run(sweeps: Sweeps) -> None:
    """Cells are named by their config, which has the path of a file of prompts and not its content."""
    root = sweeps.root("changed")
    other = '{"id": "p0", "text": "Another text", "negative": "bad"}\n'
    with sweeps.held("changed", *LONG, *LOCAL) as first:
        # The next sweep writes the usual prompts again.
        again = sweeps.start("changed", *LONG, *LOCAL, prompts=other)
        wait_until(lambda: len(submissions(Store(root))) == 2, "the second submission", again)
    assert again.wait() == 0
    assert first.wait() == 0
    prompts = set(cfg_lab.load_results(sweeps.root("changed"))["prompt"])
    assert prompts == {"Another text"}


def test_a_signal_to_end_loses_nothing(sweeps: Sweeps, whole: Path) -> None:
    """The command that is printed as `stop` ends all jobs, and the same sweep goes on later."""
    process = sweeps.start_and_wait("stopped", *LONG, *LOCAL)
    submission = only_submission(sweeps.root("stopped"))
    subprocess.run(shlex.split(submission.stop_command()), check=True)
    _, errors = process.communicate()
    assert process.returncode == 2
    assert "Run the same command again to continue" in errors
    assert not submission.states()
    output, _ = sweeps.run("stopped", *LONG, *LOCAL)
    assert f"of {LONG_TEXTS} texts are in" in output
    assert_equal_results(sweeps.root("stopped"), whole)


# Refusals


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (
            ["hydra.launcher.workers=0"],
            "hydra.launcher.workers must be auto or a whole number of at least 1, got 0",
        ),
        (
            ["hydra.launcher.shards=x"],
            "hydra.launcher.shards must be auto or a whole number of at least 1, got 'x'",
        ),
        (
            ["hydra.launcher.retries=-1"],
            "hydra.launcher.retries must be a whole number of at least 0, got -1",
        ),
        (["max_new_tokens=250"], "exceed the 256 tokens that model"),
    ],
)
def test_nothing_is_submitted_if_anything_is_wrong(
    tmp_path: Path, tiny_folder: Path, overrides: list[str], sentence: str
) -> None:
    refused = shell(*on(tmp_path, tiny_folder), *GRID, "hydra/launcher=local", *overrides)
    assert refused.returncode == 2
    assert sentence in refused.stderr
    assert not [*tmp_path.glob("results/*/jobs/*/plan.json")]


def test_slurm_is_refused_where_it_is_not_installed(tmp_path: Path) -> None:
    engine = SlurmEngine()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PATH", str(tmp_path))
        with pytest.raises(InputError, match="hydra/launcher=slurm needs a machine of a Slurm cluster"):
            engine.submit("name", tmp_path, [lambda: None])


def test_a_time_limit_is_longer_than_the_signal_before_it() -> None:
    with pytest.raises(InputError, match=r"signal_delay must be shorter than hydra\.launcher\.time"):
        SlurmEngine(time=1, signal_delay=60)


def test_dtypes_that_depend_on_the_machine_are_refused(tiny_folder: Path) -> None:
    """On a machine without a GPU, dtype=auto would plan other ids than workers with a GPU have."""
    config = OmegaConf.create(
        {"model": {"name": "x", "dtype": "auto"}, "negatives": {"models": {"a": {"dtype": "auto"}}}}
    )
    assert auto_dtypes(plain_config(config)) == ["model.dtype", "negatives.models.a.dtype"]
    if not torch.cuda.is_available():
        with pytest.raises(InputError, match=r"model\.dtype is auto, .* this machine has no GPU"):
            check_dtypes([config], SlurmEngine(gpus=1))
        check_dtypes([config], SlurmEngine(gpus=0))


# What is pickled


@pytest.mark.parametrize("group", ["negatives", "guidance", "sampling", "metrics", "prompts"])
def test_every_option_can_be_sent_to_a_worker(group: str) -> None:
    """A study is pickled when it is built: before it is checked, and before models are loaded."""
    for name in option_names(group):
        override = f"{group}=[{name}]" if group == "metrics" else f"{group}={name}"
        with initialize_config_dir(str(CONFIG), version_base="1.3"):
            config = compose("sweep", overrides=[override], return_hydra_config=True)
        try:
            built = build(config, group)
        except InputError:
            continue  # the option needs a value that only a user knows
        copy = pickle.loads(pickle.dumps(built))
        assert type(copy) is type(built), name

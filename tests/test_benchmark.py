"""Benchmarks: the answers that a model chooses under a grid of guidance, on a small model and task."""

from __future__ import annotations

import json
import math
import random
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import lm_eval
import numpy as np
import pandas as pd
import pytest
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from lm_eval.models.huggingface import HFLM
from omegaconf import OmegaConf

import cfg_lab
from cfg_lab import ClassifierFreeGuidance, analysis
from cfg_lab.analysis.frame import unguided_cells
from cfg_lab.benchmark import run
from cfg_lab.errors import InputError
from cfg_lab.metrics import Choice, MultipleChoice
from cfg_lab.options import CONFIG
from cfg_lab.report.axes import cells_of
from cfg_lab.report.change import compare_with_baselines
from cfg_lab.report.findings import findings
from cfg_lab.report.roles import roles_of
from cfg_lab.report.write import report
from cfg_lab.study.build import build_study
from cfg_lab.study.store import Store
from cfg_lab.tasks import TaskOptions, load, records
from cfg_lab.tasks.benchmark import build_benchmark
from cfg_lab.tasks.load import load_items
from cfg_lab.tasks.packaged import PACKAGED
from tests.cli import environment, wait_until
from tests.conftest import make_model, make_tokenizer
from tests.test_values_of_keys import VALUES, shows
from tests.texts import text

ITEMS = 24
WORDS = ["red", "blue", "dog", "cat", "tree", "house", "sun", "moon", "runs", "sleeps", "old", "new"]
YAML = """
task: quiz
dataset_path: json
dataset_kwargs:
  data_files: {{test: {folder}/test.jsonl, train: {folder}/train.jsonl}}
output_type: multiple_choice
training_split: train
test_split: test
doc_to_text: "Q: {{{{question}}}}\\nA:"
doc_to_target: "{{{{label}}}}"
doc_to_choice: "{{{{answers}}}}"
metric_list: [{{metric: acc}}, {{metric: acc_norm}}]
"""


@pytest.fixture(scope="module")
def quiz(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The YAML file of a task with 24 questions, each with 2 to 4 answers of different lengths."""
    folder = tmp_path_factory.mktemp("quiz")
    choose = random.Random(0)
    for split in ("test", "train"):
        lines: list[str] = []
        for _ in range(ITEMS):
            answers = [" ".join(choose.choices(WORDS, k=choose.randint(1, 3))) for _ in range(4)]
            answers = list(dict.fromkeys(answers))[: choose.randint(2, 4)]
            item = {"question": " ".join(choose.choices(WORDS, k=4)), "answers": answers}
            lines.append(json.dumps({**item, "label": choose.randrange(len(answers))}) + "\n")
        (folder / f"{split}.jsonl").write_text("".join(lines))
    (folder / "quiz.yaml").write_text(YAML.format(folder=folder))
    return str(folder / "quiz.yaml")


def benchmark(*arguments: str) -> list[dict[str, Any]]:
    """Run a benchmark in this process, and return the rows of its summary."""
    jobs = BasicSweeper.split_arguments(OverridesParser.create().parse_overrides(list(arguments)), None)[0]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        configs = [compose("benchmark", overrides=job, return_hydra_config=True) for job in jobs]
    return run(configs, jobs)


def on(folder: Path, model: Path, quiz: str, name: str = "study") -> list[str]:
    """Overrides of a small benchmark. Its results go to folder/results/name."""
    return [
        *(f"model.name={model}", f"tasks=[{quiz}]", "limit=null", "tracking=none", "report=false"),
        *(f"results_root={folder / 'results'}", f"name={name}"),
    ]


def results(folder: Path, name: str = "study") -> pd.DataFrame:
    """The results, without Results' own display, sorted by cell and item."""
    frame = pd.DataFrame(cfg_lab.load_results(folder / "results" / name))
    return frame.sort_values(["guidance.scale", "negatives", "cell", "prompt_id"], ignore_index=True)


def numbers(frame: pd.DataFrame) -> np.ndarray:
    """All numbers of all answers, [answers, 4]."""
    names = ("positive", "negative", "guided", "raw")
    return np.array([[choice[name] for name in names] for row in frame["choices"] for choice in row])


@pytest.fixture(scope="module")
def grid(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path, quiz: str) -> Path:
    """The folder above the results of five scales with two negatives."""
    folder = tmp_path_factory.mktemp("grid")
    rows = benchmark(
        *on(folder, tiny_folder, quiz), "guidance.scale=0.5,1,1.5,3,1000", "negatives=last_token,empty"
    )
    assert len(rows) == 10
    return folder


# Laws


def lm_eval_samples(model: Any, tokenizer: Any, task: Any, numbers: list[int]) -> list[dict[str, Any]]:
    """What lm-eval's own model gives for each item of a task."""
    name = task.config.task
    done = lm_eval.simple_evaluate(
        model=HFLM(pretrained=model, tokenizer=tokenizer, batch_size=4),
        tasks=[task],
        samples={name: numbers},
        num_fewshot=0,
        bootstrap_iters=0,
    )
    assert done is not None
    return done["samples"][name]


def test_scale_1_has_the_accuracies_of_lm_eval(grid: Path, quiz: str) -> None:
    frame = results(grid)
    frame = frame[(frame["guidance.scale"] == 1) & (frame["negatives"] == "empty")]
    task = load._file_task(quiz)  # pyright: ignore[reportPrivateUsage]
    samples = lm_eval_samples(make_model("rotary"), make_tokenizer(chat=True), task, list(range(ITEMS)))
    by_id = {f"quiz/{number}": sample for number, sample in enumerate(samples)}
    for _, row in frame.iterrows():
        sample = by_id[row["prompt_id"]]
        assert (row["acc"], row["acc_norm"]) == (sample["acc"], sample["acc_norm"])
        theirs = [answer[0] for answer in sample["filtered_resps"]]
        assert [choice["guided"] for choice in row["choices"]] == pytest.approx(theirs, abs=1e-3)


def test_the_grid_equals_each_cell_alone(grid: Path, tmp_path: Path, tiny_folder: Path, quiz: str) -> None:
    together = results(grid)
    for scale, negatives in ((0.5, "empty"), (1, "last_token"), (3, "empty")):
        benchmark(
            *on(tmp_path, tiny_folder, quiz, f"{scale}{negatives}"),
            f"guidance.scale={scale}",
            f"negatives={negatives}",
        )
        alone = results(tmp_path, f"{scale}{negatives}")
        cell = together[together["cell"] == alone["cell"][0]].reset_index(drop=True)
        np.testing.assert_allclose(numbers(alone), numbers(cell), atol=1e-4)
        columns = ["cell", "completion", "prompt_id", "prompt", "text", *MultipleChoice.columns]
        pd.testing.assert_frame_equal(alone[columns], cell[columns], atol=1e-4)


def test_guided_numbers_are_the_formula_on_traces(grid: Path, tiny_folder: Path, quiz: str) -> None:
    """An independent path: teacher forcing of each answer, branch by branch."""
    model = cfg_lab.load_model(str(tiny_folder))
    frame = results(grid)
    row = frame[(frame["guidance.scale"] == 3) & (frame["negatives"] == "empty")].iloc[0]
    decoder = cfg_lab.Decoder(model)
    for choice in row["choices"]:
        request = cfg_lab.Request(
            positive=tuple(row["positive_ids"]),
            negatives=(cfg_lab.Branch(model.bos),),
            guidance=ClassifierFreeGuidance(scale=3),
        )
        tokens = tuple(model.tokenizer.encode(" " + choice["text"]))
        (trace,) = decoder.trace_texts([request], [tokens])
        assert choice["positive"] == pytest.approx(sum(trace.positive), abs=1e-3)
        assert choice["negative"] == pytest.approx(sum(trace.negative), abs=1e-3)
        assert choice["guided"] == pytest.approx(sum(trace.guided), abs=1e-3)
        assert choice["raw"] == pytest.approx(3 * sum(trace.positive) - 2 * sum(trace.negative), abs=1e-3)


def test_raw_equals_normalised_at_scale_1_and_pmi_is_the_limit_of_raw(grid: Path) -> None:
    frame = results(grid)
    off = frame[frame["guidance.scale"] == 1]
    assert numbers(off)[:, 3] == pytest.approx(numbers(off)[:, 2], abs=1e-4)
    assert off["acc_raw"].equals(off["acc"])
    assert off["acc_norm_raw"].equals(off["acc_norm"])
    assert (off["answer_changed"] == 0).all()
    largest = frame[frame["guidance.scale"] == 1000]
    assert largest["acc_raw"].equals(largest["acc_pmi"])
    by_scale = [cell["acc_pmi"].tolist() for _, cell in frame.groupby(["negatives", "guidance.scale"])]
    assert by_scale[0] != by_scale[5]  # it depends on the negatives
    assert by_scale == [by_scale[0]] * 5 + [by_scale[5]] * 5  # and on nothing else


def test_killed_at_any_point_and_run_again_it_ends_the_same(
    grid: Path, tmp_path: Path, tiny_folder: Path, quiz: str
) -> None:
    """SIGKILL after the first results were written."""
    arguments = [
        *on(tmp_path, tiny_folder, quiz),
        *("guidance.scale=0.5,1,1.5,3,1000", "negatives=last_token,empty"),
    ]
    code = (
        "import sys, cfg_lab.tasks.run as run, cfg_lab.benchmark as command;"
        "run._ANSWERS_PER_CALL, run._SECONDS_BETWEEN_WRITES = 8, 0;"
        "sys.argv[0] = command.__file__; command.run_command('benchmark', command.main)"
    )
    root = tmp_path / "results" / "study"
    process = subprocess.Popen(
        [sys.executable, "-c", code, *arguments],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        wait_until(lambda: bool(list(root.glob("completions/[!.]*.parquet"))), process)
    finally:
        process.kill()
    assert process.wait() == -signal.SIGKILL  # it had not ended by itself
    assert 0 < len(Store(root).completion_ids()) < 10 * ITEMS
    before = set(root.glob("completions/*.parquet"))
    benchmark(*arguments)
    assert before <= set(root.glob("completions/*.parquet"))
    repaired, whole = results(tmp_path), results(grid)
    np.testing.assert_allclose(numbers(repaired), numbers(whole), rtol=1e-4, atol=1e-4)  # raw at scale 1000
    columns = ["cell", "completion", "prompt_id", "text", *MultipleChoice.columns]
    pd.testing.assert_frame_equal(repaired[columns], whole[columns], rtol=1e-4, atol=1e-3)


def test_a_larger_grid_scores_only_what_is_new(tmp_path: Path, tiny_folder: Path, quiz: str) -> None:
    arguments = on(tmp_path, tiny_folder, quiz)
    store = Store(tmp_path / "results" / "study")
    benchmark(*arguments, "limit=6", "guidance.scale=1,2")
    assert len(store.completion_ids()) == 12
    files = {path: path.stat().st_mtime_ns for path in store.root.glob("completions/*")}
    benchmark(*arguments, "limit=6", "guidance.scale=1,2")
    assert {path: path.stat().st_mtime_ns for path in store.root.glob("completions/*")} == files
    benchmark(*arguments, "limit=12", "guidance.scale=1,2,3")
    assert len(store.completion_ids()) == 12 * 3
    assert (
        files.items() <= {path: path.stat().st_mtime_ns for path in store.root.glob("completions/*")}.items()
    )


# Results


def test_results_are_those_of_any_study(grid: Path) -> None:
    frame = results(grid)
    assert len(frame) == 10 * ITEMS
    assert set(analysis.metrics_of(frame)) == {*MultipleChoice.columns}
    assert analysis.varying(frame) == ["negatives", "guidance.scale"]
    assert {frame.loc[frame["cell"] == cell, "guidance.scale"].iloc[0] for cell in unguided_cells(frame)} == {
        1
    }
    differences = analysis.comparisons(frame, ["acc", "acc_norm"])
    assert len(differences) == 2 * 8
    assert (differences["n"] == ITEMS).all()
    assert differences["p_holm"].notna().all()
    for _, row in frame.iterrows():
        (chosen,) = {choice["text"] for choice in row["choices"] if choice["text"] == row["text"]}
        assert max(choice["guided"] for choice in row["choices"]) == max(
            choice["guided"] for choice in row["choices"] if choice["text"] == chosen
        )


def test_the_page_shows_items_and_no_tokens(grid: Path, tmp_path: Path) -> None:
    page = report(grid / "results" / "study", tmp_path / "report.html").read_text()
    assert '"available":false' in page
    frame = results(grid)
    assert json.dumps(frame["prompt"][0])[1:-1] in page
    assert "Does guidance raise acc?" in page
    (majority,) = frame.groupby("cell")["majority"].mean().unique()
    assert f"For comparison, majority is {majority:.3g}" in page


def test_tasks_are_not_compared_with_each_other(tmp_path: Path, tiny_folder: Path, quiz: str) -> None:
    """The page has one finding per task and aim; its best cell is a cell of the task."""
    other = Path(quiz).with_name("other.yaml")
    other.write_text(Path(quiz).read_text().replace("task: quiz", "task: other").replace("/test", "/train"))
    benchmark(*on(tmp_path, tiny_folder, quiz), f"tasks=[{quiz},{other}]", "limit=12", "guidance.scale=1,2,3")
    frame = results(tmp_path)
    summary, cells = analysis.summary(frame), cells_of(frame)
    roles = roles_of(list(MultipleChoice.columns))
    comparisons = compare_with_baselines(frame, summary, cells, roles)
    found = findings(frame, summary, cells, roles, comparisons)
    assert {(finding.task, finding.metric) for finding in found} == {
        (task, metric) for task in ("quiz", "other") for metric in ("acc", "acc_norm")
    }
    task_of = dict(zip(frame["cell"], frame["task"], strict=True))
    for finding in found:
        assert finding.change is not None
        assert finding.best is not None
        for cell in (finding.best, finding.change.cell, finding.change.baseline):
            assert task_of[cells.ids[cell]] == finding.task
        assert not [neighbour for neighbour in finding.neighbours if neighbour.setting == "task"]
    page = report(tmp_path / "results" / "study").read_text()
    assert "Does guidance raise acc?" in page
    assert all(f"<b>{task}:</b>" in page for task in ("quiz", "other"))  # a conclusion for each task
    assert page.count("<h3 id='finding-other-") == 2


def test_few_shot_examples_are_those_of_lm_eval(quiz: str) -> None:
    task = load._file_task(quiz)  # pyright: ignore[reportPrivateUsage]
    task.set_config("num_fewshot", 2)
    task.set_fewshot_seed(7)
    task.build_all_requests(samples=[0, 8, 16])
    theirs = [instance.args for instance in task.instances]
    items = load_items(quiz, TaskOptions(limit=3, num_fewshot=2, seed=7))
    assert [pair for item in items for pair in zip(item.contexts, item.continuations, strict=True)] == theirs
    assert all(item.prompt.count("Q: ") == 3 for item in items)


# The metric


def choices(*values: tuple[float, bool], positive: float = -1.0) -> tuple[Choice, ...]:
    """Answers "a", "bb", … with the given guided log-likelihoods."""
    return tuple(
        Choice(
            text="abcd"[number] * (number + 1),
            right=right,
            tokens=1,
            positive=positive,
            negative=math.nan,
            guided=guided,
            raw=math.nan,
            greedy=False,
        )
        for number, (guided, right) in enumerate(values)
    )


def score(*items: tuple[Choice, ...]) -> dict[str, list[float]]:
    return MultipleChoice().score([text("x", choices=item) for item in items])


def test_the_columns_of_an_item() -> None:
    scores = score(choices((-2, False), (-3, True)), choices((-2, True), (-3, False)))
    assert scores["acc"] == [0, 1]
    assert scores["acc_norm"] == [1, 0]  # -3 / 2 characters is above -2 / 1 character
    assert scores["margin"] == [-1, 1]
    assert scores["right_log_prob"] == [-3, -2]
    assert scores["chance"] == [0.5, 0.5]
    assert all(map(math.isnan, [*scores["acc_raw"], *scores["acc_pmi"]]))


def test_of_equal_scores_the_first_answer_is_chosen_as_in_lm_eval() -> None:
    assert score(choices((-2, False), (-2, True)), choices((-2, True), (-2, False)))["acc"] == [0, 1]


def test_majority_is_the_best_constant_position() -> None:
    first, second = choices((-1, True), (-2, False)), choices((-1, False), (-2, True))
    assert score(first, second, second)["majority"] == [0, 1, 1]
    assert score(second, second)["majority"] == [1, 1]  # the same answers: it is the most frequent label
    other = tuple(Choice(**{**vars(choice), "text": choice.text + "!"}) for choice in first)
    assert all(map(math.isnan, score(first, other)["majority"]))  # MC1 writes the right answer first


def test_a_text_without_given_answers_has_no_score() -> None:
    scores = MultipleChoice().score([text("Hello")])
    assert all(math.isnan(value) for (value,) in scores.values())


def test_a_single_answer_is_right_if_greedy_decoding_gives_it() -> None:
    (answer,) = choices((-1, True))
    likeliest = Choice(**{**vars(answer), "greedy": True})
    scores = score((answer,), (likeliest,))
    assert scores["acc"] == [0, 1]
    assert all(map(math.isnan, scores["acc_norm"]))


# Data of packages


def test_a_label_of_hellaswag_is_deduced_from_the_context_of_another_item() -> None:
    wrong = ["flies away.", "sings a song.", "eats the hat."]
    first = {"question": "A man sits. He waits. the man", "answer": ["stands up.", *wrong]}
    last = {"question": "He waits. The man stands up. he", "answer": ["leaves.", *wrong]}
    assert records.hellaswag([first, last]) == {
        "validation": [
            {
                "activity_label": "",
                "ctx_a": "A man sits. He waits.",
                "ctx_b": "the man",
                "endings": first["answer"],
                "label": "0",
            }
        ]
    }


def test_piqa_boolq_and_truthfulqa_have_the_fields_of_the_official_data() -> None:
    piqa = {"question": "Open it.", "options": "A. Pull \nB. Push\nhard.", "answer": "B. Push\nhard."}
    assert records.piqa([piqa])["validation"] == [
        {"goal": "Open it.", "sol1": "Pull ", "sol2": "Push\nhard.", "label": 1}
    ]
    item = {"title": "T", "passage": "P", "question": "q", "answer": "True"}
    same = {"passage": "T -- P", "question": "q", "label": True, "idx": 0}
    train = {"passage": "U -- P", "question": "q", "label": False, "idx": 1}
    assert records.boolq([item], [train, same, {"passage": "V", "question": "q", "idx": 2}]) == {
        "validation": [{"passage": "T -- P", "question": "q", "label": 1}],
        "train": [{"passage": "U -- P", "question": "q", "label": 0}],
    }
    question = {"Question": "Where?", "Best answer": "In the U.S.", "False answers": ["In Rome.", "Here."]}
    assert records.truthfulqa_mc1({"examples": [question]})["validation"] == [
        {
            "question": "Where?",
            "mc1_targets": {"choices": ["In the U.S.", "In Rome", "Here"], "labels": [1, 0, 0]},
        }
    ]


# Refusals


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks=[]", "tasks must be a list of names"),
        ("tasks=[1]", "tasks must be a list of names"),
        ("tasks=null", "tasks must be a list of names"),
        ("tasks=[piqa,piqa]", "tasks must name each task once, got piqa"),
        ("tasks=[missing.yaml]", "there is no file 'missing.yaml'"),
        ("tasks=[hellaswg]", "no task 'hellaswg' .did you mean hellaswag"),
        ("tasks=[mmlu]", "'mmlu' is a group of tasks"),
        ("limit=0", "limit must be a whole number of at least 1 .* got 0"),
        ("limit=2.5", "limit must be a whole number .* got 2.5"),
        ("limit=true", "limit must be a whole number .* got True"),
        ("limit=x", "limit must be a whole number .* got 'x'"),
        ("num_fewshot=-1", "num_fewshot must be a whole number of at least 0"),
        ("num_fewshot=null", "num_fewshot must be a whole number"),
        ("seed=1e3", "seed must be a whole number"),
        ("report=1", "report must be true or false"),
        ("name=a/b", "name must be the name of a folder"),
        ("+samples=2", "samples is not a config key"),
        ("+stop=x", "stop is not a config key"),
        ("negatives=own", "item .* has no negative"),
        ("guidance.scale=nan", "guidance.scale must be"),
    ],
)
def test_odd_values_are_refused_in_a_sentence_before_anything_is_written(
    override: str, message: str, tmp_path: Path, tiny_folder: Path, quiz: str
) -> None:
    arguments = [*on(tmp_path, tiny_folder, quiz), "limit=2", override]
    with pytest.raises(InputError, match=message) as caught:
        benchmark(*arguments)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()


@pytest.mark.parametrize("key", ["tasks", "limit", "num_fewshot", "seed", "name", "results_root", "report"])
def test_every_value_of_every_key_is_a_benchmark_or_is_refused_in_a_sentence(
    key: str, quiz: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("benchmark", overrides=[f"tasks=[{quiz}]"], return_hydra_config=True)
    faults: list[str] = []
    for value in VALUES:
        OmegaConf.update(config, key, value, merge=False)
        try:
            for cell in build_benchmark([config], [{}]).cells:
                load_items(cell.task, cell.options)
        except InputError as error:
            message = str(error)
            if not (key in message and shows(message, value) and "\n" not in message):
                faults.append(f"{value!a}: {message!a}")
    assert not faults, "\n".join(faults)
    assert not list(tmp_path.iterdir())


def test_examples_from_the_evaluated_split_are_refused(tmp_path: Path, quiz: str) -> None:
    """lm-eval would take them, and could show an item its own answer."""
    path = tmp_path / "bare.yaml"
    path.write_text(Path(quiz).read_text().replace("training_split: train\n", ""))
    with pytest.raises(InputError, match="no training split to take examples from; set num_fewshot=0"):
        load_items(str(path), TaskOptions(num_fewshot=1))


def test_a_task_that_generates_text_is_refused(tmp_path: Path, quiz: str) -> None:
    path = tmp_path / "free.yaml"
    path.write_text(Path(quiz).read_text().replace("multiple_choice", "generate_until"))
    with pytest.raises(InputError, match="not decided by the likelihoods of given answers"):
        load_items(str(path), TaskOptions())


def test_without_lm_eval_a_sentence_says_how_to_install_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(load, "find_spec", lambda _: None)
    with pytest.raises(InputError, match=r"pip install 'cfg_lab\[lm_eval\]'"):
        load_items("hellaswag", TaskOptions())


def test_items_are_spaced_evenly() -> None:
    assert TaskOptions(limit=4).numbers(10) == [0, 2, 5, 7]
    assert TaskOptions(limit=20).numbers(3) == TaskOptions().numbers(3) == [0, 1, 2]


# The command


def command(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the command in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "cfg_lab.benchmark", *arguments],
        capture_output=True,
        text=True,
        env=environment(),
        check=False,
    )


def test_the_command_prints_one_row_per_cell_and_says_what_is_wrong(
    tmp_path: Path, tiny_folder: Path, quiz: str
) -> None:
    arguments = [*on(tmp_path, tiny_folder, quiz), "limit=4"]
    done = command(*arguments, "guidance.scale=1,2", "report=true")
    assert done.returncode == 0, done.stderr
    assert "scoring" in done.stdout
    assert "majority" in done.stdout
    assert done.stdout.count("quiz ") == 2
    assert (tmp_path / "results" / "study" / "report.html").is_file()
    for wrong, sentence in (
        ("gidance.scale=2", "is not a config key"),
        ("hydra/launcher=basic", "leave hydra/launcher unset"),
    ):
        refused = command(*arguments, wrong)
        assert refused.returncode == 2
        assert sentence in refused.stderr
        assert refused.stderr.count("\n") == 1
    assert "guidance.scale=1,1.5,2,3" in command("--help").stdout


# The real model on the real tasks


@pytest.mark.real
@pytest.mark.parametrize("name", list(PACKAGED))
def test_the_packaged_tasks_have_lm_evals_accuracies_at_scale_1(name: str, tmp_path: Path) -> None:
    benchmark(
        *(f"tasks=[{name}]", "limit=10", "guidance.scale=1", "tracking=none", "report=false"),
        f"results_root={tmp_path / 'results'}",
        "name=study",
    )
    frame = results(tmp_path)
    task = load._packaged_task(name)  # pyright: ignore[reportPrivateUsage]
    taken = TaskOptions(limit=10).numbers(len(task.eval_docs))
    model = cfg_lab.load_model("smollm2")
    samples = lm_eval_samples(model.module, model.tokenizer, task, taken)
    by_id = {f"{name}/{number}": sample for number, sample in zip(taken, samples, strict=True)}
    for _, row in frame.iterrows():
        sample = by_id[row["prompt_id"]]
        assert row["acc"] == sample["acc"]
        assert row["acc_norm"] == sample.get("acc_norm", row["acc_norm"])
        theirs = [answer[0] for answer in sample["filtered_resps"]]
        assert [choice["guided"] for choice in row["choices"]] == pytest.approx(theirs, abs=1e-3)


@pytest.mark.parametrize("size", ["smoke", "cpu", "gpu"])
def test_a_recorded_benchmark_is_refused_by_the_sweep_at_every_size(size: str, tiny_folder: Path) -> None:
    overrides = ["experiment=zero_shot", f"size={size}", f"model.name={tiny_folder}"]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        sweep = compose("sweep", overrides=overrides, return_hydra_config=True)
        config = compose("benchmark", overrides=overrides, return_hydra_config=True)
    with pytest.raises(InputError, match="tasks is not a config key"):
        build_study([sweep], [{}])
    tasks = {cell.task for cell in build_benchmark([config], [{}]).cells}
    assert tasks == set(PACKAGED) - ({"truthfulqa_mc1"} if size == "smoke" else set())
    assert config.limit == {"smoke": 2, "cpu": 150, "gpu": None}[size]

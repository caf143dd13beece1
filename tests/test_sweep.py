"""The main job from end to end, on a small model, as a user runs it."""

from __future__ import annotations

import json
import os
import shlex
import signal
import subprocess
from functools import partial
from pathlib import Path

import pandas as pd
import pytest
import yaml
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser

import cfg_lab
from cfg_lab.errors import InputError
from cfg_lab.options import CONFIG
from cfg_lab.report.write import read_study
from cfg_lab.study.progress import ProgressBar
from cfg_lab.study.store import Store
from tests.cli import command, environment, on, shell, sweep, wait_until

GRID = ["guidance.scale=1,2,3", "negatives=empty,own"]


def texts(path: Path) -> pd.DataFrame:
    """The texts of a results folder with what names them, in an order of their own."""
    frame = cfg_lab.load_results(path)
    keys = ["negatives", "guidance.scale", "prompt_id", "sample"]
    return frame.sort_values(keys)[[*keys, "completion", "text", "finish_reason"]].reset_index(drop=True)


def test_help_config_and_a_mistyped_key() -> None:
    helped = shell("--help")
    assert "guidance.scale=1,1.5,2,3 negatives=empty,own" in helped.stdout
    assert "negatives: amateur, base, bos, custom, default_system" in helped.stdout
    assert "scale: 1.5" in shell("--cfg", "job").stdout
    mistyped = shell("guidance.scal=2")
    assert mistyped.returncode == 2
    assert mistyped.stderr.startswith(
        "error: guidance.scal is not a config key (did you mean guidance.scale?); guidance has the keys"
    )
    without_group = shell("scale=2")
    assert without_group.stderr.startswith("error: scale is not a config key (did you mean guidance.scale?)")
    option = shell("negatives=own,owm")  # found before the first cell is decoded
    assert option.stderr.startswith(
        "error: negatives has no option 'owm' (did you mean own?); the options are"
    )
    for failed in (mistyped, without_group, option):
        assert len(failed.stderr.splitlines()) == 1


def test_the_reader_of_the_help_text_may_leave() -> None:
    """As in `--help | head -1`. The pipe is closed before the command prints."""
    with subprocess.Popen(
        command("--help"), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment()
    ) as helped:
        assert helped.stdout is not None
        assert helped.stderr is not None
        helped.stdout.close()
        assert helped.stderr.read() == ""


def test_every_command_in_the_help_text_makes_the_cells_it_means() -> None:
    """A comma in a value that is not quoted for Hydra too would make two cells."""
    template = yaml.safe_load((CONFIG / "sweep.yaml").read_text())["hydra"]["help"]["template"]
    lines = [line.strip() for line in template.splitlines() if "-m cfg_lab.sweep" in line]
    lines = [line for line in lines if "hydra/sweeper=optuna" not in line]  # it has a space, and no cells
    cells: list[int] = []
    for line in lines:
        overrides = OverridesParser.create().parse_overrides(shlex.split(line)[3:])
        (jobs,) = BasicSweeper.split_arguments(overrides, None)
        cells.append(len(jobs))
    assert cells == [4 * 2, 2, 1]
    assert overrides[-1].value() == "ugly:0.8, deformed:0.5"


def test_a_sweep_and_the_same_again(tmp_path: Path, tiny_folder: Path) -> None:
    arguments = [*on(tmp_path, tiny_folder), *GRID]
    first = shell(*arguments)
    assert first.returncode == 0, first.stderr
    assert "6 cells" in first.stdout
    assert "perplexity" in first.stdout
    assert "summary" in first.stdout
    root = tmp_path / "results" / "study"
    frame = cfg_lab.load_results(root)
    assert len(frame) == 6 * 3 * 2
    assert frame["perplexity"].notna().all()
    # scale 1 of both negatives is one decoding, counted in each cell
    assert frame["completion"].nunique() == (1 + 2 * 2) * 3 * 2
    shards = {path: path.stat().st_mtime_ns for path in root.glob("[cs]o*/*.parquet")}
    again = shell(*arguments)
    assert again.returncode == 0
    assert {path: path.stat().st_mtime_ns for path in root.glob("[cs]o*/*.parquet")} == shards
    assert "decoding" not in again.stdout + again.stderr


def test_the_summary_is_the_mean_of_the_texts(tmp_path: Path, tiny_folder: Path) -> None:
    rows = sweep(*on(tmp_path, tiny_folder), *GRID)
    root = tmp_path / "results" / "study"
    frame, summary = cfg_lab.load_results(root), pd.read_parquet(root / "summary.parquet")
    assert [(row["guidance.scale"], row["negatives"]) for row in rows] == [
        (scale, negative) for scale in (1, 2, 3) for negative in ("empty", "own")
    ]
    for _, row in summary.iterrows():
        values = frame.loc[frame["cell"] == row["cell"], "perplexity"]
        assert row["perplexity"] == pytest.approx(values.mean())
        assert row["perplexity_n"] == row["texts"] == len(values) == 6
        assert row["perplexity_low"] < row["perplexity"] < row["perplexity_high"]
    assert (root / "config.yaml").is_file()
    assert json.loads((root / "environment.json").read_text())["packages"]["torch"]


def test_the_conclusion_of_the_page_is_printed_after_the_table(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Also without a page, and from all cells of the folder."""
    arguments = on(tmp_path, tiny_folder)
    sweep(*arguments, "guidance.scale=1,2", "negatives=own")
    root = tmp_path / "results" / "study"
    printed = capsys.readouterr().out
    first, *_ = read_study(root).conclusion
    assert " with guidance (scale 2)" in first
    assert first in printed.partition("mean over n texts")[2].splitlines()
    assert "Conclusion from all" not in printed
    sweep(*arguments, "guidance.scale=3", "negatives=own")
    printed = capsys.readouterr().out
    first, *_ = read_study(root).conclusion
    assert f"Conclusion from all 3 cells of study:\n{first}\n" in printed


RULES = "cfg,union,self_debias,kl_budget,interval,adaptive_stop,plausible,apg,by_entropy,cosine,dola"


def test_rules_are_compared_in_one_sweep(tmp_path: Path, tiny_folder: Path) -> None:
    """Rules that are not named with a scale take their own, and each is a cell of one batch."""
    grid = [
        f"guidance={RULES}",
        "negatives=empty,own",
        "guidance/stopping=on_agreement",
        "guidance.stopping.threshold=0.5",
    ]
    assert len(sweep(*on(tmp_path, tiny_folder), *grid)) == 22
    frame = cfg_lab.load_results(tmp_path / "results" / "study").drop_duplicates("cell").set_index("guidance")
    assert set(frame.loc["self_debias", "guidance.scale"]) == {2.0}
    assert set(frame.loc["kl_budget", "guidance.adaptive"]) == {"kl_budget"}
    assert set(frame.loc["interval", "guidance.schedule"]) == {"interval"}
    assert set(frame.loc["interval", "guidance.schedule.end"]) == {16}
    assert frame.loc["cfg", "guidance.schedule.end"].isna().all()
    assert frame["completion"].nunique() > 15


def test_schedules_and_modifiers_compose_with_any_rule(tmp_path: Path, tiny_folder: Path) -> None:
    rows = sweep(
        *on(tmp_path, tiny_folder),
        "guidance=union,contrastive",
        "guidance/schedule=linear,constant",
        "guidance/modifiers=[],[rescale]",
        "metrics=[cost]",
    )
    assert len({row["cell"] for row in rows}) == 8
    saved = {(row["guidance"], row["guidance.schedule"]): row["negatives_saved"] for row in rows}
    assert saved["union", "linear"] == saved["contrastive", "linear"] == 0  # 32 steps, more than the text has
    short = ["guidance=interval", "guidance.schedule.end=2", "metrics=[cost]"]
    (ended,) = sweep(*on(tmp_path, tiny_folder), *short)
    assert ended["negatives_saved"] > 0


def test_what_decoding_cost_is_stored_and_printed(
    tmp_path: Path, tiny_folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = [*on(tmp_path, tiny_folder), "guidance=interval", "guidance.schedule.end=2"]
    sweep(*study)
    root = tmp_path / "results" / "study"
    frame = cfg_lab.load_results(root)
    (cost,) = Store(root).costs()
    assert (cost["texts"], cost["tokens"]) == (len(frame), frame["tokens"].map(len).sum())
    saved = [sum(row["tokens_read_in_full"][1:]) - sum(row["tokens_read"][1:]) for _, row in frame.iterrows()]
    assert cost["negative_rows_saved"] == sum(saved) > 0
    assert 0 < cost["steps"] < cost["rows"] <= sum(map(sum, frame["tokens_read"]))
    assert cost["seconds"] > 0
    assert cost["peak_memory"] > 5e7  # no Python with torch is smaller
    assert f"decoded  {len(frame)} texts, {cost['tokens']:,} tokens in" in capsys.readouterr().out
    sweep(*study)  # nothing is left to do
    assert Store(root).costs() == [cost]
    sweep(*study, "samples=3")
    costs = Store(root).costs()
    assert all(cost["command"].startswith("python -m cfg_lab.sweep") for cost in costs)
    assert [cost["texts"] for cost in costs] == [6, 3]


def test_a_beam_search_stores_the_next_best_texts(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "sampling=beam", "sampling.n_best=3", "guidance.scale=2")
    frame = cfg_lab.load_results(tmp_path / "results" / "study")
    assert len(frame) == 3
    assert set(map(len, frame["others"])) == {2}


def test_the_likeliest_tokens_of_each_step_are_stored(tmp_path: Path, tiny_folder: Path) -> None:
    for top in (3, 0):
        sweep(*on(tmp_path, tiny_folder, f"top{top}"), "guidance.scale=1,2", f"top={top}")
    with_alternatives = cfg_lab.load_results(tmp_path / "results" / "top3")
    for _, row in with_alternatives.iterrows():
        assert len(row["pieces"]) == len(row["tokens"]) == len(row["alternatives_guided"])
        for step in row["alternatives_guided"]:
            assert len(step) == 3
            assert step[0]["log_prob"] >= step[1]["log_prob"]
        counts = set(map(len, row["alternatives_negative"]))
        assert counts == {0 if row["guidance.scale"] == 1 else 3}
    without = cfg_lab.load_results(tmp_path / "results" / "top0")
    assert list(without["text"]) == list(with_alternatives["text"])
    assert set(map(len, without["alternatives_guided"])) == {0}


def test_a_larger_grid_decodes_only_what_is_new(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2")
    root = tmp_path / "results" / "study"
    before = set(cfg_lab.load_results(root)["completion"])
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=1,2,3")
    frame = cfg_lab.load_results(root)
    assert set(frame.loc[frame["guidance.scale"] < 3, "completion"]) == before
    sweep(*on(tmp_path, tiny_folder), "guidance.scale=2", "metrics=[toxicity]")
    assert cfg_lab.load_results(root).query("`guidance.scale` == 2")["toxicity"].notna().all()


def test_a_scale_of_2_and_of_2_0_are_one_cell(tmp_path: Path, tiny_folder: Path) -> None:
    for scales in ("2,1", "2.0,1.0", "1.5,2.0"):
        sweep(*on(tmp_path, tiny_folder), f"guidance.scale={scales}")
    assert set(cfg_lab.load_results(tmp_path / "results" / "study")["guidance.scale"]) == {1, 1.5, 2}
    assert cfg_lab.load_results(tmp_path / "results" / "study")["cell"].nunique() == 3


def test_killed_at_any_point_and_run_again_it_ends_the_same(tmp_path: Path, tiny_folder: Path) -> None:
    """SIGKILL before decoding, twice during decoding, and during scoring, in the same folder."""
    work = [*GRID, "samples=60", "max_new_tokens=16", "max_rows=48"]  # several files of completions
    decoded_texts = (1 + 2 * 2) * 3 * 60  # both cells of scale 1 have the same texts
    arguments = [*on(tmp_path, tiny_folder, "killed"), *work]
    root = tmp_path / "results" / "killed"

    def kill_after_new_file(folder: str) -> None:
        before = set(root.glob(f"{folder}/[!.]*.parquet"))
        process = subprocess.Popen(
            command(*arguments), env=environment(), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        try:
            wait_until(lambda: not before >= set(root.glob(f"{folder}/[!.]*.parquet")), process)
        finally:
            process.kill()
        assert process.wait() == -signal.SIGKILL  # it had not ended by itself

    kill_after_new_file("cells")
    assert len(Store(root).completion_ids()) == 0
    for files in (1, 2):
        kill_after_new_file("completions")
        assert 256 * files <= len(Store(root).completion_ids()) < decoded_texts
    assert not list(root.glob("scores/*.parquet"))
    kill_after_new_file("scores")
    assert len(Store(root).completion_ids()) == decoded_texts
    assert not (root / "summary.parquet").exists()

    assert shell(*arguments).returncode == 0
    sweep(*on(tmp_path, tiny_folder, "whole"), *work)
    whole = tmp_path / "results" / "whole"
    pd.testing.assert_frame_equal(texts(root), texts(whole))
    assert len(texts(whole)) == 6 * 3 * 60
    summaries = [pd.read_parquet(folder / "summary.parquet").sort_values("cell") for folder in (root, whole)]
    pd.testing.assert_frame_equal(*(summary.reset_index(drop=True) for summary in summaries))


def test_an_interruption_loses_no_finished_text(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    finished = 0
    advance = ProgressBar.advance

    def interrupt_at_7(bar: ProgressBar, done: int, *, saved: int = 0, note: str | None = None) -> None:
        nonlocal finished
        finished += note is not None and note.endswith("/12 texts")
        if finished == 7:
            raise KeyboardInterrupt
        advance(bar, done, saved=saved, note=note)

    monkeypatch.setattr(ProgressBar, "advance", interrupt_at_7)
    arguments = [*on(tmp_path, tiny_folder), "guidance.scale=1,2", "max_rows=4"]
    with pytest.raises(KeyboardInterrupt):
        sweep(*arguments)
    root = tmp_path / "results" / "study"
    assert len(Store(root).completion_ids()) == 7
    monkeypatch.undo()
    sweep(*arguments)
    assert [cost["texts"] for cost in Store(root).costs()] == [7, 5]


def test_ctrl_c_keeps_what_is_finished_and_says_how_to_continue(tmp_path: Path, tiny_folder: Path) -> None:
    arguments = [*on(tmp_path, tiny_folder), "samples=400", "max_new_tokens=20", "max_rows=32"]
    root = tmp_path / "results" / "study"
    process = subprocess.Popen(
        command(*arguments),
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        # What a shell runs in the background ignores Ctrl-C, and so would all that is started from there.
        preexec_fn=partial(signal.signal, signal.SIGINT, signal.SIG_DFL),
    )
    try:
        wait_until(lambda: any(root.glob("completions/[!.]*.parquet")), process)
        process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=180)
    finally:
        process.kill()
    assert process.returncode == 130
    assert "Finished texts and scores are stored." in errors
    assert "Run the same command again to continue." in errors
    assert "Traceback" not in errors
    assert 256 <= len(cfg_lab.load_results(root)) < 3 * 400


def test_two_sweeps_in_one_folder_at_once(tmp_path: Path, tiny_folder: Path) -> None:
    arguments = [*on(tmp_path, tiny_folder), *GRID]
    both = [
        subprocess.Popen(command(*arguments), env=environment(), stdout=subprocess.DEVNULL) for _ in range(2)
    ]
    assert [process.wait(300) for process in both] == [0, 0]
    sweep(*on(tmp_path, tiny_folder, "alone"), *GRID)
    results = tmp_path / "results"
    pd.testing.assert_frame_equal(texts(results / "study"), texts(results / "alone"))


def test_greedy_decoding_makes_one_sample(tmp_path: Path, tiny_folder: Path) -> None:
    (row,) = sweep(*on(tmp_path, tiny_folder), "sampling=greedy", "samples=5")
    assert row["texts"] == 3


def test_stop_strings_end_and_cut_a_text(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder, "free"), "max_new_tokens=40")
    free = cfg_lab.load_results(tmp_path / "results" / "free")
    whole = free["text"].iloc[0]
    stop = whole[5]
    sweep(*on(tmp_path, tiny_folder, "cut"), "max_new_tokens=40", f"stop=[{json.dumps(stop)}]")
    cut = cfg_lab.load_results(tmp_path / "results" / "cut").iloc[0]
    assert cut["text"] == whole[: whole.index(stop)]
    assert cut["finish_reason"] == "stop"


def test_token_ids_of_the_negatives_are_recorded(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder), "negatives.mode=separate")
    first = cfg_lab.load_results(tmp_path / "results" / "study").iloc[0]
    model = cfg_lab.load_model(str(tiny_folder))
    assert [tuple(ids) for ids in first["negative_ids"]] == [
        model.encode("Text 0 It should be bad."),
        model.encode("Text 0 It should be dull."),
    ]
    assert list(first["negative_weights"]) == [0.1, 1.0]


BAD = {
    "model.name=no/such-model": r"model\.name is 'no/such-model'",
    "model.prompt_format=haiku": r"model\.prompt_format must be one of",
    "prompts.path=nowhere.txt": r"prompts\.path is 'nowhere\.txt', which is not a file",
    "name=": r"name must be the name of a folder .* got ''",
    "name=null": r"name must be a text, got None",
    "results_root=": r"results_root must be a folder",
    "prompts.limit=0": r"prompts\.limit must be a whole number of at least 1, got 0",
    "prompts.column=question": r"prompts\.column is 'question', but .* has id, text, negative",
    "guidance.scale=nan": r"guidance\.scale must be a finite number .* got nan",
    "guidance.scale=inf": "got inf",
    "guidance.scale=strong": "got 'strong'",
    "negatives=custom": r"negatives\.phrases has no value yet",
    "negatives.template=nothing": r"negatives\.template must be one of",
    "negatives.mode=both": r"negatives\.mode must be joined or separate",
    "negatives=default_system": r"prompt 'p0': negatives=default_system does nothing",
    "max_new_tokens=-1": r"max_new_tokens must be a whole number of at least 1, got -1",
    "max_new_tokens=many": "got 'many'",
    "max_new_tokens=250": r"prompt 'p0': .* exceed the 256 tokens that model",
    "samples=0": r"samples must be a whole number from 1 to 100,000, got 0",
    "seed=-1": r"seed must be a whole number of at least 0, got -1",
    "max_rows=1": r"max_rows must be at least 2",
    "max_rows=many": r"max_rows must be auto or a whole number of at least 1, got 'many'",
    "cuda_graphs=on": r"cuda_graphs must be auto or off, got 'on'",
    "max_rows=0": r"max_rows must be auto or a whole number of at least 1, got 0",
    "sampling.top_p=0": r"sampling\.top_p must be a number in \(0, 1\], got 0",
    "sampling.top_p=1.5": "got 1.5",
    "sampling.temperature=0": r"sampling\.temperature must be a number above 0",
    "metrics=[evaluate]": r"metrics\.evaluate\.module has no value yet",
    "results_root=/proc/nothing": r"results_root/name is '/proc/nothing/study', where nothing can be written",
    "name=a,b": r"name cannot vary within a sweep",
    'stop=[""]': r"stop must be a text or a list of texts, none of them empty .* got \[''\]",
    "stop=5": r"stop must be a text .* got 5",
    "stop=null": r"stop must be a text .* got None",
    'stop=["</s>."]': r"stop has '</s>\.', which contains the special token '</s>' of model",
}


@pytest.mark.parametrize("argument", BAD)
def test_bad_input_is_named_and_nothing_is_written(tmp_path: Path, tiny_folder: Path, argument: str) -> None:
    with pytest.raises(InputError, match=BAD[argument]):
        sweep(*on(tmp_path, tiny_folder), argument)
    assert not (tmp_path / "results").exists()


def test_bad_input_on_the_command_line_is_one_sentence(tmp_path: Path, tiny_folder: Path) -> None:
    done = shell(*on(tmp_path, tiny_folder), "guidance.scale=nan", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.startswith("error: guidance.scale must be a finite number")
    assert "Traceback" not in done.stderr
    assert sorted(os.listdir(tmp_path)) == ["prompts.jsonl"]


def test_logits_that_are_not_numbers_name_the_prompt(tmp_path: Path) -> None:
    import torch

    from cfg_lab.decoding.model import NotANumberError
    from tests.conftest import make_model, make_tokenizer

    model = make_model("rotary")
    with torch.no_grad():
        model.lm_head.weight[5] = torch.nan
    folder = tmp_path / "broken"
    model.save_pretrained(folder)
    make_tokenizer().save_pretrained(folder)
    with pytest.raises(
        NotANumberError, match=r"broken \(prompt p0\)' gave logits that are not numbers at step 0"
    ):
        sweep(*on(tmp_path, folder))


def test_cells_that_differ_in_anything_are_two(tmp_path: Path, tiny_folder: Path) -> None:
    rules = "cfg_lab.guidance.ClassifierFreeGuidance,cfg_lab.guidance.UnionGuidance"
    rows = sweep(*on(tmp_path, tiny_folder), "guidance.scale=3", f"guidance._target_={rules}")
    assert len({row["cell"] for row in rows}) == len({row["perplexity"] for row in rows}) == 2
    texts = "[{id: a, text: One}],[{id: a, text: Two}]"
    usual = [line for line in on(tmp_path, tiny_folder) if not line.startswith("prompts")]
    rows = sweep(*usual, "prompts=openers", "negatives=none", f"prompts.prompts={texts}")
    assert len({row["cell"] for row in rows}) == 2


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["negatives=base"],
            r"negatives\.models\.base\.name has no value yet; set negatives\.models\.base\.name=…",
        ),
        (
            ["guidance.modifiers=null"],
            r"guidance\.modifiers must be options of guidance/modifiers.* got None",
        ),
        (["~sampling"], "sampling must be one of beam, greedy, nucleus, got nothing"),
        (["guidance=preadd", "guidance.scale=abc"], r"guidance\.scale must be a finite number .* got 'abc'"),
        (["+guidance.foo=3"], r"guidance\.foo is unknown \(got 3\); guidance has the keys scale, "),
        (["guidance.scale=1e39"], r"guidance\.scale must be a finite number .* got 1e\+39"),
    ],
)
def test_odd_values_are_named(arguments: list[str], message: str, tmp_path: Path, tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=message):
        sweep(*on(tmp_path, tiny_folder), *arguments)

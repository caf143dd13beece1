"""Students: one forward gives what guidance gives with two."""

from __future__ import annotations

import json
import math
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from safetensors.torch import load_file, save_file

from cfg_lab import Decoder, Request, load_model
from cfg_lab.decoding.sampling import Sampling
from cfg_lab.errors import InputError
from cfg_lab.learning.lora import TrainedLora
from cfg_lab.learning.losses import distillation_loss, gft_loss, with_tail
from cfg_lab.learning.student_plan import StudentSettings
from cfg_lab.models import load_student
from cfg_lab.models.student import STUDENT_FILE, StudentCard
from tests.cli import environment, sweep, wait_until
from tests.learn import learn, on
from tests.taught_model import save_taught_model

SMALL = ["steps=2", "steps_per_round=1", "batch=2", "max_new_tokens=4", "check_scales=[2]", "check_prompts=2"]


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, taught: Path) -> Path:
    """The results folder of a student that was trained for the scales 1.5 and 3, and those between."""
    folder = tmp_path_factory.mktemp("student")
    arguments = ["steps=50", "batch=8", "max_new_tokens=8", "learning_rate=0.005", "check_prompts=20"]
    learn("distil", *on(folder, taught, "gft"), *arguments, "check_scales=[1.25,1.5,2.2,3]")
    return folder / "results" / "gft"


# The losses


def test_the_loss_of_gft_is_smallest_where_the_student_is_classifier_free_guidance() -> None:
    torch.manual_seed(0)
    positive, negative = torch.randn(2, 4, 30, dtype=torch.float64).log_softmax(-1)
    for scale in (0.5, 1.5, 3.0):
        student = (negative + scale * (positive - negative)).requires_grad_()
        loss = gft_loss(student, negative, scale, positive)
        (gradient,) = torch.autograd.grad(loss.sum(), student)
        assert gradient.abs().max() < 1e-12
        entropy = -(positive.exp() * positive).sum(-1)
        torch.testing.assert_close(loss, entropy)
        other = gft_loss(student + torch.randn_like(student), negative, scale, positive)
        assert (other > entropy).all()


def test_the_loss_of_gft_equals_its_formula_and_is_the_mean_over_sampled_tokens() -> None:
    torch.manual_seed(0)
    student = torch.randn(3, 7, dtype=torch.float64)
    positive, negative = torch.randn(2, 3, 7, dtype=torch.float64).log_softmax(-1)
    beta = 1 / 1.7
    weights = student.softmax(-1) ** beta * negative.exp() ** (1 - beta)
    formula = -(weights / weights.sum(-1, keepdim=True)).log()
    by_token = torch.stack(
        [gft_loss(student, negative, 1.7, torch.full((3,), token)) for token in range(7)], -1
    )
    torch.testing.assert_close(by_token, formula)
    mean = (positive.exp() * by_token).sum(-1)
    torch.testing.assert_close(gft_loss(student, negative, 1.7, positive), mean)


@pytest.mark.parametrize("k", [1, 3, 7, 100])
def test_the_loss_of_distillation_equals_a_loop_over_tokens_and_tail(k: int) -> None:
    torch.manual_seed(0)
    student = torch.randn(4, 7, dtype=torch.float64, requires_grad=True)
    guided = torch.randn(4, 7, dtype=torch.float64).log_softmax(-1)
    disagreement = torch.tensor([0.0, 0.1, 1.0, 9.0], dtype=torch.float64)
    loss = distillation_loss(student, guided, disagreement, k)
    for row in range(4):
        likeliest = sorted(range(7), key=lambda token: -guided[row, token].item())[:k]
        q, p = guided[row].exp(), student[row].softmax(-1)
        buckets = [(q[token], p[token]) for token in likeliest]
        if k < 7:
            buckets.append((1 - sum(a for a, _ in buckets), 1 - sum(b for _, b in buckets)))
        divergence = sum(a * (a / b).log() for a, b in buckets)
        weight = disagreement[row] / (disagreement[row] + 1)
        torch.testing.assert_close(loss[row], weight * divergence)
    loss.sum().backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()


def test_a_token_and_the_tail_have_all_the_probability() -> None:
    log_probs = torch.tensor([[0.5, 0.3, 0.2]]).log()
    tail = with_tail(log_probs, torch.tensor([[1]])).exp()
    torch.testing.assert_close(tail, torch.tensor([[0.3, 0.7]]))


# The scales of training


def test_scales_are_spread_evenly_in_one_over_scale() -> None:
    settings = StudentSettings(scales=[1, 4], check_scales=[2])
    shares = sorted((1 / settings.scale_of(number) - 0.25) / 0.75 for number in range(100))
    assert all(abs(share - (rank + 0.5) / 100) < 0.02 for rank, share in enumerate(shares))
    assert [settings.scale_of(n) for n in range(9)] == [
        StudentSettings(scales=[1, 4], check_scales=[2]).scale_of(n) for n in range(9)
    ]


# A student and its base


def test_a_fresh_student_equals_its_base_at_every_scale(taught: Path) -> None:
    model = load_model(str(taught))
    source: Any = model.source
    lora = TrainedLora(source.load(), rank=4, seed=0)
    texts = [((256, 97, 98), (99, 100, 101)), ((97,), (98, 99))]
    plain = source.load()
    for strength in (0, 0.5, 2):
        lora.set_strength(strength)
        for (context, tokens), logits in zip(texts, lora.logits(texts), strict=True):
            ids = torch.tensor([[*context, *tokens]])
            expected = plain(input_ids=ids).logits[0, len(context) - 1 : -1]
            torch.testing.assert_close(logits, expected, rtol=0, atol=1e-5)


def test_at_scale_1_a_student_is_its_base(results: Path, taught: Path) -> None:
    student, base = load_student(str(results / "student"), scale=1), load_model(str(taught))
    assert student.fingerprint == base.fingerprint
    for name, values in base.source.load().state_dict().items():
        assert torch.equal(values, student.source.load().state_dict()[name]), name


def test_a_student_is_far_nearer_to_guidance_than_its_base_on_held_out_prompts(results: Path) -> None:
    """Also at 2.2, between the trained scales, and at 1.25, between them and 1; on plain and own texts."""
    check = pd.read_parquet(results / "check.parquet")
    means = check.groupby(["scale", "texts"])[["kl_base", "kl_student"]].mean()
    assert set(means.index) == {(s, t) for s in (1.25, 1.5, 2.2, 3) for t in ("plain", "student")}
    assert (means["kl_base"] > 0.01).all()
    assert (means["kl_student"] < means["kl_base"] / 4).all(), means


@pytest.mark.parametrize("texts", ["guided", "student"])
def test_distillation_learns_from_guided_texts_and_from_its_own(
    texts: str, tmp_path: Path, taught: Path
) -> None:
    arguments = ["steps=30", "batch=4", "max_new_tokens=8", "learning_rate=0.005", "check_prompts=10"]
    overrides = ["objective=distil", f"texts={texts}", "scales=[2,2]", "check_scales=[2]"]
    learn("distil", *on(tmp_path, taught, "distil"), *arguments, *overrides)
    check = pd.read_parquet(tmp_path / "results/distil/check.parquet")
    assert len(check) == 20
    assert check["kl_student"].mean() < check["kl_base"].mean() / 3


def test_the_check_measures_what_a_plain_forward_of_the_loaded_student_gives(
    results: Path, taught: Path
) -> None:
    check = pd.read_parquet(results / "check.parquet")
    row = check[(check["scale"] == 2.2) & (check["texts"] == "plain")].iloc[0]
    base, student = load_model(str(taught)), load_student(str(results / "student"), scale=2.2)
    positive, empty = base.encode(row["prompt"]), base.encode("")
    (done,) = Decoder(base).decode(
        [
            Request(
                positive=positive,
                sampling=Sampling(),
                max_new_tokens=8,
                stop_ids=base.stop_ids,
                sample=1_000_000,
            )
        ]
    )
    assert len(done.tokens) == row["tokens"]

    def log_probs(module: Any, context: tuple[int, ...]) -> torch.Tensor:
        logits = module(input_ids=torch.tensor([[*context, *done.tokens]])).logits
        return logits[0, len(context) - 1 : -1].double().log_softmax(-1)

    with torch.no_grad():
        p, n = (log_probs(base.source.load(), context) for context in (positive, empty))
        own = log_probs(student.source.load(), positive)
    guided = (n + 2.2 * (p - n)).log_softmax(-1)
    divergence = (guided.exp() * (guided - own)).sum(-1).mean().item()
    assert divergence == pytest.approx(row["kl_student"], abs=1e-4)


# A student as a model option


def test_a_student_is_a_model_option_and_each_scale_is_a_cell(
    results: Path, tmp_path: Path, taught: Path
) -> None:
    prompts = tmp_path / "prompts.jsonl"
    prompts.write_text('{"id": "a", "text": "a1"}\n{"id": "b", "text": "b2"}\n')
    rows = sweep(
        "model=student",
        f"model.path={results / 'student'}",
        "model.scale=1,2,3",
        "negatives=none",
        "guidance.scale=1",
        "prompts=file",
        f"prompts.path={prompts}",
        f"results_root={tmp_path / 'results'}",
        "tracking=none",
        "report=false",
        "metrics=[length,cost]",
        "max_new_tokens=6",
        "name=students",
    )
    assert [row["model.scale"] for row in rows] == [1, 2, 3]
    assert {row["forwards"] for row in rows if "forwards" in row} <= {1}
    base = load_model(str(taught))
    fingerprints = [load_student(str(results / "student"), scale=scale).fingerprint for scale in (1, 2, 3)]
    assert len({*fingerprints}) == 3
    assert fingerprints[0] == base.fingerprint


def test_the_fingerprint_depends_on_the_weights_of_the_adapter(results: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(results / "student", copy)
    same = load_student(str(copy), scale=2).fingerprint
    assert same == load_student(str(results / "student"), scale=2).fingerprint
    weights = load_file(copy / "adapter_model.safetensors")
    name = min(weights)
    weights[name] = weights[name] + 1
    save_file(weights, copy / "adapter_model.safetensors")
    assert load_student(str(copy), scale=2).fingerprint != same


def test_what_a_student_cannot_do_is_refused_in_a_sentence(results: Path, tmp_path: Path) -> None:
    path = str(results / "student")
    for scale in (3.5, 0.5, math.nan, "2", True):
        with pytest.raises(InputError, match=r"model\.scale must be a number from 1 to 3"):
            load_student(path, scale=scale)  # type: ignore[arg-type]
    with pytest.raises(InputError, match=r"has no student\.json"):
        load_student(str(tmp_path))
    other = save_taught_model(tmp_path / "other", steps=1)
    with pytest.raises(InputError, match="trained with other weights"):
        load_student(path, base=str(other))
    broken = tmp_path / "broken"
    shutil.copytree(path, broken)
    (broken / STUDENT_FILE).write_text("{")
    with pytest.raises(InputError, match="is broken"):
        load_student(str(broken))


def test_the_file_of_a_student_names_what_it_was_trained_for(results: Path, taught: Path) -> None:
    card = StudentCard.read(results / "student")
    assert card.base["name"] == str(taught.resolve())
    assert card.negatives["variant"] == "empty"
    assert card.scales == (1.5, 3)
    assert "cfg_lab.learn distil" in card.command
    assert replace(card) == card


# Interruptions


def test_a_killed_training_goes_on_and_ends_as_an_uninterrupted_one(tmp_path: Path, taught: Path) -> None:
    arguments = ["steps=6", "steps_per_round=1", "batch=2", "max_new_tokens=4", "check_prompts=2"]
    arguments += ["objective=distil", "texts=student", "check_scales=[2]"]
    command = [sys.executable, "-m", "cfg_lab.learn", "distil", *on(tmp_path, taught, "killed"), *arguments]
    state = tmp_path / "results/killed/training.pt"
    process = subprocess.Popen(
        command, env=environment(OMP_NUM_THREADS="1"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    wait_until(state.exists, process)
    process.kill()
    process.wait()
    assert not (tmp_path / "results/killed/student").exists()
    done = len(torch.load(state, weights_only=True)["steps"])
    assert 0 < done < 6
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        for name in ("killed", "whole"):
            learn("distil", *on(tmp_path, taught, name), *arguments)
    finally:
        torch.set_num_threads(threads)
    killed, whole = (
        load_file(tmp_path / "results" / name / "student/adapter_model.safetensors")
        for name in ("killed", "whole")
    )
    assert killed.keys() == whole.keys()
    assert all(torch.equal(killed[name], whole[name]) for name in whole)
    tables = [pd.read_parquet(tmp_path / "results" / name / "steps.parquet") for name in ("killed", "whole")]
    pd.testing.assert_frame_equal(*tables)
    assert not state.exists()


def test_the_same_command_again_trains_nothing_and_another_one_is_refused(
    tmp_path: Path, taught: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    learn("distil", *on(tmp_path, taught, "twice"), *SMALL)
    weights = (tmp_path / "results/twice/student/adapter_model.safetensors").read_bytes()
    monkeypatch.setattr("cfg_lab.learning.distil.train", None)
    monkeypatch.setattr("cfg_lab.learning.distil.check_student", None)
    learn("distil", *on(tmp_path, taught, "twice"), *SMALL)
    with pytest.raises(
        InputError, match=r"name='twice': .* another value of rank, seed; choose another name"
    ):
        learn("distil", *on(tmp_path, taught, "twice"), *SMALL, "seed=1", "rank=2")
    assert (tmp_path / "results/twice/student/adapter_model.safetensors").read_bytes() == weights
    assert json.loads((tmp_path / "results/twice/cost.json").read_text())["texts"] == 4


# Refusals


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["objective=x"], "objective must be one of gft, distil, got 'x'"),
        (["texts=student"], "texts must be plain with objective=gft"),
        (["scales=[3,1]"], r"scales must be \[smallest, largest\]"),
        (["scales=[1,1]"], r"scales must be \[smallest, largest\]"),
        (["scales=2"], "scales must be a list of numbers above 0"),
        (["check_scales=[4]"], "check_scales must be scales from 1 to 3 other than 1"),
        (["steps=0"], "steps must be a whole number of at least 1, got 0"),
        (["learning_rate=0"], "learning_rate must be a number above 0"),
        (["guidance=union"], "objective=gft learns plain classifier-free guidance only"),
        (["guidance/schedule=linear"], "objective=gft learns plain classifier-free guidance only"),
        (["negatives=none"], "it has no negative"),
        (
            ["negatives=custom", "negatives.phrases='a,b'", "negatives.mode=separate"],
            "gft needs one negative",
        ),
        (["+prompts.half=selection"], "leave prompts.half=null"),
        (["prompts.limit=1"], "is in the half"),
        (["model.skip_layers=[0,1]"], r"cannot be the base of a student: model\.skip_layers is set"),
        (["max_new_tokens=1000"], "prompt 'p0'"),
        (["+report=true", "+speed=1"], "speed is not a config key"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    overrides: list[str], sentence: str, tmp_path: Path, taught: Path
) -> None:
    with pytest.raises(InputError, match=sentence) as caught:
        learn("distil", *on(tmp_path, taught, "wrong"), *SMALL, *overrides)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "results").exists()

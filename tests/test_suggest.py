"""Negatives that are found: the planted one is found, and nothing is chosen with held-out prompts."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from cfg_lab import Prompt
from cfg_lab.decoding.decoder import Decoder
from cfg_lab.decoding.request import Branch, Request
from cfg_lab.errors import InputError
from cfg_lab.guidance import ClassifierFreeGuidance
from cfg_lab.models import LanguageModel
from cfg_lab.negatives import Negative, PhraseNegative, PromptEncoder
from cfg_lab.options import CONFIG
from cfg_lab.prompts import Phrase
from cfg_lab.prompts.halves import half_of
from cfg_lab.study.build import build_study
from cfg_lab.study.store import Store
from cfg_lab.suggest.__main__ import check_arguments
from cfg_lab.suggest.candidates import merge_candidates, random_phrases
from cfg_lab.suggest.cells import PLAIN, Bench
from cfg_lab.suggest.choice import Choice
from cfg_lab.suggest.contrast import separating_phrases, z_scores
from cfg_lab.suggest.evidence import Evidence
from cfg_lab.suggest.halving import halve, paired_means
from cfg_lab.suggest.ranking import (
    Likelihoods,
    ScoredText,
    contrast,
    rank,
    read_likelihoods,
    sides,
)
from cfg_lab.suggest.run import cell_config, run
from cfg_lab.suggest.subsets import WEIGHTS, search_subsets
from tests.cli import environment, wait_until
from tests.planted import OTHERS, PLANTED, TOPICS

SMALL = [
    *("tracking=none", "report=false", "size=smoke", "max_new_tokens=6", "prompts.limit=4"),
    *("metrics=[entropy,kl_from_plain]", "aim=+entropy", "origins=[]", "candidates=[wet,dry,hot]"),
    *("ranking.prompts=4", "ranking.samples=3", "halving.prompts=2", "halving.most_prompts=4"),
]
"""Overrides of a small suggestion on a random model."""


def composed(*overrides: str) -> DictConfig:
    """The config of the command, with the names of the chosen options."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("suggest", overrides=list(overrides), return_hydra_config=True)
    choices = config.hydra.runtime.choices
    OmegaConf.set_struct(config, False)
    config.hydra = {"runtime": {"choices": choices}}
    return config


def prompts_of(half: str, count: int, word: str = "Text") -> list[dict[str, str]]:
    """Prompts of one half."""
    numbered = (Prompt(id=f"{word}{n}", text=f"{word} {n}") for n in range(200))
    return [{"id": p.id, "text": p.text} for p in numbered if half_of(p) == half][:count]


def write_prompts(path: Path, held_out: str = "Text") -> Path:
    """A file with prompts of both halves. The held-out ones begin with a word."""
    records = [*prompts_of("selection", 4), *prompts_of("held_out", 4, held_out)]
    path.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    return path


@pytest.fixture(scope="module")
def planted(tmp_path_factory: pytest.TempPathFactory) -> tuple[Choice, Evidence, Path]:
    """A suggestion for the model with the planted attribute."""
    root = tmp_path_factory.mktemp("planted")
    words = [PLANTED, *OTHERS]
    config = composed(
        *("tracking=none", "report=false", f"results_root={root}", "aim=goodness", "origins=[]"),
        *("samples=3", "max_new_tokens=6", "opposite=maple", "wanted=kind", "draws=2"),
        *("halving.candidates=4", "halving.prompts=4", "halving.survivors=2", "subsets.trials=3"),
        f"candidates=[{','.join(reversed(words))}]",
    )
    config.model = {"_target_": "hydra.utils.get_method", "path": "tests.planted.planted_model"}
    config.prompts = {
        "_target_": "cfg_lab.prompts.inline",
        "prompts": [{"id": topic, "text": topic} for topic in TOPICS],
        **dict.fromkeys(("system", "limit", "half")),
    }
    config.metrics = {
        "goodness": {"_target_": "tests.planted.Goodness"},
        "kl_from_plain": {"_target_": "cfg_lab.metrics.KLFromPlain"},
    }
    return *run(config), root


def test_the_planted_phrase_is_found_and_others_are_not(planted: tuple[Choice, Evidence, Path]) -> None:
    choice, evidence, root = planted
    assert [phrase.text for phrase in choice.phrases] == [PLANTED]
    assert next(iter(choice.ranks)) == PLANTED
    others = [choice.ranks[word].gain for word in OTHERS]
    assert choice.ranks[PLANTED].gain > 5 * max(map(abs, others))
    rows = {row.method: row for row in evidence.rows}
    assert rows["plain"].found_minus is not None
    assert rows["plain"].found_minus.low > 0
    assert rows["plain"].p < 0.05
    assert evidence.found.held_out is not None
    for name in ("random", "opposite"):  # "maple" does nothing in this model
        of_others, against = rows[name].held_out, rows[name].found_minus
        assert of_others is not None
        assert against is not None
        assert against.low > 0
        assert abs(of_others.mean) < evidence.found.held_out.mean / 3
    content = yaml.safe_load((root / "suggest/negatives.yaml").read_text())
    assert content["phrases"] == [{"phrase": PLANTED, "weight": 1.0, "origin": ["user"]}]


def test_the_strength_is_the_wanted_one(planted: tuple[Choice, Evidence, Path]) -> None:
    """Where a negative reaches it: the divergence of sampled texts is near the one that was asked for."""
    _, evidence, _ = planted
    measured = evidence.found.divergence
    assert measured.low < 0.15 < measured.high


def test_all_cells_of_a_round_have_the_same_prompts_samples_and_contexts(
    planted: tuple[Choice, Evidence, Path],
) -> None:
    choice, _, root = planted
    assert choice.rounds
    store = Store(root / "suggest/selection")
    cells = store.cells().merge(
        store.completions(["id", "positive_ids"]), left_on="completion", right_on="id"
    )
    for _, of_round in cells.groupby(["prompts.limit", "samples"]):
        columns = ["prompt_id", "sample", "positive_ids"]
        pairs = [cell[columns].astype(str).to_numpy().tolist() for _, cell in of_round.groupby("cell")]
        assert all(pair == pairs[0] for pair in pairs)


def test_what_is_chosen_on_has_no_held_out_prompt(planted: tuple[Choice, Evidence, Path]) -> None:
    _, evidence, root = planted
    halves = {
        folder: {half_of(Prompt(id="x", text=text)) for text in Store(root / folder).cells()["prompt"]}
        for folder in ("suggest/selection", "suggest")
    }
    assert halves == {"suggest/selection": {"selection"}, "suggest": {"held_out"}}
    assert evidence.study.store.root == root / "suggest"


@dataclass(frozen=True)
class SameContext(Negative):
    """The prompt itself as the negative context."""

    def branches(self, prompt: Prompt, model: PromptEncoder) -> tuple[Branch, ...]:
        return (Branch(model.encode(prompt.text, prompt.system)),)


SCALES = (1.5, 3.0)


def scored_texts(seed: int = 0) -> list[ScoredText]:
    """Random texts of three prompts, of several lengths, some without a score."""
    generator = np.random.default_rng(seed)
    return [
        ScoredText(
            prompt=Prompt(id=str(prompt), text=f"Text {prompt}"),
            tokens=tuple(generator.integers(0, 256, generator.integers(2, 6)).tolist()),
            reward=float("nan") if sample == 4 else float(generator.integers(0, 4)),
        )
        for prompt in range(3)
        for sample in range(5)
    ]


def test_the_ranking_is_its_definition(rotary: LanguageModel) -> None:
    """Beside a loop over texts, tokens and prompts that reads every branch by itself."""
    texts = scored_texts()
    negative = PhraseNegative(phrases="wet, dry")
    found = read_likelihoods(rotary, texts, {"a": negative}, ClassifierFreeGuidance(), SCALES)["a"]
    for row, scale in enumerate(SCALES):
        differences: list[float] = []
        for prompt in {text.prompt.id for text in texts}:
            good: list[float] = []
            bad: list[float] = []
            of_prompt = [text for text in texts if text.prompt.id == prompt]
            median = np.median([text.reward for text in of_prompt if not math.isnan(text.reward)])
            for text in of_prompt:
                request = Request(
                    positive=rotary.encode(text.prompt.text),
                    negatives=negative.branches(text.prompt, rotary),
                    guidance=ClassifierFreeGuidance(scale=scale),
                )
                (trace,) = Decoder(rotary).trace_texts([request], [text.tokens])
                value = (sum(trace.guided) - sum(trace.positive)) / len(text.tokens)
                (good if text.reward > median else bad if text.reward < median else []).append(value)
            if good and bad:
                differences.append(sum(good) / len(good) - sum(bad) / len(bad))
        assert differences
        assert contrast(found.changes[row], texts) == pytest.approx(np.mean(differences), abs=1e-5)


def test_a_negative_that_equals_the_prompt_gains_nothing(rotary: LanguageModel) -> None:
    texts = scored_texts()
    found = read_likelihoods(rotary, texts, {"a": SameContext()}, ClassifierFreeGuidance(), SCALES)["a"]
    np.testing.assert_allclose(found.changes, 0, atol=1e-5)
    assert rank(found, texts, 0.1).gain == pytest.approx(0, abs=1e-5)


def test_what_was_read_is_not_read_again_and_belongs_to_its_texts(
    rotary: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts, rule = scored_texts(), ClassifierFreeGuidance()
    negatives: dict[str, Negative] = {"a": PhraseNegative(phrases="wet"), "b": PhraseNegative(phrases="dry")}
    first = read_likelihoods(rotary, texts, negatives, rule, SCALES, folder=tmp_path)
    other = read_likelihoods(rotary, scored_texts(1), negatives, rule, SCALES, folder=tmp_path)
    assert not np.array_equal(first["a"].changes, other["a"].changes)
    monkeypatch.setattr(Decoder, "score", None)
    again = read_likelihoods(rotary, texts, negatives, rule, SCALES, folder=tmp_path)
    for name in negatives:
        np.testing.assert_array_equal(first[name].changes, again[name].changes)


def test_sides_are_within_the_prompt() -> None:
    one, two = Prompt(id="1", text="a"), Prompt(id="2", text="b")
    rewards = {one: [1, 2, 3, math.nan], two: [10, 10, 10, 10]}
    texts = [
        ScoredText(prompt=prompt, tokens=(1,), reward=value) for prompt, of in rewards.items() for value in of
    ]
    assert sides(texts).tolist() == [-1, 0, 1, 0, 0, 0, 0, 0]
    assert contrast(np.arange(8.0), texts) == 2
    assert math.isnan(contrast(np.arange(4.0), texts[4:]))


def test_the_scale_has_the_wanted_divergence() -> None:
    """On a curve whose divergence is (0.1 (scale - 1))^2, and where the curve ends before."""
    texts = [ScoredText(prompt=Prompt(id="1", text="a"), tokens=(1,), reward=r) for r in (0.0, 1.0)]
    scales = (2.0, 3.0, 5.0)
    changes = np.array([[-((0.1 * (scale - 1)) ** 2)] * 2 for scale in scales])
    found = rank(Likelihoods(scales=scales, changes=changes), texts, 0.0225)
    assert found.scale == pytest.approx(2.5)
    assert found.divergence == pytest.approx(0.0225)
    assert rank(Likelihoods(scales=scales, changes=changes), texts, 1.0).scale == 5


def test_halving_keeps_the_better_half_and_doubles_the_prompts() -> None:
    calls: list[tuple[list[str], int]] = []
    truth = dict(zip("abcdefgh", [3, 1, 8, 2, 7, 4, 6, 5], strict=True))

    def sample(names: Sequence[str], prompts: int) -> dict[str, Any]:
        calls.append((list(names), prompts))
        noise = np.random.default_rng(prompts).normal(0, 100, prompts)  # the same for all candidates
        return {name: truth[name] + noise for name in names}

    rounds = halve(list(truth), sample, prompts=2, most_prompts=5, survivors=1)
    assert [prompts for _, prompts in calls] == [2, 4, 5]
    assert [len(names) for names, _ in calls] == [8, 4, 2]
    assert [set(of.kept) for of in rounds] == [set("cegh"), set("ce"), set("c")]
    assert not halve(list(truth), sample, prompts=2, most_prompts=5, survivors=1, stop=lambda: True)


def test_paired_means_use_the_texts_that_all_have() -> None:
    rewards = {"a": np.array([1.0, math.nan, 3.0]), "b": np.array([2.0, 100.0, 4.0])}
    assert paired_means(rewards) == {"a": 2.0, "b": 3.0}


def test_the_search_of_sets_finds_the_best_one() -> None:
    effect = {"a": 1.0, "b": -2.0, "c": 0.5}

    def measure(sets: Sequence[tuple[Phrase, ...]]) -> list[float]:
        return [sum(effect[phrase.text] * phrase.weight for phrase in phrases) for phrases in sets]

    found = search_subsets(list(effect), measure, trials=40, batch=4)
    assert found[0].phrases == (Phrase("a"), Phrase("c"))
    assert {subset.phrases for subset in found} >= {(Phrase(name),) for name in effect}
    assert all(0 < phrase.weight <= max(WEIGHTS) for subset in found for phrase in subset.phrases)
    assert search_subsets(["a"], measure, trials=1, batch=1)[0].reward == 1


def test_a_set_without_scores_is_never_chosen() -> None:
    def measure(sets: Sequence[tuple[Phrase, ...]]) -> list[float]:
        return [math.nan if len(phrases) > 1 else 0.0 for phrases in sets]

    found = search_subsets(["a", "b"], measure, trials=6, batch=3)
    assert len(found[0].phrases) == 1


def test_mining_finds_what_separates_bad_texts() -> None:
    bad = [f"the grey day of number{n} was grey and long" for n in range(6)]
    good = [f"the bright day of number{n} was short" for n in range(6)]
    found = separating_phrases(bad, good)
    assert "grey" in found
    assert "the" not in found
    assert "bright" not in found
    exchanged = z_scores(good, bad)
    assert all(z == pytest.approx(-exchanged[phrase]) for phrase, z in z_scores(bad, good).items())


def test_candidates_keep_all_their_origins() -> None:
    found = merge_candidates({"model": ["sad", "cold", "wet"], "user": ["Sad"]}, 2)
    assert {c.phrase: c.origins for c in found} == {"sad": ("model", "user"), "cold": ("model",)}


def test_random_phrases_have_the_same_lengths() -> None:
    draws = [random_phrases(["very sad", "grey"], draw) for draw in range(4)]
    assert {tuple(len(phrase.split()) for phrase in draw) for draw in draws} == {(2, 1)}
    assert len({tuple(draw) for draw in draws}) == 4
    assert random_phrases(["very sad", "grey"], 0) == draws[0]


def small(root: Path, model: Path, prompts: Path, *overrides: str) -> list[str]:
    return [
        *SMALL,
        *(f"model.name={model}", "prompts=file", f"prompts.path={prompts}", f"results_root={root}"),
        *overrides,
    ]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Choice, Path, Path]:
    """A small suggestion on a random model: the choice, the file of prompts, and negatives.yaml."""
    folder = tmp_path_factory.mktemp("whole")
    prompts = write_prompts(folder / "prompts.jsonl")
    choice, _ = run(composed(*small(folder, tiny_folder, prompts)))
    return choice, prompts, folder / "suggest/negatives.yaml"


def test_held_out_prompts_change_no_choice(
    whole: tuple[Choice, Path, Path], tmp_path: Path, tiny_folder: Path
) -> None:
    first, *_ = whole
    prompts = write_prompts(tmp_path / "prompts.jsonl", "Other")
    second, _ = run(composed(*small(tmp_path, tiny_folder, prompts)))
    assert first.phrases == second.phrases
    assert first.ranks == second.ranks
    assert first.rounds == second.rounds
    assert first.subsets == second.subsets


def test_a_killed_suggestion_goes_on_to_the_same_file(
    whole: tuple[Choice, Path, Path], tmp_path: Path, tiny_folder: Path
) -> None:
    """Also if it is killed while it ranks. What was read is kept."""
    _, prompts, expected = whole
    interrupted = small(tmp_path / "interrupted", tiny_folder, prompts)
    process = subprocess.Popen(
        [sys.executable, "-m", "cfg_lab.suggest", *interrupted],
        env=environment(),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    read = tmp_path / "interrupted/suggest/likelihoods"
    wait_until(lambda: any(read.glob("[!.]*.json")), process)
    process.kill()
    process.wait()
    assert not (tmp_path / "interrupted/suggest/negatives.yaml").exists()
    kept = {path.name: path.stat().st_mtime_ns for path in read.glob("[!.]*.json")}
    run(composed(*interrupted))
    assert kept.items() <= {path.name: path.stat().st_mtime_ns for path in read.glob("*.json")}.items()
    assert (tmp_path / "interrupted/suggest/negatives.yaml").read_text() == expected.read_text()


def test_the_found_negative_can_be_the_opposite_of_the_aim(tmp_path: Path, tiny_folder: Path) -> None:
    """Both are then the same cell, and do not differ."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    words = ["candidates=[wet]", "opposite=wet", "wanted=kind"]
    choice, evidence = run(composed(*small(tmp_path, tiny_folder, prompts, *words)))
    assert choice.phrases == (Phrase("wet"),)
    rows = {row.method: row for row in evidence.rows}
    assert rows["opposite"].found_minus is not None
    assert rows["opposite"].found_minus.mean == 0
    assert rows["opposite"].scale == rows["found"].scale
    assert {row.phrases for row in evidence.rows} >= {"It should be kind.", "It must not be wet."}


def test_cells_have_the_ids_of_a_sweep(tmp_path: Path, tiny_folder: Path) -> None:
    """So their texts are those that the lab decodes for `negatives=custom`."""
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    config = composed(*small(tmp_path, tiny_folder, prompts))
    bench = Bench(config=cell_config(config), aim="+entropy", command="", console=None)  # pyright: ignore[reportArgumentType]
    plans = [PLAIN, bench.away_from([Phrase("wet"), Phrase("a, b", 0.5)], 2.5)]
    ours = [cell.id for cell in bench.study(plans, "selection").cells]
    shared = [override for override in small(tmp_path, tiny_folder, prompts) if "aim=" not in override]
    shared = [o for o in shared if not o.startswith(("origins", "candidates", "ranking", "halving", "size"))]
    shared += ["samples=1", "top=0", "prompts.half=selection", "sampling.temperature=1", "sampling.top_p=1"]
    cells = [
        ["negatives=none", "guidance.scale=1"],
        ["negatives=custom", "negatives.phrases='wet, a\\, b:0.5'", "guidance.scale=2.5"],
    ]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        configs = [compose("sweep", overrides=[*shared, *of], return_hydra_config=True) for of in cells]
    assert ours == [cell.id for cell in build_study(configs, [{}, {}]).cells]


@pytest.mark.parametrize(
    ("argument", "sentence"),
    [
        ("guidance.scale=2", "'guidance.scale=2' has no effect here: .* set divergence=… instead"),
        ("aim=sentiment,toxicity", "'aim=sentiment,toxicity' names several values"),
        ("candidates=[sad,", "cannot be read"),
    ],
)
def test_what_would_have_no_effect_is_refused(argument: str, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        check_arguments([argument])
    check_arguments(["candidates=[sad,bleak]", "aim=-toxicity"])


@pytest.mark.parametrize(
    ("override", "sentence"),
    [
        ("negatives.phrases=sad", "negatives.phrases is 'sad', which has no effect here"),
        ("negatives=own_heaviest", "negatives.heaviest is 1, which has no effect here"),
        ("negatives=opposite", "negatives=opposite has no phrases"),
        ("aim=7", "aim must be the name of a column"),
        ("aim=sadness", "aim is 'sadness', but no metric"),
        ("aim=entropy", r"write \+entropy or -entropy"),
        ("metrics=[length]", "metrics must include kl_from_plain"),
        ("prompts.half=selection", "prompts.half is 'selection', but both halves are needed"),
        ("scales=[1,2]", "scales must be numbers above 1"),
        ("divergence=0", "divergence must be a number of nats above 0"),
        ("origins=[oracle]", "origins must be a list of model, opposite, contrast"),
        ("candidates=['sad:0.5']", "candidates must be single phrases without weights, got 'sad:0.5'"),
        ("ranking.samples=1", "ranking.samples must be a whole number of at least 2, got 1"),
        ("halving.prompts=0", "halving.prompts must be a whole number of at least 1, got 0"),
        ("+halving.promts=3", "halving.promts is not a config key"),
        ("opposite=5", "opposite must be a text such as"),
        ("max_new_tokens=5000", "prompt 'Text"),
    ],
)
def test_what_cannot_be_done_is_refused_before_anything_is_written(
    override: str, sentence: str, tmp_path: Path, tiny_folder: Path
) -> None:
    prompts = write_prompts(tmp_path / "prompts.jsonl")
    with pytest.raises(InputError, match=sentence):
        run(composed(*small(tmp_path / "results", tiny_folder, prompts, override)))
    assert not (tmp_path / "results").exists()

"""Fluency under the guided distribution and under an independent model; repetition."""

from __future__ import annotations

import math
import string
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cfg_lab import (
    Branch,
    ClassifierFreeGuidance,
    Decoder,
    Prompt,
    Request,
    Sampling,
    load_model,
    load_results,
)
from cfg_lab.errors import InputError
from cfg_lab.guidance.divergences import kl_divergence
from cfg_lab.metrics import Entropy, Evaluator, GuidedLikelihood, KLFromPlain, Perplexity, Repetition
from cfg_lab.models import LanguageModel, load_evaluator
from cfg_lab.models.evaluator import log_probs
from tests import reference
from tests.cli import on, sweep
from tests.texts import text


def test_guided_likelihood_does_not_count_the_stop_token() -> None:
    stopped = text("a b", tokens=(5, 6, 2), guided_log_probs=(-1.0, -3.0), log_probs=(-2.0, -4.0))
    scores = GuidedLikelihood().score([stopped, text("")])
    assert scores["guided_log_prob"][0] == -2
    assert math.isnan(scores["guided_log_prob"][1])


def test_kl_from_plain_is_the_mean_log_ratio() -> None:
    guided = text("a b", tokens=(5, 6, 2), guided_log_probs=(-1.0, -3.0), log_probs=(-2.0, -4.5))
    plain = text("a b", guided_log_probs=(-1.0, -1.0))
    assert KLFromPlain().score([guided, plain])["kl_from_plain"] == [1.25, 0]
    assert math.isnan(KLFromPlain().score([text("")])["kl_from_plain"][0])


def test_kl_from_plain_estimates_the_divergence_without_bias(rotary: LanguageModel) -> None:
    """Over many first tokens, drawn at temperature 1, the mean log-ratio is KL(guided || plain)."""
    positive, negative, scale = rotary.encode("A knight"), rotary.encode("A sad king"), 1.3
    request = Request(
        positive=positive,
        negatives=(Branch(negative),),
        guidance=ClassifierFreeGuidance(scale=scale),
        sampling=Sampling(),
        max_new_tokens=1,
    )
    samples = [replace(request, sample=sample) for sample in range(600)]
    texts = [
        text(
            "x",
            guided_log_probs=completion.trace.guided,
            log_probs=completion.trace.positive,
        )
        for completion in Decoder(rotary).decode(samples)
    ]
    ratios = torch.tensor(KLFromPlain().score(texts)["kl_from_plain"])
    plain = reference.log_probs(rotary.module, positive)
    guided = reference.guided(rotary.module, positive, [negative], [1.0], scale)
    divergence = float(kl_divergence(guided, plain))
    assert divergence > 0.01
    assert abs(float(ratios.mean()) - divergence) < 4 * float(ratios.std()) / len(ratios) ** 0.5


def test_entropy_is_a_mean_over_the_tokens_of_the_text() -> None:
    stopped = text("a b", tokens=(5, 6, 2), entropies=(1.0, 2.0))
    scores = Entropy().score([stopped, text("")])
    assert scores["entropy"][0] == 1.5
    assert math.isnan(scores["entropy"][1])


def test_stored_entropy_is_that_of_the_models_distribution(tmp_path: Path, tiny_folder: Path) -> None:
    """Law: at scale 1 the metric equals the entropy of the bare module's distributions, by brute force."""
    sweep(*on(tmp_path, tiny_folder), "metrics=[entropy]", "guidance.scale=1", "max_new_tokens=6")
    model = load_model(str(tiny_folder))
    for row in load_results(tmp_path / "results" / "study").to_dict("records"):
        tokens = list(row["tokens"])
        ids = torch.tensor([[*row["positive_ids"], *tokens]])
        with torch.inference_mode():
            log_p = model.module(ids).logits[0].float().log_softmax(-1)[len(row["positive_ids"]) - 1 : -1]
        length = len(tokens) - (row["finish_reason"] == "stop")
        expected = -(log_p.exp() * log_p).sum(-1)[:length].mean()
        assert row["entropy"] == pytest.approx(float(expected), abs=1e-3)


def brute_force(model: LanguageModel, context: tuple[int, ...], tokens: tuple[int, ...]) -> list[float]:
    """Log-probs of tokens after a context, from one forward pass of the bare module."""
    with torch.inference_mode():
        logits = model.module(torch.tensor([[*context, *tokens]])).logits[0].float()
    chosen = logits.log_softmax(-1)[len(context) - 1 : -1]
    return [float(row[token]) for row, token in zip(chosen, tokens, strict=True)]


def test_teacher_forcing_equals_a_plain_forward(tiny: LanguageModel) -> None:
    first, second, third = (Prompt(id=str(n), text=words) for n, words in enumerate(("Say", "Go", "x")))
    texts = [(first, "hello"), (second, " on and on"), (third, "")]
    *scored, empty = log_probs(tiny, texts, separator="|")
    # The separator is left out if the text begins with white space.
    for (prompt, words), separator, actual in zip(texts[:2], ("|", ""), scored, strict=True):
        tokens = tuple(tiny.tokenizer(words).input_ids)
        expected = brute_force(tiny, tiny.encode(prompt.text + separator), tokens)
        assert actual == pytest.approx(expected, abs=1e-4)
    assert empty == []


def test_too_long_a_context_loses_its_beginning_and_too_long_a_text_is_unscored(
    rotary: LanguageModel,
) -> None:
    prompt, words = Prompt(id="1", text="x" * 100), "y" * 200
    cut, too_long = log_probs(rotary, [(prompt, words), (prompt, "z" * 256)], "")
    expected = brute_force(rotary, rotary.encode("x" * 56), rotary.encode(words))
    assert cut == pytest.approx(expected, abs=1e-3)
    assert too_long == []


def test_the_evaluator_by_folder(tiny_folder: Path) -> None:
    metric = Evaluator(model=str(tiny_folder), loader=load_evaluator, column="judge")
    scores = metric.score([text("hello ü"), text("")])
    assert list(scores) == ["judge_perplexity", "judge_bits_per_byte"]
    nats = -sum(load_evaluator(str(tiny_folder), "\n")([(Prompt(id="1", text="?"), "hello ü")])[0])
    assert scores["judge_perplexity"][0] == pytest.approx(math.exp(nats / 8))  # one token per byte
    assert scores["judge_bits_per_byte"][0] == pytest.approx(nats / math.log(2) / 8)
    assert math.isnan(scores["judge_perplexity"][1])
    with pytest.raises(InputError, match=r"metrics\.evaluator: model\.name is 'no/such-model'"):
        Evaluator(model="no/such-model", loader=load_evaluator).score([])


def test_a_model_judges_its_own_text_as_it_was_decoded(tiny_folder: Path) -> None:
    """Law: if evaluator and generator are the same model, the evaluator gives the generator's perplexity."""
    model = load_model(str(tiny_folder))
    requests = [Request(positive=model.encode(letter), max_new_tokens=3) for letter in string.ascii_letters]
    # Some completions are bytes that are no text; encoding their text gives other tokens. They are left out.
    texts = [
        text(
            model.decode(completion.tokens),
            prompt=Prompt(id="1", text=letter),
            tokens=completion.tokens,
            log_probs=completion.trace.positive,
        )
        for letter, request in zip(string.ascii_letters, requests, strict=True)
        for completion in Decoder(model).decode([request])
        if tuple(model.tokenizer(model.decode(completion.tokens)).input_ids) == completion.tokens
    ]
    assert texts
    generator = Perplexity().score(texts)
    evaluator = Evaluator(model=str(tiny_folder), loader=load_evaluator).score(texts)
    assert evaluator["evaluator_perplexity"] == pytest.approx(generator["perplexity"], rel=1e-3)
    assert evaluator["evaluator_bits_per_byte"] == pytest.approx(generator["bits_per_byte"], rel=1e-3)


def test_repetition_by_hand() -> None:
    scores = Repetition().score([text("A b c a B c d"), text("so " * 10), text("one two"), text("")])
    assert scores["repeated_2"][:3] == pytest.approx([2 / 6, 8 / 9, 0])
    assert scores["repeated_3"][:2] == pytest.approx([1 / 5, 7 / 8])
    assert scores["repeated_4"][:2] == pytest.approx([0, 6 / 7])
    assert scores["longest_repeat"][:3] == pytest.approx(
        [3 / 7, 9 / 10, 0]
    )  # the two runs of nine "so" overlap
    assert math.isnan(scores["longest_repeat"][3])
    once, often = Repetition().score([text("A tale of seas."), text("A tale of seas. " * 40)])["compression"]
    assert often > 10 > 1.5 > once
    assert math.isnan(scores["compression"][3])

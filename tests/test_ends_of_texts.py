"""Where a text ends: stop tokens, stop strings, and which tokens are part of the text."""

from __future__ import annotations

import json
import math
import random
import warnings
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from transformers import GenerationConfig, WatermarkingConfig

import cfg_lab
from cfg_lab import Completion, Decoder, Generated, Request, generate
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers, load_model
from cfg_lab.models.generation_settings import settings_not_applied
from cfg_lab.study.stop_strings import StopStrings, stop_strings, stops_of
from cfg_lab.study.store import IDENTITY_VERSION, Store
from cfg_lab.track.mirror import _token_table  # pyright: ignore[reportPrivateUsage]
from tests.cli import on, sweep
from tests.conftest import make_model, make_tokenizer
from tests.tokenizer_kinds import KINDS, byte_level


def quoted(string: str) -> str:
    """A string as a value on the command line."""
    return json.dumps([string], ensure_ascii=False)


# Models that write a given text


def scripted(tokens: list[int], tokenizer: Any) -> LanguageModel:
    """A model that writes these tokens after a context of one token, and then </s>."""
    module = make_model("rotary")
    module.config.eos_token_id = module.generation_config.eos_token_id = None
    module.config.vocab_size = len(tokenizer)
    model = from_transformers(module, tokenizer)
    script = torch.tensor([*tokens, tokenizer.eos_token_id])

    def forward(ids: Any, positions: Any, mask: Any, buffer: Any, keep: int = 1) -> torch.Tensor:
        following = script[positions[:, -keep:].clamp(max=len(tokens))]
        return 20.0 * torch.nn.functional.one_hot(following, len(tokenizer)).float()

    model.forward = forward  # pyright: ignore[reportAttributeAccessIssue]
    return model


def written(model: LanguageModel, *stops: str, **changes: Any) -> tuple[Completion, str]:
    """What a scripted model writes until a stop string, cut as in a study."""
    stop_ids, stop_when = stops_of(stops, model)
    request = Request(positive=(1,), max_new_tokens=200, stop_ids=stop_ids, stop_when=stop_when, **changes)
    (completion,) = Decoder(model).decode([request])
    return stop_when.cut(completion) if stop_when else (completion, model.decode(completion.text_tokens))


@pytest.mark.parametrize("kind", KINDS)
def test_a_text_is_cut_before_its_first_stop_string(kind: str) -> None:
    """Law: a text ends as soon as it contains a stop string. Its tokens are as few as possible."""
    tokenizer, chance = KINDS[kind](), random.Random(0)
    stops_found = 0
    for _ in range(40):
        tokens = chance.choices(range(4, len(tokenizer)), k=chance.randint(1, 30))
        model = scripted(tokens, tokenizer)
        free, free_text = written(model)
        assert (list(free.text_tokens), free.finish_reason) == (tokens, "stop")
        stops = []
        for _ in range(2):
            start = chance.randrange(len(free_text)) if free_text else 0
            stops.append(free_text[start : start + chance.randint(1, 4)] or "zz")
        if "\N{REPLACEMENT CHARACTER}" in "".join(stops):
            continue  # a part of a character is no text to search for
        stops_found += 1
        cut, text = written(model, *stops)
        beginnings = [model.decode(tokens[:length]) for length in range(1, len(tokens) + 1)]
        so_far = next(text for text in beginnings if any(stop in text for stop in stops))
        assert text == so_far[: min(so_far.index(stop) for stop in stops if stop in so_far)]
        assert cut.tokens == free.tokens[: len(cut.tokens)]
        assert cut.finish_reason == "stop"
        assert model.decode(cut.tokens).startswith(text)
        assert not cut.tokens or not model.decode(cut.tokens[:-1]).startswith(text)
        assert {len(column) for column in cut.trace.columns.values()} == {len(cut.tokens)}
        assert cut.steps >= len(cut.tokens)
    assert stops_found > 10


def test_a_token_in_which_the_stop_string_begins_remains() -> None:
    tokenizer = byte_level()
    (the, cat), (full_stop, *_) = tokenizer("the cat").input_ids, tokenizer(".").input_ids
    model = scripted([the, cat, full_stop], tokenizer)
    for stop, text, tokens in (
        ("t.", "the ca", (the, cat)),
        (" cat", "the", (the,)),
        (".", "the cat", (the, cat)),
        ("he", "t", (the,)),
        ("the", "", ()),
    ):
        completion, actual = written(model, stop)
        assert (actual, completion.tokens) == (text, tokens)
    completion, actual = written(model, "dog")
    assert (actual, completion.tokens) == ("the cat.", (the, cat, full_stop, tokenizer.eos_token_id))
    assert completion.text_tokens == (the, cat, full_stop)


def test_a_stop_string_is_found_behind_tokens_without_text() -> None:
    """Special tokens are no part of a text: however many stand inside a stop string, it is found."""
    tokenizer = byte_level()
    letters = tokenizer("xyz").input_ids
    model = scripted([letters[0], *[1] * 60, *letters[1:], 80, 81], tokenizer)
    completion, text = written(model, "xyz")
    assert (text, completion.tokens, completion.steps) == ("", (), 63)


def test_the_trace_of_a_cut_text_is_what_teacher_forcing_measures(rotary: LanguageModel) -> None:
    request = Request(
        positive=(1, 2),
        negatives=(cfg_lab.Branch((3, 4, 5)),),
        guidance=cfg_lab.ClassifierFreeGuidance(scale=2),
        max_new_tokens=20,
    )
    (free,) = Decoder(rotary).decode([request])
    text = rotary.decode(free.tokens)
    stops = StopStrings((text[9:12],), rotary.decode)
    (uncut,) = Decoder(rotary).decode([replace(request, stop_when=stops)])
    completion, _ = stops.cut(uncut)
    assert 0 < len(completion.tokens) < len(uncut.tokens)
    (trace,) = Decoder(rotary).trace_texts([request], [completion.tokens])
    for name, values in trace.columns.items():
        assert completion.trace.columns[name] == pytest.approx(values, abs=1e-4)
    # All steps were decoded, so they all cost something.
    assert completion.tokens_read == uncut.tokens_read


def test_every_text_of_a_beam_is_cut(tmp_path: Path, tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder))
    overrides = [
        "guidance.scale=1",
        "sampling=beam",
        "sampling.width=4",
        "sampling.n_best=4",
        "max_new_tokens=12",
    ]
    sweep(*on(tmp_path, tiny_folder, "free"), *overrides)
    free = cfg_lab.load_results(tmp_path / "results" / "free")["text"][0]
    stop = free[4]
    sweep(*on(tmp_path, tiny_folder, "cut"), *overrides, f"stop={quoted(stop)}")
    cut = cfg_lab.load_results(tmp_path / "results" / "cut")
    assert (cut["finish_reason"] == "stop").any()
    for _, row in cut.iterrows():
        assert not any(stop in text for text in [row["text"], *row["others"]])
        assert model.decode(row["tokens"]).startswith(row["text"])


# Which tokens count in a study


@pytest.mark.parametrize("position", [0, 7])
def test_only_tokens_of_the_text_count(position: int, tmp_path: Path, tiny_folder: Path) -> None:
    """Law: length, perplexity and bits per byte are those of the tokens before the stop string."""
    sweep(*on(tmp_path, tiny_folder, "free"), "max_new_tokens=40", "guidance.scale=1")
    free = cfg_lab.load_results(tmp_path / "results" / "free").iloc[0]
    stop = free["text"][position : position + 3]
    sweep(*on(tmp_path, tiny_folder, "cut"), "max_new_tokens=40", f"stop={quoted(stop)}", "guidance.scale=1")
    cut = cfg_lab.load_results(tmp_path / "results" / "cut").iloc[0]
    text = free["text"][: free["text"].index(stop)]
    log_probs = cut["trace_positive"]
    assert cut["text"] == text
    assert list(cut["tokens"]) == list(free["tokens"][: len(cut["tokens"])])
    assert np.allclose(log_probs, free["trace_positive"][: len(log_probs)], atol=1e-4)
    assert cut["length"] == len(log_probs) == len(cut["pieces"]) == len(cut["tokens"])
    assert len(cut["tokens_read"]) == 1
    assert cut["tokens_read"][0] > len(cut["positive_ids"]) + len(cut["tokens"])
    if position == 0:
        assert (text, cut["length"]) == ("", 0)
        assert math.isnan(cut["perplexity"])
        assert math.isnan(cut["bits_per_byte"])
    else:
        assert cut["perplexity"] == pytest.approx(math.exp(-np.mean(log_probs)), rel=1e-5)
        bits = -sum(log_probs) / math.log(2) / len(text.encode())
        assert cut["bits_per_byte"] == pytest.approx(bits, rel=1e-5)


def test_an_empty_text_has_no_tokens_on_the_page_or_in_a_tracker(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder, "free"), "guidance.scale=1")
    first = cfg_lab.load_results(tmp_path / "results" / "free")["text"][0]
    sweep(
        *on(tmp_path, tiny_folder, "cut"),
        f"stop={quoted(first[:2])}",
        "report=true",
        "guidance.scale=1",
    )
    results = cfg_lab.load_results(tmp_path / "results" / "cut")
    assert results["text"][0] == ""
    assert (tmp_path / "results" / "cut" / "report.html").stat().st_size > 10_000
    table = _token_table(pd.DataFrame(results), 1000)
    assert len(table) == sum(map(len, results["tokens"])) > 0


def test_a_stop_token_that_is_no_special_token_is_no_part_of_the_text() -> None:
    tokenizer = byte_level()
    tokens = tokenizer("the cat.").input_ids
    model = scripted(tokens, tokenizer)
    model.source.generation_config.eos_token_id = tokens[-1]
    text = generate(model, "x", negative=None, scale=1, max_new_tokens=9)
    assert (text, text.completion.finish_reason) == ("the cat", "stop")
    assert isinstance(text, Generated)
    assert text.completion.tokens[-1] == tokens[-1]


# Stop tokens


@pytest.mark.parametrize(
    ("generation", "config", "tokenizer", "expected"),
    [
        ([5, 9], 7, "</s>", {5, 7, 9, 257}),
        (5, [7, 8], None, {5, 7, 8}),
        (None, None, "</s>", {257}),
        (None, None, None, set()),
    ],
)
def test_stop_ids_are_the_union_of_all_files(
    generation: Any, config: Any, tokenizer: Any, expected: set[int], tmp_path: Path
) -> None:
    module, fast = make_model("rotary"), make_tokenizer()
    module.config.eos_token_id, module.generation_config.eos_token_id = config, generation
    fast.eos_token = tokenizer
    assert from_transformers(module, fast).stop_ids == expected
    module.save_pretrained(tmp_path)
    fast.save_pretrained(tmp_path)
    assert load_model(str(tmp_path)).stop_ids == expected


def test_a_text_ends_at_a_stop_token_that_only_the_generation_config_names() -> None:
    module = make_model("rotary")
    (free,) = Decoder(from_transformers(module)).decode([Request(positive=(1,), max_new_tokens=12)])
    module.generation_config.eos_token_id = [free.tokens[4], 300]
    model = from_transformers(module, make_tokenizer())
    request = Request(positive=(1,), max_new_tokens=12, stop_ids=model.stop_ids)
    (completion,) = Decoder(model).decode([request])
    assert completion.finish_reason == "stop"
    assert completion.tokens == free.tokens[: free.tokens.index(free.tokens[4]) + 1]
    assert request.id("model") != replace(request, stop_ids=frozenset({257})).id("model")


SPECIAL = "<|eot|>"


def test_a_special_token_is_a_stop_token() -> None:
    """Law: a text ends at a special token that `stop` names, exactly as at a stop token of the model."""
    tokenizer = byte_level()
    number = tokenizer.convert_tokens_to_ids(SPECIAL)
    tokens = [*tokenizer("the cat").input_ids, number, *tokenizer(" sat").input_ids]
    model = scripted(tokens, tokenizer)
    assert written(model)[1] == "the cat sat"
    completion, text = written(model, SPECIAL, "dog")
    assert (text, completion.finish_reason, completion.tokens) == ("the cat", "stop", (*tokens[:2], number))
    stop_ids, stop_when = stops_of([SPECIAL, "dog", "</s>"], model)
    assert (stop_ids, stop_when) == (model.stop_ids | {number}, StopStrings(("dog",), model.decode))


@pytest.mark.parametrize("string", [f"{SPECIAL}\n", f" {SPECIAL}", f"a{SPECIAL}b"])
def test_a_stop_string_that_contains_a_special_token_is_refused(string: str) -> None:
    with pytest.raises(InputError, match=r"stop has .* contains the special token '<\|eot\|>' of model"):
        stops_of(["x", string], from_transformers(make_model("rotary"), byte_level()))


def test_a_stop_string_is_text_for_a_model_that_has_no_such_token() -> None:
    model = from_transformers(make_model("rotary"), make_tokenizer())
    assert stops_of([SPECIAL], model) == (model.stop_ids, StopStrings((SPECIAL,), model.decode))
    assert stops_of([], model) == (model.stop_ids, None)


# Values of `stop`


@pytest.mark.parametrize(
    ("value", "strings"),
    [
        ("hot", ("hot",)),
        (["a", "b"], ("a", "b")),
        ([], ()),
        ([" "], (" ",)),
        ("\n\n", ("\n\n",)),
        (r"\n\t", ("\n\t",)),
        (r"\\nabla \x", (r"\nabla \x",)),
    ],
)
def test_a_text_is_one_stop_string_and_a_list_is_several(value: Any, strings: tuple[str, ...]) -> None:
    assert stop_strings(value) == strings


@pytest.mark.parametrize(
    "value", ["", [""], ["a", ""], 5, 1.5, True, None, {}, {"a": "b"}, ["a", 5], [None], [["a"]]]
)
def test_other_values_of_stop_are_refused(value: Any) -> None:
    with pytest.raises(
        InputError, match="stop must be a text or a list of texts, none of them empty"
    ) as error:
        stop_strings(value)
    assert str(error.value).endswith(f"got {value!r}")


def test_a_stop_string_without_brackets_is_one_string(tmp_path: Path, tiny_folder: Path) -> None:
    sweep(*on(tmp_path, tiny_folder, "text"), "stop=hot")
    sweep(*on(tmp_path, tiny_folder, "list"), "stop=[hot]")
    text, listed = (cfg_lab.load_results(tmp_path / "results" / name) for name in ("text", "list"))
    assert set(text["stop"]) == {'["hot"]'}
    for column in ("cell", "completion", "stop"):
        assert list(text[column]) == list(listed[column])
    rows = sweep(*on(tmp_path, tiny_folder, "grid"), "stop=a,b")
    assert [row["stop"] for row in rows] == ['["a"]', '["b"]']


# Texts of earlier versions


def test_old_cells_with_stop_strings_are_not_added_to(tmp_path: Path) -> None:
    """Their texts counted the tokens of the stop string. Old cells without stop strings are as they were."""
    store = Store(tmp_path)
    store.write_cell("new", {"stop": '["x"]'}, [])
    store.write_cell("without", {"stop": "[]"}, [])
    store.check_version()
    path = store.write_cell("old", {"stop": '["x"]'}, [])
    import pyarrow.parquet as pq

    table = pq.read_table(path)
    metadata = {**table.schema.metadata, b"identity_version": str(IDENTITY_VERSION).encode()}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(InputError, match="another version of the lab"):
        store.check_version()


# Settings that are not applied

APPLIED = {"eos_token_id", "decoder_start_token_id"}
OF_THE_LAB = {  # the lab has settings of its own for the same
    *(
        "max_length",
        "max_new_tokens",
        "max_time",
        "do_sample",
        "num_beams",
        "early_stopping",
        "length_penalty",
    ),
    *("temperature", "top_k", "top_p", "min_p", "top_h", "typical_p", "epsilon_cutoff", "eta_cutoff"),
    *("num_return_sequences", "dola_layers", "penalty_alpha", "num_beam_groups", "diversity_penalty"),
}
WITHOUT_EFFECT = {  # on the text of a model that decodes by itself and whose logits are numbers
    *(
        "use_cache",
        "cache_implementation",
        "cache_config",
        "max_cache_len",
        "prefill_chunk_size",
        "low_memory",
    ),
    *(
        "output_attentions",
        "output_hidden_states",
        "output_scores",
        "output_logits",
        "return_dict_in_generate",
    ),
    *("pad_token_id", "bos_token_id", "renormalize_logits", "remove_invalid_values", "transformers_version"),
    *("is_assistant", "num_assistant_tokens", "num_assistant_tokens_schedule", "use_mtp", "speculation_type"),
    *("assistant_confidence_threshold", "prompt_lookup_num_tokens", "max_matching_ngram_size"),
    *("assistant_early_exit", "assistant_lookbehind", "target_lookbehind", "assistant_ensemble_weight"),
    *("compile_config", "disable_compile", "continuous_batching_config", "_from_model_config"),
    *("constraints", "force_words_ids"),  # transformers has no code for them any more
}
NOT_APPLIED: dict[str, Any] = {
    "suppress_tokens": [1, 2],
    "begin_suppress_tokens": [3],
    "bad_words_ids": [[4, 5]],
    "sequence_bias": [[[6], -2.0]],
    "forced_bos_token_id": 7,
    "forced_eos_token_id": 0,
    "repetition_penalty": 1.2,
    "encoder_repetition_penalty": 1.1,
    "no_repeat_ngram_size": 3,
    "encoder_no_repeat_ngram_size": 2,
    "min_length": 5,
    "min_new_tokens": 6,
    "exponential_decay_length_penalty": [5, 1.5],
    "stop_strings": ["END"],
    "token_healing": True,
    "guidance_scale": 1.5,
    "watermarking_config": WatermarkingConfig(bias=2.5),
}


def test_every_setting_of_transformers_is_applied_or_named() -> None:
    """Fails when a new version of transformers has a new setting: then decide what the lab does with it."""
    known = APPLIED | OF_THE_LAB | WITHOUT_EFFECT | set(NOT_APPLIED)
    assert set(GenerationConfig().to_dict()) == known


@pytest.mark.parametrize("name", NOT_APPLIED)
def test_a_setting_that_is_not_applied_is_named_once(name: str, tmp_path: Path) -> None:
    module = make_model("rotary")
    setattr(module.generation_config, name, NOT_APPLIED[name])
    module.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    for model in (from_transformers(module, make_tokenizer()), load_model(str(tmp_path))):
        with pytest.warns(UserWarning, match=f"has settings that the lab does not apply: {name}=") as caught:
            model.warn_about_generation_settings()
        assert len(caught) == 1


def test_settings_without_effect_and_settings_of_the_lab_give_no_warning() -> None:
    module = make_model("rotary")
    neutral = {"repetition_penalty": 1.0, "no_repeat_ngram_size": 0, "min_length": 0, "suppress_tokens": []}
    sampling = {"do_sample": True, "temperature": 0.6, "top_p": 0.9, "top_k": 20, "max_length": 20}
    module.generation_config.update(**neutral, **sampling, guidance_scale=1.0, bad_words_ids=None)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        from_transformers(module, make_tokenizer()).warn_about_generation_settings()


def test_an_encoder_decoder_model_begins_with_its_forced_token() -> None:
    config = make_model("rotary").config
    settings = GenerationConfig(forced_bos_token_id=7)
    assert settings_not_applied(settings, config) == {"forced_bos_token_id": 7}
    config.is_encoder_decoder = True
    assert settings_not_applied(settings, config) == {}


def test_a_sweep_warns_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    module = make_model("rotary")
    module.generation_config.repetition_penalty = 1.3
    module.save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    monkeypatch.setattr(warnings, "showwarning", warnings.showwarning)  # a sweep replaces it
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        sweep(*on(tmp_path, tmp_path / "model"), "guidance.scale=1,2")
    output = " ".join(capsys.readouterr().out.split())
    assert output.count("has settings that the lab does not apply: repetition_penalty=1.3") == 1

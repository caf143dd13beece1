"""Negatives: parsing negative prompts, and the negative contexts that each kind of negative makes."""

from __future__ import annotations

import doctest
import math
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from hydra.utils import instantiate
from hypothesis import example, given
from hypothesis import strategies as st
from omegaconf import OmegaConf

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Prompt, Request, Sampling
from cfg_lab.decoding.noise import gumbel, position_keys
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.negatives import (
    NamedNegative,
    NoNegative,
    OppositeNegative,
    PhraseNegative,
    SuffixNegative,
    parse_phrases,
)
from cfg_lab.options import CONFIG, option_names
from cfg_lab.prompts import join_phrases, phrases, template
from tests import reference
from tests.conftest import make_model, make_tokenizer

KNIGHT = Prompt(id="knight", text="Write {a} story.", negative="boring:0.8, cliche, predictable:0.5")


@pytest.fixture(scope="module")
def chat() -> LanguageModel:
    return from_transformers(make_model("rotary"), make_tokenizer(chat=True))


def option(name: str, *overrides: str) -> Any:
    """The negative of an option of conf/negatives."""
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"negatives={name}", *overrides])
    return instantiate(config.negatives, _convert_="all")


def parsed(text: str) -> list[tuple[str, float]]:
    return [(phrase.text, phrase.weight) for phrase in parse_phrases(text)]


# Phrases


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("ugly:0.8, deformed:0.5, disfigured", [("ugly", 0.8), ("deformed", 0.5), ("disfigured", 1)]),
        (" low resolution ", [("low resolution", 1)]),
        ("丑陋：0.8，低分辨率、模糊:2", [("丑陋", 0.8), ("低分辨率", 1), ("模糊", 2)]),
        (r"a\, b\: c:2", [("a, b: c", 2)]),
        (r"back\\:0.5", [("back\\", 0.5)]),
        ("x:-0.5, y:+.25, z:1e-1", [("x", -0.5), ("y", 0.25), ("z", 0.1)]),
        ("aspect ratio 16:9, 4:3", [("aspect ratio 16:9", 1), ("4:3", 1)]),
        ("at 10:30, at 10:30am, 1.5:2", [("at 10:30", 1), ("at 10:30am", 1), ("1.5:2", 1)]),
        (r"top 10: 0.5, 16\:9:0.5, (1:2", [("top 10", 0.5), ("16:9", 0.5), ("(1:2", 1)]),
        (
            "GPT4:0.5, GPT-4:0.5, SD1.5:2, ugly : 0.8",
            [("GPT4", 0.5), ("GPT-4", 0.5), ("SD1.5", 2), ("ugly", 0.8)],
        ),
        ("-5:3", [("-5:3", 1)]),
        ("比例16：9，丑：2", [("比例16：9", 1), ("丑", 2)]),
        ("อัตราส่วน16:9", [("อัตราส่วน16:9", 1)]),
    ],
)
def test_phrases(text: str, expected: list[tuple[str, float]]) -> None:
    assert parsed(text) == expected


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "at least one phrase"),
        ("   ", "at least one phrase"),
        ("ugly,,bad", "empty phrase at position 6"),
        ("ugly, :0.5", "empty phrase at position 6"),
        ("ugly:heavy", "weight 'heavy' at position 1"),
        ("fine, ugly:", "weight '' at position 6"),
        ("ugly:nan", "'nan'"),
        ("ugly:inf", "'inf'"),
        ("ugly:1e999", "too large"),
        ("ugly:0_1", "'0_1'"),
        ("ugly:٣", "is not a number"),
        ("a:1:2", r"more than one colon in 'a:1:2' at position 1"),
        ("10:30:15", r"more than one colon in '10:30:15' at position 1"),
        ("16: nine", "weight 'nine' at position 1"),
        ("(ugly:1.2)", r"weight '1\.2\)' at position 1"),
    ],
)
def test_an_error_names_the_position_of_the_phrase(text: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        parse_phrases(text)


@given(st.text())
@example("\\")
@example("a\\")
@example("，：")
def test_every_text_is_parsed_or_refused(text: str) -> None:
    """Whatever is parsed has at least one phrase, and only phrases with text and a finite weight."""
    try:
        parsed_phrases = parse_phrases(text)
    except InputError:
        return
    assert parsed_phrases
    assert all(phrase.text == phrase.text.strip() and phrase.text for phrase in parsed_phrases)
    assert all(math.isfinite(phrase.weight) for phrase in parsed_phrases)


def escape(text: str) -> str:
    return "".join(f"\\{c}" if c in ",，、;；:：\\" else c for c in text)


@given(st.lists(st.tuples(st.text().filter(str.strip), st.floats(-100, 100)), min_size=1))
def test_escaped_phrases_are_parsed_back(written: list[tuple[str, float]]) -> None:
    """With a space after the colon also phrases that end in a number."""
    text = ",".join(f"{escape(words)}: {weight:.6f}" for words, weight in written)
    assert parsed(text) == [(words.strip(), float(f"{weight:.6f}")) for words, weight in written]


@given(st.lists(st.text().filter(str.strip), min_size=1))
def test_a_list_of_phrases_is_joined_to_the_same_phrases(written: list[str]) -> None:
    """A comma in a phrase stays in it, and colons and backslashes mean what they mean in a single phrase."""
    with_commas = [f"{words}, {words}" for words in map(escape, written)]
    assert [words for words, _ in parsed(join_phrases(with_commas))] == [
        f"{words}, {words}".strip() for words in written
    ]
    for words in written:
        text = "".join(character for character in words if character not in ",，、;；")
        assert outcome(join_phrases([text])) == outcome(text)


def outcome(text: str) -> list[tuple[str, float]] | None:
    """The phrases of a text; None if it is refused."""
    try:
        return parsed(text)
    except InputError:
        return None


@pytest.mark.parametrize("module", [phrases, template])
def test_the_examples_in_docstrings(module: Any) -> None:
    failed, attempted = doctest.testmod(module)
    assert (failed, attempted > 0) == (0, True)


# Contexts of phrases


def test_joined_is_one_branch_heaviest_first(chat: LanguageModel) -> None:
    expected = chat.encode("Write {a} story. It should be cliche, boring, predictable.")
    assert PhraseNegative().branches(KNIGHT, chat) == (Branch(expected, 1.0),)


def test_separate_is_one_branch_per_phrase_with_its_weight(chat: LanguageModel) -> None:
    branches = PhraseNegative(phrases="a:0.8, b:-0.5, c:0", mode="separate", template="bare").branches(
        KNIGHT, chat
    )
    assert branches == (Branch(chat.encode("a"), 0.8), Branch(chat.encode("b"), -0.5))


def test_the_heaviest_phrases(chat: LanguageModel) -> None:
    one = PhraseNegative(heaviest=1)
    assert one.branches(KNIGHT, chat) == PhraseNegative(phrases="cliche").branches(KNIGHT, chat)
    # Of equally heavy phrases the first; a phrase that attracts counts by the size of its weight.
    two = PhraseNegative(phrases="a:0.5, b:-0.8, c:0.5", mode="separate", template="bare", heaviest=2)
    assert two.branches(KNIGHT, chat) == (Branch(chat.encode("b"), -0.8), Branch(chat.encode("a"), 0.5))
    assert PhraseNegative(heaviest=3).branches(KNIGHT, chat) == PhraseNegative().branches(KNIGHT, chat)


def test_phrases_in_the_system_message(chat: LanguageModel, tiny: LanguageModel) -> None:
    (branch,) = option("own_system").branches(KNIGHT, chat)
    assert branch.ids == chat.encode(KNIGHT.text, "Your answers are cliche, boring, predictable.")
    both = PhraseNegative(phrases="x", template="Not {negative}: {prompt}", system="Be {negative}.")
    assert both.branches(KNIGHT, chat)[0].ids == chat.encode(f"Not x: {KNIGHT.text}", "Be x.")
    with pytest.raises(InputError, match=r"negatives\.system is 'Your .*without a chat template"):
        option("own_system").branches(KNIGHT, tiny)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"heaviest": 0}, r"negatives\.heaviest must be null or a whole number of at least 1, got 0"),
        ({"heaviest": True}, r"negatives\.heaviest must be .*got True"),
        ({"system": "Be rude."}, r"negatives\.system must be null or a text with \{negative\} in it"),
        ({"template": "{prompt}"}, r"negatives\.template must be one of default, bare"),
    ],
)
def test_arguments_that_a_phrase_negative_refuses(arguments: Any, sentence: str) -> None:
    with pytest.raises(InputError, match=f"^{sentence}"):
        PhraseNegative(**arguments)


def test_a_custom_template_and_the_system_message_of_the_prompt(chat: LanguageModel) -> None:
    prompt = Prompt(id="1", text="Hi", system="Be rude")
    negative = PhraseNegative(phrases="x", template="Not {negative}: {prompt}")
    assert (
        chat.decode(negative.branches(prompt, chat)[0].ids)
        == "[system]Be rude[end][user]Not x: Hi[end][assistant]"
    )


# Named contexts, and no context


def test_named_variants(chat: LanguageModel, rotary: LanguageModel) -> None:
    def ids(variant: str, model: LanguageModel, system: str | None = None) -> tuple[int, ...]:
        prompt = Prompt(id="1", text="Hi", system=system)
        (branch,) = NamedNegative(variant=variant).branches(prompt, model)
        return branch.ids

    assert chat.decode(ids("empty", chat)) == "[system]be kind[end][user][end][assistant]"
    assert ids("empty", rotary) == ids("bos", rotary) == ids("bos", chat) == (256,)
    assert ids("last_token", rotary) == rotary.encode("i")
    assert ids("default_system", chat, "Be rude") == chat.encode("Hi")
    with pytest.raises(InputError, match=r"does nothing for prompt '1'.*set prompts\.system"):
        ids("default_system", chat)


def test_no_negative_is_plain_decoding_at_every_scale(rotary: LanguageModel) -> None:
    negative = option("none")
    assert negative == NoNegative()
    positive = rotary.encode(KNIGHT.text)
    plain = reference.decode(rotary.module, positive, [], [], 1.0, 8)
    for scale in (0.0, 1.0, 3.0):
        (completion,) = Decoder(rotary).decode(
            [
                Request(
                    positive=positive,
                    negatives=negative.branches(KNIGHT, rotary),
                    guidance=ClassifierFreeGuidance(scale=scale),
                    max_new_tokens=8,
                )
            ]
        )
        assert completion.request.branches == ()
        assert list(completion.tokens) == plain


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"mode": "both"}, r"negatives\.mode must be joined or separate, got 'both'"),
        ({"template": "{prompt} bad"}, r"negatives\.template must be one of default, bare"),
        ({"phrases": "ugly:x"}, r"negatives\.phrases: weight 'x' at position 1"),
        ({"phrases": "ugly:0"}, "all weights are 0"),
        (
            {"phrases": ["sad", "bleak"]},
            r"negatives\.phrases must be a text such as .*got \['sad', 'bleak'\]",
        ),
        ({"template": 7}, r"negatives\.template must be one of default, bare.*got 7"),
        ({"phrases": "ugly, fine:-1"}, r"'fine' has a weight below 0.*mode=separate"),
    ],
)
def test_bad_settings_are_named(values: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError, match=message):
        PhraseNegative(**values)


def test_a_prompt_without_phrases_is_named(chat: LanguageModel) -> None:
    with pytest.raises(InputError, match="prompt '7' has no negative of its own"):
        PhraseNegative().branches(Prompt(id="7", text="Hi"), chat)


# A suffix


def test_a_suffix_continues_the_ids_of_the_prompt(chat: LanguageModel, rotary: LanguageModel) -> None:
    """The prompt is never tokenised again, and the suffix has no special tokens of its own."""
    prompt = Prompt(id="1", text="Hi", system="Be rude")
    (branch,) = option("suffix").branches(prompt, chat)
    assert branch.ids[: len(chat.encode("Hi", "Be rude"))] == chat.encode("Hi", "Be rude")
    assert chat.decode(branch.ids) == "[system]Be rude[end][user]Hi[end][assistant]OUTPUT ERROR"
    (branch,) = SuffixNegative(suffix=" no").branches(Prompt(id="1", text="Hi"), rotary)
    assert branch == Branch(
        (*rotary.encode("Hi"), *rotary.tokenizer(" no", add_special_tokens=False).input_ids)
    )
    assert rotary.bos[0] not in branch.ids[1:]


def test_tokens_are_not_merged_across_the_suffix() -> None:
    """A tokenizer that would join the last letter of the prompt with the first of the suffix."""
    tokenizer = make_tokenizer()
    tokenizer.add_tokens(["ab"])
    larger_model = make_model("rotary")
    larger_model.resize_token_embeddings(len(tokenizer))
    model = from_transformers(larger_model, tokenizer)
    assert len(model.encode("xab")) == 2
    (branch,) = SuffixNegative(suffix="b").branches(Prompt(id="1", text="xa"), model)
    assert branch.ids == (*model.encode("xa"), *model.encode("b"))


@pytest.mark.parametrize("scale", [0.0, 1.5, 3.0])
def test_a_suffix_decodes_the_formula_of_mti(tiny: LanguageModel, scale: float) -> None:
    """log p(prompt, suffix) + scale * (log p(prompt) - log p(prompt, suffix)), by brute force."""
    positive = tiny.encode(KNIGHT.text)
    negative = SuffixNegative(suffix=" no")
    (branch,) = negative.branches(KNIGHT, tiny)
    request = Request(
        positive=positive,
        negatives=(branch,),
        guidance=ClassifierFreeGuidance(scale=scale),
        max_new_tokens=10,
    )
    (completion,) = Decoder(tiny).decode([request])
    tokens: list[int] = []
    while len(tokens) < 10:
        prompt_alone = reference.log_probs(tiny.module, [*positive, *tokens])
        with_suffix = reference.log_probs(tiny.module, [*positive, *tiny.encode_suffix(" no"), *tokens])
        tokens.append(int((with_suffix + scale * (prompt_alone - with_suffix)).argmax()))
    assert list(completion.tokens) == tokens


def test_prompt_and_suffix_share_their_prefill(tiny: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    """The model reads the common tokens once, not once per branch."""
    prompt = Prompt(id="1", text="A prompt that is long beside the suffix. " * 3)
    positive = tiny.encode(prompt.text)
    branches = SuffixNegative(suffix="no").branches(prompt, tiny)
    tokens_read = 0
    forward = tiny.forward

    def counting_forward(ids: torch.Tensor, positions: Any, mask: Any, *rest: Any, **options: Any) -> Any:
        nonlocal tokens_read
        if mask is None:  # prefill
            tokens_read += ids.numel()
        return forward(ids, positions, mask, *rest, **options)

    monkeypatch.setattr(tiny, "forward", counting_forward)
    list(Decoder(tiny).decode([Request(positive=positive, negatives=branches, max_new_tokens=1)]))
    unguided = tokens_read
    tokens_read = 0
    guidance = ClassifierFreeGuidance(scale=2)
    list(
        Decoder(tiny).decode(
            [Request(positive=positive, negatives=branches, guidance=guidance, max_new_tokens=1)]
        )
    )
    assert len(positive) - 1 <= unguided <= len(positive)
    assert unguided < tokens_read < len(positive) + 2 * (len(branches[0].ids) - len(positive) + 1)


# A reversed instruction

INSTRUCTION = "Always respond with the opposite of what you're asked. You never get it right."


def test_the_default_opposite_stands_before_the_prompt(chat: LanguageModel, rotary: LanguageModel) -> None:
    negative = option("opposite")
    assert negative == OppositeNegative()
    (branch,) = negative.branches(KNIGHT, rotary)
    assert branch == Branch(rotary.encode(f"{INSTRUCTION}\nWrite {{a}} story."))
    (branch,) = negative.branches(Prompt(id="1", text="Hi {prompt}", system="Be brief"), chat)
    assert branch.weight == 1
    assert chat.decode(branch.ids) == (
        f"[system]Be brief[end][user]{INSTRUCTION}\nHi {{prompt}}[end][assistant]"
    )


def test_a_reversed_system_message_leaves_the_prompt_as_it_is(chat: LanguageModel) -> None:
    """As conf/negatives/opposite.yaml says."""
    written = (CONFIG / "negatives" / "opposite.yaml").read_text()
    (line,) = [line for line in written.splitlines() if "negatives.system='" in line]
    overrides = [word.replace("'", "") for word in line.removeprefix("#").split("negatives.")[1:]]
    negative = option("opposite", *(f"negatives.{word.strip()}" for word in overrides))
    (branch,) = negative.branches(Prompt(id="1", text="Hi", system="Be kind"), chat)
    assert chat.decode(branch.ids) == (
        "[system]You are a rude and dishonest assistant.[end][user]Hi[end][assistant]"
    )


@pytest.mark.parametrize("epsilon", [-0.5, 0.3, 0.6])
def test_positive_minus_epsilon_negative_is_guidance_at_another_temperature(
    rotary: LanguageModel, epsilon: float
) -> None:
    """The papers' formula, sampled by brute force at temperature 1 with the same noise."""
    negatives = OppositeNegative().branches(KNIGHT, rotary)
    for sample in range(4):
        request = Request(
            positive=rotary.encode(KNIGHT.text),
            negatives=negatives,
            guidance=ClassifierFreeGuidance(scale=1 / (1 - epsilon)),
            sampling=Sampling(temperature=1 / (1 - epsilon)),
            max_new_tokens=12,
            sample=sample,
        )
        (completion,) = Decoder(rotary).decode([request])
        tokens: list[int] = []
        while len(tokens) < 12:
            positive = reference.log_probs(rotary.module, [*request.positive, *tokens])
            negative = reference.log_probs(rotary.module, [*negatives[0].ids, *tokens])
            key = position_keys(torch.tensor([request.noise_key]), torch.tensor([len(tokens)]))
            noise = gumbel(key, torch.arange(len(positive)))[0]
            tokens.append(int((positive - epsilon * negative + noise).argmax()))
        assert list(completion.tokens) == tokens


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"template": "Do the opposite."}, r"negatives\.template must be a text with \{prompt\}"),
        ({"template": "{prompt}"}, "the negative context would be the prompt itself"),
    ],
)
def test_an_opposite_that_reverses_nothing_is_refused(values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        OppositeNegative(**values)


def test_what_a_negative_cannot_do_is_an_error(rotary: LanguageModel) -> None:
    with pytest.raises(InputError, match=r"negatives\.suffix must be a text that is not empty, got ''"):
        SuffixNegative(suffix="")
    with pytest.raises(InputError, match=r"negatives\.system is 'Be rude'.*without a chat template"):
        OppositeNegative(system="Be rude").branches(KNIGHT, rotary)


# Other models


def loaders_of(node: Any) -> Iterator[Mapping[str, Any]]:
    """Every call of `load_model` in a config, at any depth."""
    if isinstance(node, Mapping):
        if node.get("_target_") == "cfg_lab.models.load_model":
            yield node
        for value in node.values():
            yield from loaders_of(value)


@pytest.mark.parametrize("name", option_names("negatives"))
def test_other_models_follow_the_dtype_and_device_of_the_generator(name: str) -> None:
    """Of every negative option that loads a model: also of options that are added later."""
    generator = ["model.name=the-generator", "model.dtype=bfloat16", "model.device=meta"]
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"negatives={name}", *generator])
    loaders = list(loaders_of(OmegaConf.to_container(config.negatives, resolve=True)))
    for loader in loaders:
        assert (loader["dtype"], loader["device"]) == ("bfloat16", "meta")
    numbers = {"amateur": 1, "base": 1, "early_exits": 3, "experts": 2}
    assert len(loaders) >= numbers.get(name, 0)


def test_an_amateur_is_loaded_as_the_generator_is(tiny_folder: Path) -> None:
    negative = option(
        "amateur",
        f"model.name={tiny_folder}",
        "model.dtype=bfloat16",
        "negatives.models.amateur.skip_layers=[0,1]",
    )
    (amateur,) = negative.other_models().values()
    assert (amateur.module.dtype, amateur.module.config.num_hidden_layers) == (torch.bfloat16, 1)

"""Text and token ids: chat templates and tokenizers of every kind, each right or refused in a sentence."""

from __future__ import annotations

import importlib.util
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from tokenizers import AddedToken
from transformers.utils import chat_template_utils

from cfg_lab import Prompt, load_model
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers, load_evaluator
from tests.cli import on, refusal, sweep
from tests.conftest import make_model, make_tokenizer
from tests.test_models import save


def chat_model(folder: Path, template: Any) -> Path:
    """The folder of a model whose tokenizer has a chat template."""
    make_model("rotary").save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    tokenizer.save_pretrained(folder)
    return folder


# Chat templates


def test_a_template_that_refuses_a_system_message_is_quoted_with_the_prompt(tmp_path: Path) -> None:
    template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('System role not supported') }}{% endif %}"
        "{{ messages[0].content }}"
    )
    model = chat_model(tmp_path / "model", template)
    sentence = refusal(tmp_path, model, "prompts.system=Be brief.")
    assert sentence == (
        f"prompt 'p0': the chat template of model '{model}' refuses the prompt with system message "
        "'Be brief.': System role not supported"
    )


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ messages[0].content", "is broken: unexpected end of template"),
        ("{{ messages[0].content + 1 }}", "refuses the prompt: can only concatenate str"),
        ("{{ messages[0].content.nothing.more }}", "refuses the prompt: 'str object' has no attribute"),
    ],
)
def test_errors_of_a_template_are_sentences(tmp_path: Path, template: str, reason: str) -> None:
    model = chat_model(tmp_path / "model", template)
    assert f"the chat template of model '{model}' {reason}" in refusal(tmp_path, model)


def with_template(template: Any, **arguments: Any) -> LanguageModel:
    tokenizer = make_tokenizer()
    tokenizer.chat_template = template
    return from_transformers(make_model("rotary"), tokenizer, **arguments)


def test_a_message_that_a_template_leaves_out_is_refused() -> None:
    without_system = with_template("{% for m in messages if m.role == 'user' %}{{ m.content }}{% endfor %}")
    assert without_system.decode(without_system.encode("Hi")) == "Hi"
    with pytest.raises(InputError, match="leaves out the system message 'Be brief'"):
        without_system.encode("Hi", "Be brief")
    constant = with_template("{{ messages[0].role }}")
    with pytest.raises(InputError, match="leaves out the prompt 'Hi'"):
        constant.encode("Hi")


def test_a_system_message_may_be_a_command_that_the_template_does_not_show() -> None:
    template = (
        "{% if messages[0].role == 'system' and '/no_think' in messages[0].content %}quick {% endif %}"
        "{{ messages[-1].content | trim }}"
    )
    model = with_template(template)
    assert model.decode(model.encode(" Hi ", "/no_think")) == "quick Hi"


def test_a_template_that_reads_lists_of_parts_is_given_lists_of_parts() -> None:
    template = (
        "{% for m in messages %}{% for part in m.content %}{% if part.type == 'text' %}"
        "[{{ m.role }}]{{ part.text }}{% endif %}{% endfor %}{% endfor %}"
    )
    model = with_template(template)
    assert model.decode(model.encode("Hi", "S")) == "[system]S[user]Hi"


def test_of_several_templates_the_default_is_used_or_one_is_chosen_by_name(tmp_path: Path) -> None:
    named = {"default": "d:{{ messages[0].content }}", "rag": "r:{{ messages[0].content }}"}
    model = chat_model(tmp_path / "model", named)
    rendered = {
        name: (loaded := load_model(str(model), chat_template=name)).decode(loaded.encode("Hi"))
        for name in (None, "default", "rag")
    }
    assert rendered == {None: "d:Hi", "default": "d:Hi", "rag": "r:Hi"}
    file = tmp_path / "mine.jinja"
    file.write_text("f:{{ messages[0].content }}")
    base = load_model(str(save(make_model("rotary"), tmp_path / "base")), chat_template=str(file))
    assert base.decode(base.encode("Hi")) == "f:Hi"
    assert "model.chat_template is 'poem', which is neither a file nor a template of model" in refusal(
        tmp_path, model, "model.chat_template=poem"
    )


def test_several_templates_without_a_default_need_a_choice(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", {"rag": "r", "tool_use": "t"})
    assert refusal(tmp_path, model) == (
        f"model '{model}' has the chat templates rag, tool_use and no default; "
        "choose one with model.chat_template=…, or set model.prompt_format=plain"
    )
    assert load_model(str(model), prompt_format="plain").encode("Hi")


THINKING = (
    "{% set enable_thinking = enable_thinking | default(true) %}{{ messages[0].content }}"
    "{% if not enable_thinking %}<think></think>{% endif %}"
)


def test_template_arguments_reach_the_template(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", THINKING)
    for value, expected in {None: "Hi", True: "Hi", False: "Hi<think></think>"}.items():
        arguments = None if value is None else {"enable_thinking": value}
        loaded = load_model(str(model), template_arguments=arguments)
        assert loaded.decode(loaded.encode("Hi")) == expected
    rows = sweep(
        *on(tmp_path, model), "model.template_arguments={enable_thinking:true},{enable_thinking:false}"
    )
    assert len({row["cell"] for row in rows}) == 2
    assert {row["model.template_arguments.enable_thinking"] for row in rows} == {True, False}


def test_an_argument_that_the_template_does_not_read_is_refused(tmp_path: Path) -> None:
    model = chat_model(tmp_path / "model", THINKING)
    assert refusal(tmp_path, model, "model.template_arguments={think:false}") == (
        f"model.template_arguments has think, but the chat template of model '{model}' reads only "
        "enable_thinking"
    )
    assert "model.template_arguments is {'enable_thinking': False}, but model" in refusal(
        tmp_path, model, "model.template_arguments={enable_thinking:false}", "model.prompt_format=plain"
    )


def on_day(monkeypatch: pytest.MonkeyPatch, day: datetime) -> None:
    """Make a day today, for the templates of transformers."""

    class Day(datetime):
        @classmethod
        def now(cls, tz: Any = None) -> datetime:
            return day

    monkeypatch.setattr(chat_template_utils, "datetime", Day)


def test_a_template_with_the_date_gives_equal_ids_on_two_days(monkeypatch: pytest.MonkeyPatch) -> None:
    template = (
        "{% if date_string is not defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
        "Today: {{ date_string }}. {{ messages[0].content }}"
    )
    model = with_template(template)
    by_transformers: set[str] = set()
    by_the_lab: set[tuple[int, ...]] = set()
    for day in (datetime(2026, 1, 1), datetime(2027, 2, 2)):
        on_day(monkeypatch, day)
        messages = [{"role": "user", "content": "Hi"}]
        by_transformers.add(model.tokenizer.apply_chat_template(messages, tokenize=False))
        by_the_lab.add(model.encode("Hi"))
        assert chat_template_utils.datetime.now() == day, "the date of other code must not change"
    assert len(by_transformers) == 2
    assert [model.decode(ids) for ids in by_the_lab] == ["Today: 26 Jul 2024. Hi"]
    dated = with_template(template, template_arguments={"date_string": "1 May 1999"})
    assert dated.decode(dated.encode("Hi")) == "Today: 1 May 1999. Hi"


# Tokenizers


@pytest.mark.parametrize("key", ["text", "system", "negative"])
@pytest.mark.parametrize("chat", [False, True])
def test_half_of_a_character_is_refused_with_the_prompt(
    key: str, chat: bool, tmp_path: Path, tiny_folder: Path
) -> None:
    prompt = {"id": "broken", "text": "Hi", "system": None, "negative": "sad"}
    prompt |= {key: "a\ud83d"} | ({"system": "S"} if chat and key != "system" else {})
    path = tmp_path / "broken.jsonl"
    path.write_text(json.dumps({name: value for name, value in prompt.items() if value is not None}))
    overrides = [f"prompts.path={path}", "negatives=own", "guidance.scale=2"]
    overrides += [] if chat else ["model.prompt_format=plain"]
    sentence = refusal(tmp_path, tiny_folder, *overrides)
    assert "broken" in sentence
    assert r"'\ud83d'" in sentence
    sentence.encode()


def test_a_token_that_the_model_does_not_know_is_refused_with_the_prompt(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_model("rotary").save_pretrained(folder)
    tokenizer = make_tokenizer()
    tokenizer.add_tokens([AddedToken("Text", special=False)])
    tokenizer.save_pretrained(folder)
    model = load_model(str(folder))
    assert model.encode("other words"), "a tokenizer may have tokens that are not used"
    sentence = refusal(tmp_path, folder)
    assert sentence.startswith(
        f"prompt 'p0': the tokenizer of model '{folder}' gives the token 'Text' the id 259"
    )
    assert "the model has only 259 tokens" in sentence
    with pytest.raises(InputError, match="'Text' the id 259"):
        load_evaluator(str(folder))([(Prompt(id="1", text="Hi"), "a Text")])


def test_a_text_without_tokens_is_refused() -> None:
    silent = from_transformers(make_model("rotary"), lambda *_, **__: type("E", (), {"input_ids": []}))
    with pytest.raises(InputError, match="makes no tokens of the text 'Hi'"):
        silent.encode("Hi")


@pytest.mark.parametrize("kind", ["rotary", "absolute"])
def test_a_folder_without_a_tokenizer_is_refused(kind: str, tmp_path: Path) -> None:
    folder = tmp_path / "model"
    make_model(kind).save_pretrained(folder)  # transformers makes an empty tokenizer for a GPT-2
    assert f"model '{folder}' has no tokenizer; save the tokenizer" in refusal(tmp_path, folder)


def test_a_tokenizer_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model")
    (folder / "tokenizer.json").write_text("{broken")
    assert f"the tokenizer of model '{folder}' cannot be loaded: " in refusal(tmp_path, folder)


def test_a_tokenizer_that_needs_a_missing_package_names_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "model"
    make_model("rotary").save_pretrained(folder)
    (folder / "tokenizer_config.json").write_text(json.dumps({"tokenizer_class": "LlamaTokenizer"}))
    (folder / "tokenizer.model").write_bytes(b"no tokenizer")
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        "cfg_lab.models.tokenization.tokenizer.find_spec",
        lambda name: None if name == "sentencepiece" else find_spec(name),
    )
    assert refusal(tmp_path, folder) == (
        f"the tokenizer of model '{folder}' (tokenizer.model) needs the package sentencepiece; "
        "install it with pip install sentencepiece"
    )

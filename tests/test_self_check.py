"""The check at load refuses what the lab would decode wrongly, and never a model that is right."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Phi3Config,
    Phi3ForCausalLM,
)

from cfg_lab import Decoder, Request
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.errors import InputError
from cfg_lab.models import LanguageModel, from_transformers
from cfg_lab.models.kv_cache import AttentionLayer
from cfg_lab.models.source import LoadedModel
from tests.cli import on, sweep
from tests.conftest import SHAPE, VOCABULARY, make_model, make_tokenizer
from tests.tiny_architectures import build


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("bert", "not a causal language model"),
        ("roberta", "not a causal language model"),
        ("electra", "not a causal language model"),
        ("roberta, decoder only", "forward without a cache"),
        ("bart, decoder only", "forward without a cache"),
        ("rwkv", "takes no cache"),
        ("openai-gpt", "takes no cache"),
        ("recurrent_gemma", "keeps the states of its recurrent layers in the model"),
        ("deepseek_v4", "keep a cache of their own"),
        ("switch_transformers", "leave out tokens"),
        ("bigbird_pegasus", "block_sparse"),
    ],
)
def test_a_model_that_cannot_be_decoded_is_refused_by_name(name: str, reason: str) -> None:
    model = from_transformers(build(name))
    for _ in range(2):  # a second try is refused, too
        with pytest.raises(InputError, match=rf"model .*{type(model.source.load()).__name__}.*{reason}"):
            model.module  # noqa: B018


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize(
    "name", ["llama", "mixtral", "granitemoehybrid", "jamba", "mamba2", "gpt2", "t5", "bart"]
)
def test_right_models_pass_in_half_precision(name: str, dtype: torch.dtype) -> None:
    assert from_transformers(build(name, dtype=dtype)).parameters


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_wrong_models_are_refused_in_any_precision(dtype: torch.dtype) -> None:
    for name in ("bert", "roberta, decoder only", "bart, decoder only", "led", "moss_transcribe_diarize"):
        with pytest.raises(InputError, match="cannot be decoded right"):
            from_transformers(build(name, dtype=dtype)).module  # noqa: B018


class Shifted(LanguageModel):
    """A model whose rows get the positions of the first row."""

    def forward(self, ids: Any, positions: Any, mask: Any, buffer: Any, keep: int = 1) -> Any:
        return super().forward(ids, positions[:1].expand_as(positions), mask, buffer, keep)


class Unmasked(LanguageModel):
    """A model that sees the columns before the start of a row."""

    def forward(self, ids: Any, positions: Any, mask: Any, buffer: Any, keep: int = 1) -> Any:
        return super().forward(ids, positions, None, buffer, keep)


@pytest.mark.parametrize("kind", [Shifted, Unmasked])
def test_the_check_sees_wrong_positions_and_masks(kind: type[LanguageModel]) -> None:
    module = make_model("rotary")
    assert from_transformers(module).module is module
    with pytest.raises(InputError, match="forward without a cache"):
        kind("faulty", LoadedModel(module), None).module  # noqa: B018


@pytest.mark.parametrize("method", ["fork", "free", "_move", "admit"])
def test_the_check_sees_a_buffer_that_loses_a_row(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each operation on rows happens in the check: if it breaks the buffer, a model is refused."""
    original = getattr(KVBuffer, method)

    def breaking(self: KVBuffer, *arguments: Any) -> Any:
        result = original(self, *arguments)
        if self.live > 1:
            for keys, _ in self.layers.values():
                keys[: self.live] += 1
        return result

    monkeypatch.setattr(KVBuffer, method, breaking)
    with pytest.raises(InputError, match="forward without a cache"):
        from_transformers(make_model("rotary")).module  # noqa: B018


def test_an_error_inside_the_model_becomes_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(self: AttentionLayer, *_: object) -> None:
        raise RuntimeError("first line\nsecond line")

    monkeypatch.setattr(AttentionLayer, "update", broken)
    with pytest.raises(InputError, match=r"cannot run in the lab: RuntimeError first line; use"):
        from_transformers(make_model("rotary")).module  # noqa: B018


def test_logits_that_are_not_numbers_are_left_to_the_decoder() -> None:
    module = make_model("rotary")
    with torch.no_grad():
        module.lm_head.weight.fill_(float("nan"))
    assert from_transformers(module).module is module


def test_a_refused_model_writes_nothing(tmp_path: Path) -> None:
    sizes = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 32}
    BertLMHeadModel(BertConfig(vocab_size=VOCABULARY, **sizes)).save_pretrained(tmp_path / "model")
    make_tokenizer().save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match="not a causal language model"):
        sweep(*on(tmp_path, tmp_path / "model"))
    assert not (tmp_path / "results").exists()


# Limits


def long_rope() -> LanguageModel:
    torch.manual_seed(0)
    factors = {"short_factor": [1.0] * 4, "long_factor": [4.0] * 4}
    rope = {"rope_type": "longrope", "rope_theta": 1e4, **factors}
    config = Phi3Config(
        **{**SHAPE, "pad_token_id": 0}, rope_parameters=rope, original_max_position_embeddings=24
    )
    return from_transformers(Phi3ForCausalLM(config).eval())


def test_a_context_beyond_the_threshold_of_long_rope_is_refused() -> None:
    model = long_rope()
    inside = [Request(positive=tuple(range(5, 5 + n)), max_new_tokens=10) for n in (3, 14)]
    beside = {c.request.positive: c.tokens for c in Decoder(model).decode(inside)}
    for request in inside:
        (alone,) = Decoder(model).decode([request])
        assert alone.tokens == beside[request.positive]
    beyond = Request(positive=tuple(range(5, 20)), max_new_tokens=10)
    with pytest.raises(
        InputError, match=r"exceed the 24 tokens .*original_max_position_embeddings of longrope"
    ):
        list(Decoder(model).decode([beyond]))


def test_dynamic_rope_stays_within_its_first_length() -> None:
    rope = {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 4.0}
    torch.manual_seed(0)
    config = LlamaConfig(**{**SHAPE, "max_position_embeddings": 24}, rope_parameters=rope)
    model = from_transformers(LlamaForCausalLM(config).eval())
    short = Request(positive=(3, 4, 5), max_new_tokens=12)
    (before,) = Decoder(model).decode([short])
    (_, after) = Decoder(model).decode([Request(positive=tuple(range(12)), max_new_tokens=12), short])
    (again,) = Decoder(model).decode([short])
    assert before.tokens == again.tokens == {c.request.positive: c.tokens for c in (_, after)}[short.positive]
    with pytest.raises(InputError, match=r"exceed the 24 tokens .*max_position_embeddings"):
        list(Decoder(model).decode([Request(positive=(1,) * 20, max_new_tokens=12)]))


def test_limits_of_a_multimodal_config_are_those_of_its_text_config() -> None:
    model = from_transformers(build("gemma3"))
    assert model.context_length == 128
    assert model.vocab_size == model.module(torch.tensor([[5]])).logits.shape[-1]
    with pytest.raises(InputError, match="exceed the 128 tokens"):
        Decoder(model).check(Request(positive=(5,) * 120, max_new_tokens=20))

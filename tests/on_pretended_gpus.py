"""Models that are spread over two GPUs decode the texts of the same models on one device.

The GPUs are pretended, see `tests.pretended_gpus`. `tests.test_spread_models` runs this file in a process of
its own.
"""

from __future__ import annotations

import gc
import weakref
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from accelerate import dispatch_model
from transformers import (
    BertConfig,
    BertModel,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
)
from transformers.integrations.accelerate import infer_auto_device_map

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Request, load_model
from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.errors import InputError
from cfg_lab.models import Embedder, LanguageModel, embedder, from_transformers, load_classifier
from cfg_lab.models.checkpoint.placement import placed
from cfg_lab.models.evaluator import log_probs
from cfg_lab.prompts import Prompt
from tests import test_encoder_decoder
from tests.conftest import SHAPE, make_model
from tests.pretended_gpus import pretended_gpus
from tests.test_decoder import REQUESTS, context
from tests.test_encoder_decoder import guided
from tests.test_loading import ADAPTERS, adapter, classifier
from tests.test_models import save
from tests.tiny_architectures import build

PLENTY = 1 << 30
ARCHITECTURES = ["mixtral", "mamba", "minimax"]
SHORT = [replace(request, max_new_tokens=min(4, request.max_new_tokens)) for request in REQUESTS[:5]]


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """Two GPUs with plenty of memory."""
    with pretended_gpus(monkeypatch, PLENTY, PLENTY):
        yield


def make_deep(seed: int = 0) -> Any:
    """A Llama of four layers, so that balancing puts layers on both GPUs."""
    torch.manual_seed(seed)
    return LlamaForCausalLM(LlamaConfig(**{**SHAPE, "num_hidden_layers": 4})).eval()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(make_deep(), tmp_path_factory.mktemp("deep") / "model")


def spread(model: Any) -> Any:
    """Put about half of a model on GPU 0 and the rest on GPU 1, cut where transformers would cut."""
    size = sum(tensor.nbytes for tensor in model.state_dict().values())
    for tenths in (5, 6, 7, 8, 9):  # tied weights and large layers need more
        memory = {0: size * tenths // 10, 1: 2 * size}
        places = infer_auto_device_map(model, memory, model._no_split_modules)
        if set(places.values()) == {0, 1}:
            return dispatch_model(model, places, skip_keys=model._skip_keys_device_placement)
    raise AssertionError("no layer boundary near the middle")


def devices_of(module: Any) -> set[int | None]:
    return {parameter.device.index for parameter in module.parameters() if parameter.device.type == "gpu"}


def texts(model: LanguageModel, requests: list[Request] = SHORT, **others: LanguageModel) -> list[Any]:
    completions = Decoder(model, other_models=others).decode(requests)
    by_request = {id(completion.request): completion.tokens for completion in completions}
    return [by_request[id(request)] for request in requests]


def test_tensors_of_two_devices_cannot_be_mixed(gpus: None) -> None:
    """Else the tests below would prove nothing."""
    first, second = torch.ones(2, device="gpu:0"), torch.ones(2, device="gpu:1")
    for other in (second, torch.ones(2)):
        with pytest.raises(RuntimeError, match="several devices"):
            first + other
    assert (first + second.to("gpu:0")).tolist() == [2, 2]


@pytest.mark.parametrize("kind", ["rotary", "sliding", "absolute", *ARCHITECTURES])
def test_a_spread_model_decodes_the_same_texts(kind: str, gpus: None) -> None:
    make = make_model if kind in {"rotary", "sliding", "absolute"} else build
    expected = from_transformers(make(kind))
    ids = expected.vocab_size
    requests = [
        replace(
            request,
            positive=tuple(token % ids for token in request.positive),
            negatives=tuple(
                Branch(tuple(token % ids for token in b.ids), b.weight) for b in request.negatives
            ),
        )
        for request in SHORT
    ]
    model = from_transformers(spread(make(kind)))
    assert model.device == torch.device("gpu:0")
    assert devices_of(model.module) == {0, 1}
    assert texts(model, requests) == texts(expected, requests)


@pytest.mark.parametrize("kind", ["t5", "bart", "m2m_100"])
def test_a_spread_encoder_decoder_decodes_the_same_texts(kind: str, gpus: None) -> None:
    requests = [guided(seed, max_new_tokens=5) for seed in range(3)]
    model = from_transformers(spread(test_encoder_decoder.make(kind)))
    assert devices_of(model.module) == {0, 1}
    assert texts(model, requests) == texts(from_transformers(test_encoder_decoder.make(kind)), requests)


def test_balanced_uses_all_gpus_and_keys_and_values_are_on_the_gpu_of_their_layer(
    folder: Path, gpus: None
) -> None:
    model, expected = load_model(str(folder), device="balanced", dtype="float32"), load_model(str(folder))
    assert (model.device, model.fingerprint) == (torch.device("gpu:0"), expected.fingerprint)
    assert texts(model) == texts(expected)
    buffer = KVBuffer(1, 4, model.device, live=1)
    ids = torch.tensor([[5, 6]], device=model.device)
    logits = model.forward(ids, torch.arange(2, device=model.device)[None], None, buffer)
    assert logits.device == model.device
    places = [model.module.hf_device_map[f"model.layers.{number}"] for number in range(4)]
    assert set(places) == {0, 1}
    for layer, place in enumerate(places):
        assert [tensor.device.index for tensor in buffer.layers[layer]] == [place, place]


def test_models_that_guide_each_other_may_be_on_different_gpus(folder: Path, gpus: None) -> None:
    request = Request(
        positive=context(1, 5),
        negatives=(Branch(context(2, 7), model="other"),),
        guidance=ClassifierFreeGuidance(scale=2),
        max_new_tokens=5,
    )
    expected = texts(load_model(str(folder)), [request], other=from_transformers(make_deep(1)))
    for other in (from_transformers(make_deep(1).to("gpu:1")), from_transformers(spread(make_deep(1)))):
        model = load_model(str(folder), device="balanced", dtype="float32")
        assert texts(model, [request], other=other) == expected


def test_an_adapter_of_a_spread_model(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peft = pytest.importorskip("peft")
    adapter(tmp_path / "adapter", make_deep(), peft.LoraConfig(**ADAPTERS["LoRA"]))
    settings: dict[str, Any] = {"adapter": str(tmp_path / "adapter"), "dtype": "float32"}
    expected = texts(load_model(str(folder), **settings))
    with pretended_gpus(monkeypatch, PLENTY, PLENTY):
        model = load_model(str(folder), **settings, device="balanced")
        assert devices_of(model.module) == {0, 1}
        assert texts(model) == expected
    assert expected != texts(load_model(str(folder)))


def test_layers_can_be_left_out_of_a_spread_model(folder: Path, gpus: None) -> None:
    expected = texts(load_model(str(folder), skip_layers=[1, 3]))
    model = load_model(str(folder), skip_layers=[1, 3], device="balanced", dtype="float32")
    assert texts(model) == expected
    assert devices_of(model.module) == {0, 1}


def test_a_model_that_transformers_cannot_cut_is_refused(gpus: None) -> None:
    model = spread(test_encoder_decoder.make("marian"))
    with pytest.raises(InputError, match=r"does not say where a model of type 'marian' may be cut"):
        placed(model, torch.device("gpu:0"), "model 'x'")


def test_a_model_that_finds_place_on_the_second_gpu_alone(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = texts(load_model(str(folder)))
    with pretended_gpus(monkeypatch, 0, PLENTY):
        model = load_model(str(folder), device="balanced", dtype="float32")
        assert devices_of(model.module) == {1}
        assert texts(model) == expected


@pytest.mark.parametrize("memory", [0, 100_000])
def test_a_model_that_is_too_large_for_all_gpus_is_refused(
    memory: int, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pretended_gpus(monkeypatch, memory, memory):
        model = load_model(str(folder), device="balanced", dtype="float32")
        with pytest.raises(
            InputError, match=r"does not fit into the free memory of all visible GPUs: \d+ of"
        ):
            model.module  # noqa: B018


def test_unloading_frees_the_weights(folder: Path, gpus: None) -> None:
    model = load_model(str(folder), device="balanced", dtype="float32")
    expected = texts(model)
    weights = [weakref.ref(parameter) for parameter in model.module.parameters()]
    gc.disable()
    try:
        model.unload()
        assert not any(weight() is not None for weight in weights)
    finally:
        gc.enable()
    assert texts(model) == expected


def test_one_gpu_is_not_spread_over(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pretended_gpus(monkeypatch, PLENTY):
        balanced, auto = (load_model(str(folder), device=device) for device in ("balanced", "auto"))
        assert balanced.device == auto.device
        assert not hasattr(balanced.module, "hf_device_map")


TEXTS = ["one", "a much longer text than the others", "two", "", "three words here", "one"]


def test_an_embedder_on_a_gpu_gives_the_embeddings_of_the_cpu(
    tmp_path: Path, gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shape: dict[str, Any] = {"hidden_size": 32, "intermediate_size": 64, "num_attention_heads": 4}
    torch.manual_seed(0)
    save(BertModel(BertConfig(vocab_size=259, num_hidden_layers=2, **shape)), tmp_path)
    expected = Embedder(tmp_path)(TEXTS)
    monkeypatch.setattr(embedder, "_BATCH_SIZE_OF_GPU", 2)
    on_gpu = Embedder(tmp_path, torch.device("gpu:0"))
    assert devices_of(on_gpu.model) == {0}
    np.testing.assert_allclose(on_gpu(TEXTS), expected, atol=1e-5)


def test_a_classifier_on_a_gpu_reads_batches_and_gives_the_probabilities_of_the_cpu(
    tmp_path: Path, gpus: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    texts = list(filter(None, TEXTS))
    folder = str(classifier(tmp_path / "classifier"))
    expected = load_classifier(folder, "good")(texts)
    forwards: list[int] = []
    original = GPT2ForSequenceClassification.forward

    def counted(self: Any, input_ids: Any, **arguments: Any) -> Any:
        assert input_ids.device == torch.device("gpu:0")
        forwards.append(len(input_ids))
        return original(self, input_ids, **arguments)

    monkeypatch.setattr(GPT2ForSequenceClassification, "forward", counted)
    np.testing.assert_allclose(
        load_classifier(folder, "good", torch.device("gpu:0"))(texts), expected, atol=1e-5
    )
    assert forwards == [len(texts)]


def test_an_evaluator_on_a_gpu_gives_the_log_probs_of_the_cpu(folder: Path, gpus: None) -> None:
    pairs = [(Prompt(id=str(number), text=f"prompt {number}"), text) for number, text in enumerate(TEXTS)]
    expected = log_probs(load_model(str(folder)), pairs)
    scored = log_probs(load_model(str(folder), device="balanced", dtype="float32"), pairs)
    assert [len(values) for values in scored] == [len(values) for values in expected]
    for values, others in zip(scored, expected, strict=True):
        np.testing.assert_allclose(values, others, atol=1e-3)  # packed weights of the CPU

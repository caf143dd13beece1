"""A tiny random-weight model of every language-model architecture of transformers."""

from __future__ import annotations

import re
import warnings
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoModelForSeq2SeqLM
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

VOCABULARY = 96
WINDOW = 5  # shorter than the contexts of the tests

_SIZES: list[tuple[str, int]] = [
    (r"(.*_)?vocab_size(_.*)?", VOCABULARY),
    (r"(num_nextn_predict_layers|num_mtp_.*|mtp_num_.*)", 0),
    (r"(num_(hidden_|encoder_|decoder_)?layers|n_layers?|(en|de)coder_layers|num_blocks|depth)", 2),
    (r"(first_k_dense_replace|moe_layer_start_index|num_dense_layers)", 1),
    (r"(num_attention_heads|n_heads?|(en|de)coder_attention_heads|(en|de)coder_ffn_heads|num_heads)", 4),
    (r"(num_(en|de)coder_attention_heads|attention_heads|swa_num_attention_heads)", 4),
    (r"(num_key_value_heads|num_kv_heads|n_head_kv|num_global_key_value_heads|n_kv_heads)", 2),
    (r"(hidden_size|d_model|n_embd|dim|emb_dim|embed_dim|embedding_size|word_embed_proj_dim)", 32),
    (r"(head_dim|attention_head_dim|global_head_dim|v_head_dim|qk_nope_head_dim|d_kv|swa_.*head_dim)", 8),
    (r"qk_rope_head_dim", 4),
    (
        r"(intermediate_size|ffn_dim|n_inner|d_ff|ffn_hidden_size|.*_intermediate_size|(en|de)coder_ffn_dim)",
        48,
    ),
    (r"(shared_expert_.*|inner_dim|hidden_dim|moe_ffn_.*|expert_ffn.*|dim_ff|n_ctx_inner)", 48),
    (r"(num_(local_|routed_)?experts|n_routed_experts|moe_num_experts|n_experts)", 4),
    (r"(num_experts_per_tok(en)?|moe_k|top_k_experts|num_selected_experts|moe_topk|experts_per_token)", 2),
    (r"(n_group|topk_group|num_expert_groups?|num_limited_groups)", 1),
    (r"(kv_lora_rank|q_lora_rank|.*_lora_rank|.*_low_rank_dim|o_lora_rank)", 16),
    (r"(max_position_embeddings|n_positions|n_ctx|max_(source|target)_positions|max_sequence_length)", 128),
    (r"(sliding_window(_size)?|local_attention|attention_window(_size)?|window_size)", WINDOW),
    (r"attention_chunk_size", 8),
    (r"(mamba_num_heads|mamba_n_heads|n_mamba_heads|linear_num_value_heads|linear_num_heads)", 4),
    (r"(linear_num_key_heads)", 2),
    (r"(mamba_head_dim|mamba_d_head|linear_(key|value)_head_dim|ssm_state_size|mamba_d_state|state_size)", 8),
    (r"(n_groups|mamba_n_groups|mamba_ngroups)", 2),
    (r"(chunk_size|mamba_chunk_size)", 8),
    (r"(hc_lowrank|kv_channels|adapter_rank)", 4),
    (r"(linear_head_dim|index_head_dim|router_hidden_size|hidden_size_per_layer_input)", 8),
    (r"lru_width", 32),
    (r"index_n_heads", 32),  # with few heads many scores are 0, and a choice among them is arbitrary
    # Thresholds that the tests' contexts cross
    (r"(index_topk|index_block_size|floor_scale|log_scaling_n_floor|local_radius|global_block_size)", 4),
    (r"(rel_extent|block_size)", 6),
    (r"max_window_layers", 1),
    (r"encoder_hash_byte_group_vocab", 100),
]
"""Patterns of the names of sizes in configs, and the tiny value."""

_SPECIAL = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2, "decoder_start_token_id": 3}

_MAMBA_HEADS = {"mamba_d_head": 16, "mamba_n_heads": 4}  # their product is mamba_expand * hidden_size
OVERRIDES: dict[str, dict[str, Any]] = {
    "bamba": {**_MAMBA_HEADS, "attn_layer_indices": [1]},
    "codegen": {"rotary_dim": 4},
    "encoder-decoder": {
        name: {
            "model_type": "bert",
            "hidden_size": 32,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 48,
            "vocab_size": VOCABULARY,
            "is_decoder": name == "decoder",
            "add_cross_attention": name == "decoder",
        }
        for name in ("encoder", "decoder")
    },
    "dots1": {"n_routed_experts": 4, "n_shared_experts": 1, "num_experts_per_tok": 2},
    "cohere_compass_text": {
        "layer_types": ["full_attention", "sliding_attention"],
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4}
            for kind in ("full_attention", "sliding_attention")
        },
    },
    "dbrx": {
        "attn_config": {"kv_n_heads": 2, "rope_theta": 1e4, "clip_qkv": 8},
        "ffn_config": {"ffn_hidden_size": 48, "moe_num_experts": 4, "moe_top_k": 2},
    },
    "inkling_text": {"swa_num_key_value_heads": 2, "mlp_layer_types": ["dense", "sparse"]},
    "inkling2_text": {"swa_num_key_value_heads": 2, "n_layers_per_attn_res_block": 1},
    "qwen4_exp_text": {
        "indexer_n_heads": 2,
        "indexer_kv_heads": 1,
        "indexer_head_dim": 8,
        "indexer_budget": 8,
        "indexer_compress_ratio": 4,
    },
    "deepseek_v2": {"num_experts_per_tok": 2},
    "reformer": {"is_decoder": True, "axial_pos_embds": False, "attn_layers": ["local", "local"]},
    "gemma3n_text": {
        "layer_types": ["sliding_attention", "full_attention"] * 2,
        "num_hidden_layers": 4,
        "num_kv_shared_layers": 2,
        "vocab_size_per_layer_input": VOCABULARY,
    },
    "falcon_h1": {**_MAMBA_HEADS, "mamba_d_ssm": 64},
    "gpt_neo": {"attention_types": [[["global", "local"], 1]]},
    "gptj": {"rotary_dim": 4},
    "granitemoehybrid": {**_MAMBA_HEADS, "layer_types": ["linear_attention", "full_attention"]},
    "hunyuan_v1_dense": {"head_dim": 8},
    "hunyuan_v1_moe": {"head_dim": 8},
    "jamba": {"attn_layer_period": 2, "attn_layer_offset": 1},
    "led": {"attention_window": 6},
    "lfm2": {"layer_types": ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "full_attention"]},
    "mamba2": {"num_heads": 4, "head_dim": 16},
    "minimax_m3_vl_text": {
        "layer_types": ["full_attention", "minimax_m3_sparse"],
        "index_n_heads": 2,
        "index_topk_blocks": 2,
    },
    "ministral": {"head_dim": 8},
    "nemotron": {"num_key_value_heads": 2, "head_dim": 8},
    "xmod": {"default_language": "en_XX", "is_decoder": True},
    "zamba": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_hidden_layers": 4,
        "attention_head_dim": 16,
    },
    "zamba2": {
        "layers_block_type": ["linear_attention", "hybrid", "linear_attention", "hybrid"],
        "num_hidden_layers": 4,
        **_MAMBA_HEADS,
    },
    "zaya": {"num_experts_per_tok": 1},
    "ministral3": {
        "rope_parameters": {
            "rope_type": "default",
            "rope_theta": 1e4,
            "llama_4_scaling_beta": 0.5,
            "original_max_position_embeddings": 4,
        }
    },
}
"""Values for types whose sizes depend on each other in a way of their own."""


def _shrunk(config: Any, overrides: dict[str, Any]) -> dict[str, Any]:
    """The arguments of a config class that make a tiny model."""
    values: dict[str, Any] = {}
    given = config.to_dict()
    for name in given.keys() - {"per_layer_config"}:
        value = given[name]
        if isinstance(value, dict) and (name.endswith("_config") or name in {"encoder", "decoder"}):
            value = getattr(config, name, value)  # the config of a part of the model
        if isinstance(value, int) and not isinstance(value, bool):
            for pattern, size in _SIZES:
                if re.fullmatch(pattern, name):
                    values[name] = size
                    break
            if re.fullmatch(r".*token_(id|index)", name):
                values[name] = _SPECIAL.get(name, min(value, VOCABULARY - 1))
        elif name == "eos_token_id" and isinstance(value, list):
            values[name] = 2
        elif name == "layer_types" and value:
            values[name] = list(dict.fromkeys(value))
        elif isinstance(value, dict) and "rope" in name:
            values[name] = value
        elif hasattr(value, "to_dict"):
            overrides_of_part = OVERRIDES.get(value.model_type, {})
            values[name] = {**_shrunk(value, overrides_of_part), "model_type": value.model_type}
    if given.get("kv_lora_rank"):
        values |= {"num_key_value_heads": 4, "head_dim": 4}
    types = values.get("layer_types")
    if types:
        if len(types) == 1:
            types = types * 2
        values["layer_types"] = types
        values["num_hidden_layers"] = len(types)
    values.update(overrides)
    return values


def build(name: str, seed: int = 0, dtype: torch.dtype = torch.float32) -> Any:
    """A tiny model with random weights, in evaluation mode.

    Args:
        name: a type of models, perhaps followed by ", decoder only": the decoder of an encoder-decoder model,
            or an encoder that is used as a decoder.
    """
    model_type, _, variant = name.partition(", ")
    config_class: Any = CONFIG_MAPPING[model_type]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        arguments = _shrunk(config_class(), OVERRIDES.get(model_type, {}))
        if variant:
            arguments |= {"is_decoder": True, "is_encoder_decoder": False}
        config = config_class(**arguments)
    if config.is_encoder_decoder:
        config.decoder_start_token_id = 3
    auto: Any = AutoModelForSeq2SeqLM if config.is_encoder_decoder else AutoModelForCausalLM
    torch.manual_seed(seed)
    model = auto.from_config(config).eval().to(dtype)
    spread(model, seed)
    return model


def spread(model: Any, seed: int) -> None:
    """Draw the weights anew, so that the logits differ clearly."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if parameter.ndim >= 2 and not name.endswith(("A_log", "conv1d.weight")):
                fan_in = parameter.shape[-1]
                noise = torch.randn(parameter.shape, generator=generator)
                parameter.copy_(noise * 1.2 / fan_in**0.5)
            elif parameter.ndim == 1:  # norms of 1 and biases of 0 would hide mistakes
                parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.1)
        head = model.get_output_embeddings()
        if head is not None:
            head.weight.mul_(3)

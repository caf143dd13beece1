"""Llama's forward in fewer, larger operations, for float32 on x86 CPUs.

The same arithmetic as transformers' LlamaForCausalLM and those that differ only in biases (Mistral without a
window, Qwen2): linears that read the same input are one, residual sums are inside the linears, one
matrix product a step for all query heads of a key head. At 2 rows transformers' own forward spends as much
time between its operations as in them. Checked against it whenever a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.models.cpu.onednn import PackedLinear, linear, linear_with, packed, padded, plain_linear

ARCHITECTURES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}


@dataclass(frozen=True)
class Layer:
    """The linears of a layer, packed; those that read the same input in one."""

    qkv: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear


class LlamaOnCpu:
    """Runs a transformers model of the Llama kind, whose linears are taken over: afterwards the model
    computes with the same packed weights, so both stay usable and memory is not doubled."""

    def __init__(self, model: Any) -> None:
        config = model.config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = model.model.layers[0].self_attn.head_dim
        self.epsilon = torch.tensor(float(config.rms_norm_eps))
        self.model = model.model
        self.rotary = model.model.rotary_emb
        self.layers = [self._take(layer) for layer in model.model.layers]
        self.head = model.lm_head  # not packed: often its weight is the embedding's, too

    @staticmethod
    def fits(model: Any) -> bool:
        """Whether the model is of the Llama kind, with full attention in every layer."""
        config = model.config
        kinds: list[str] = getattr(config, "layer_types", None) or ["full_attention"]
        windowed = type(model).__name__ == "MistralForCausalLM" and config.sliding_window is not None
        return (
            type(model).__name__ in ARCHITECTURES
            and config.hidden_act == "silu"
            and set(kinds) == {"full_attention"}
            and not windowed
        )

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int
    ) -> Tensor:
        """See `cfg_lab.decoding.CausalModel.forward`."""
        rows, width = ids.shape
        x = padded(self.model.embed_tokens.weight.detach()[ids.reshape(-1)])  # [rows * width or more, hidden]
        cos, sin = self.rotary(x, positions)
        # the same rotation for all heads; sin's halves are equal
        cos, sin = (
            cos.reshape(-1, 1, self.head_dim),
            sin.reshape(-1, 1, self.head_dim)[..., : self.head_dim // 2],
        )
        bias = None if mask is None else self._bias(mask)
        for number, layer in enumerate(self.layers):
            y = linear(self._normed(x), layer.qkv.weight, layer.qkv.bias)
            y = y[: rows * width].view(rows * width, -1, self.head_dim)
            query_key = self._rotated(y[:, : self.heads + self.kv_heads], cos, sin)
            query = query_key[:, : self.heads].view(rows, width, self.heads, self.head_dim)
            key = query_key[:, self.heads :].view(rows, width, self.kv_heads, self.head_dim)
            value = y[:, self.heads + self.kv_heads :].view(rows, width, self.kv_heads, self.head_dim)
            keys, values = buffer.write(number, key.transpose(1, 2), value.transpose(1, 2))
            attended = padded(self._attend(query, keys, values, bias))
            x = linear_with(attended, x, layer.out.weight, layer.out.bias, "add")
            y = self._normed(x)
            gate, up = linear(y, layer.gate_up.weight, layer.gate_up.bias).chunk(2, -1)
            x = linear_with(F.silu(gate).mul_(up), x, layer.down.weight, layer.down.bias, "add")
        kept = x[: rows * width].view(rows, width, -1)[:, -keep:].reshape(rows * keep, -1)
        normed = self._normed(kept).mul_(self.model.norm.weight)
        return plain_linear(normed, self.head.weight).view(rows, keep, -1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """query [rows, width, heads, dim], keys and values [rows, kv_heads, columns, dim]
        -> [rows * width, heads * dim]."""
        rows, width = query.shape[:2]
        if bias is None:
            seen = keys.shape[2]
            causal = torch.ones(width, seen, dtype=torch.bool).tril(seen - width) if seen > width else None
            out = F.scaled_dot_product_attention(
                query.transpose(1, 2), keys, values, causal, is_causal=causal is None, enable_gqa=True
            )
            return out.transpose(1, 2).reshape(rows * width, -1)
        # One token a row: the query heads of a key head are the rows of one product, keys are not repeated.
        query = query.reshape(rows * self.kv_heads, -1, self.head_dim)
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # views: rows and heads are evenly apart
        scores = torch.baddbmm(bias, query, keys.transpose(1, 2), alpha=self.head_dim**-0.5)
        return torch.bmm(scores.softmax(-1), values).view(rows, -1)

    def _bias(self, mask: Tensor) -> Tensor:
        """[rows, columns] bool -> 0 or -inf, [rows * kv_heads, 1, columns]."""
        bias = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        return bias.repeat_interleave(self.kv_heads, 0)[:, None]

    def _rotated(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Rotary position embedding of x [tokens, heads, dim], whose halves are the two coordinates."""
        half = self.head_dim // 2
        rotated = x * cos
        rotated[..., :half].addcmul_(x[..., half:], sin, value=-1)
        rotated[..., half:].addcmul_(x[..., :half], sin)
        return rotated

    def _normed(self, x: Tensor) -> Tensor:
        """Root mean square norm of x [tokens, hidden]; its weight is in the linears that follow."""
        size = cast("Tensor", torch.linalg.vector_norm(x, dim=-1, keepdim=True))
        return x * torch.addcmul(self.epsilon, size, size, value=1 / x.shape[-1]).rsqrt_()

    def _take(self, layer: Any) -> Layer:
        """Pack a layer's linears, and let the transformers model compute with the packed ones."""
        attention, mlp = layer.self_attn, layer.mlp
        norm_in, norm_mlp = (
            _taken_weight(layer.input_layernorm),
            _taken_weight(layer.post_attention_layernorm),
        )
        attention.q_proj, attention.k_proj, attention.v_proj = _packed_linears(
            attention.q_proj, attention.k_proj, attention.v_proj, norm=norm_in
        )
        (attention.o_proj,) = _packed_linears(attention.o_proj)
        mlp.gate_proj, mlp.up_proj = _packed_linears(mlp.gate_proj, mlp.up_proj, norm=norm_mlp)
        (mlp.down_proj,) = _packed_linears(mlp.down_proj)
        return Layer(qkv=attention.q_proj, out=attention.o_proj, gate_up=mlp.gate_proj, down=mlp.down_proj)


def _taken_weight(norm: Any) -> Tensor:
    """The weight of a norm, which from now on is 1: it goes into the linears that read the norm's output."""
    weight = norm.weight.detach().clone()
    norm.weight.data = torch.ones_like(weight)
    return weight


def _packed_linears(*linears: Any, norm: Tensor | None = None) -> list[PackedLinear]:
    """Linears that read the same input, packed as one; each is a range of its outputs."""
    weight = torch.cat([one.weight.detach() for one in linears])
    biases = [one.bias for one in linears]
    bias = None if biases[0] is None else torch.cat([one.detach() for one in biases])
    together = packed(weight if norm is None else weight * norm)
    ends = [0, *accumulate(int(one.out_features) for one in linears)]
    return [PackedLinear(together, bias, slice(start, end)) for start, end in pairwise(ends)]

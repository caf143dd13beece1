"""The forward pass of Llama in fewer and larger operations, for float32 on x86 CPUs.

This forward computes the same as LlamaForCausalLM of transformers. It also supports models that differ from
Llama only in biases (Mistral without a sliding window, Qwen2). The operations differ from those of
transformers:

- Linear layers with the same input are computed as one linear layer.
- Residual sums are computed inside the linear layers.
- At a decoding step, the query heads that share a key head are computed in one matrix product.

With 2 rows, the forward of transformers spends half of its time on the overhead between operations.
`LanguageModel` compares the logits of both forwards whenever a model is loaded.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import accumulate, pairwise
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812, the usual name
from torch import Tensor

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.models.cpu.kernels import Kernels
from cfg_lab.models.cpu.onednn import PackedLinear, linear, linear_plus, pack_weight, pad_rows

ARCHITECTURES = {"LlamaForCausalLM", "MistralForCausalLM", "Qwen2ForCausalLM"}


@dataclass(frozen=True)
class Layer:
    """The packed linear layers of one transformer layer.

    A packed weight is stored in the memory layout of oneDNN. `qkv` uses one packed weight for the query, key
    and value layers, which have the same input. `gate_up` uses one packed weight for the gate and up layers.
    """

    qkv: PackedLinear
    out: PackedLinear
    gate_up: PackedLinear
    down: PackedLinear


class LlamaOnCpu:
    """Runs a transformers model of the Llama family with packed linear layers.

    The linear layers inside the transformers model are replaced by packed ones. This object uses the same
    packed weights. So both this object and the transformers model can be used.

    Attributes:
        kernels: the kernels for few rows. Until they are chosen, the default is used.
    """

    def __init__(self, model: Any) -> None:
        config = model.config
        self.heads: int = config.num_attention_heads
        self.kv_heads: int = config.num_key_value_heads
        self.head_dim: int = model.model.layers[0].self_attn.head_dim
        self.epsilon = torch.tensor(float(config.rms_norm_eps))
        self.model = model.model
        self.rotary = model.model.rotary_emb
        self.layers = [self._pack(layer) for layer in model.model.layers]
        self.head = model.lm_head  # not packed: its weight is often also the input embedding
        self.kernels = Kernels()

    @staticmethod
    def supports(model: Any) -> bool:
        """Whether a model is of the Llama family, with full attention in every layer."""
        config = model.config
        layer_types: list[str] = getattr(config, "layer_types", None) or ["full_attention"]
        windowed = type(model).__name__ == "MistralForCausalLM" and config.sliding_window is not None
        return (
            type(model).__name__ in ARCHITECTURES
            and config.hidden_act == "silu"
            and set(layer_types) == {"full_attention"}
            and not windowed
        )

    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int
    ) -> Tensor:
        """See `cfg_lab.decoding.model.CausalModel.forward`."""
        rows, width = ids.shape
        tokens = rows * width
        embedding = self.model.embed_tokens.weight.detach()
        padded = self.kernels.fewest_rows(tokens)
        x = pad_rows(embedding[ids.reshape(-1)], padded)  # [tokens, hidden], with more rows if padded
        cos, sin = self.rotary(x, positions)
        cos = cos.reshape(-1, 1, self.head_dim)  # [tokens, 1, head_dim], the same for all heads
        sin = sin.reshape(-1, 1, self.head_dim)[..., : self.head_dim // 2]  # its halves are equal
        bias = None if mask is None else self._attention_bias(mask)
        for number, layer in enumerate(self.layers):
            y = linear(self._normalise(x), layer.qkv.weight, layer.qkv.bias)
            y = y[:tokens].view(tokens, -1, self.head_dim)
            query_key = self._rotate(y[:, : self.heads + self.kv_heads], cos, sin)
            query = query_key[:, : self.heads].view(rows, width, self.heads, self.head_dim)
            key = query_key[:, self.heads :].view(rows, width, self.kv_heads, self.head_dim)
            value = y[:, self.heads + self.kv_heads :].view(rows, width, self.kv_heads, self.head_dim)
            keys, values = buffer.write(number, key.transpose(1, 2), value.transpose(1, 2))
            attended = pad_rows(self._attend(query, keys, values, bias), padded)
            x = linear_plus(attended, x, layer.out.weight, layer.out.bias)
            y = self._normalise(x)
            gate, up = linear(y, layer.gate_up.weight, layer.gate_up.bias).chunk(2, -1)
            x = linear_plus(F.silu(gate).mul_(up), x, layer.down.weight, layer.down.bias)
        last = x[:tokens].view(rows, width, -1)[:, -keep:].reshape(rows * keep, -1)
        normed = self._normalise(last).mul_(self.model.norm.weight)
        return self.kernels.apply_head(normed, self.head.weight).view(rows, keep, -1)

    def _attend(self, query: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None) -> Tensor:
        """Compute attention: query [rows, width, heads, head_dim] -> output [rows * width, heads * head_dim].

        Keys and values are [rows, kv_heads, columns, head_dim]. Without a bias, attention is causal.
        """
        rows, width = query.shape[:2]
        if bias is None:
            columns = keys.shape[2]
            causal = None
            if columns > width:
                causal = torch.ones(width, columns, dtype=torch.bool).tril(columns - width)
            out = F.scaled_dot_product_attention(
                query.transpose(1, 2), keys, values, causal, is_causal=causal is None, enable_gqa=True
            )
            return out.transpose(1, 2).reshape(rows * width, -1)
        # One token per row: the query heads of a key head are the rows of one product, and keys are not
        # repeated for them.
        query = query.reshape(rows * self.kv_heads, -1, self.head_dim)
        keys, values = keys.flatten(0, 1), values.flatten(0, 1)  # views, because the strides allow it
        scores = torch.baddbmm(bias, query, keys.transpose(1, 2), alpha=self.head_dim**-0.5)
        return torch.bmm(scores.softmax(-1), values).view(rows, -1)

    def _attention_bias(self, mask: Tensor) -> Tensor:
        """Convert a mask [rows, columns] to a bias [rows * kv_heads, 1, columns].

        The bias is 0 where the mask is true, else -inf.
        """
        bias = torch.zeros(mask.shape).masked_fill_(~mask, -torch.inf)
        return bias.repeat_interleave(self.kv_heads, 0)[:, None]

    def _rotate(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """Apply the rotary position embedding to x [tokens, heads, head_dim].

        The coordinates i and i + head_dim / 2 are rotated as a pair.
        """
        half = self.head_dim // 2
        rotated = x * cos
        rotated[..., :half].addcmul_(x[..., half:], sin, value=-1)
        rotated[..., half:].addcmul_(x[..., :half], sin)
        return rotated

    def _normalise(self, x: Tensor) -> Tensor:
        """Divide each row of x [tokens, hidden] by its root mean square, without the norm layer's weight.

        The weight of the norm layer is already part of the linear layers that follow.
        """
        norm = cast("Tensor", torch.linalg.vector_norm(x, dim=-1, keepdim=True))
        return x * torch.addcmul(self.epsilon, norm, norm, value=1 / x.shape[-1]).rsqrt_()

    def _pack(self, layer: Any) -> Layer:
        """Replace the linear layers of a transformer layer by packed ones, and return the packed ones."""
        attention, mlp = layer.self_attn, layer.mlp
        attention.q_proj, attention.k_proj, attention.v_proj = _pack_linears(
            attention.q_proj, attention.k_proj, attention.v_proj, norm=layer.input_layernorm
        )
        (attention.o_proj,) = _pack_linears(attention.o_proj)
        mlp.gate_proj, mlp.up_proj = _pack_linears(
            mlp.gate_proj, mlp.up_proj, norm=layer.post_attention_layernorm
        )
        (mlp.down_proj,) = _pack_linears(mlp.down_proj)
        return Layer(qkv=attention.q_proj, out=attention.o_proj, gate_up=mlp.gate_proj, down=mlp.down_proj)


def _pack_linears(*linears: Any, norm: Any = None) -> list[PackedLinear]:
    """Pack linear layers with the same input into one weight.

    Each layer is replaced by a PackedLinear that returns the output features of this layer.

    Args:
        norm: the norm layer whose output is the input of the linear layers; None if there is no norm layer.
            The weight of the norm layer is multiplied into the packed weight and then set to 1.
    """
    weight = torch.cat([layer.weight.detach() for layer in linears])
    if norm is not None:
        weight = weight * norm.weight.detach()
        norm.weight.data = torch.ones_like(norm.weight)
    has_bias = linears[0].bias is not None
    bias = torch.cat([layer.bias.detach() for layer in linears]) if has_bias else None
    packed = pack_weight(weight)
    ends = [0, *accumulate(int(layer.out_features) for layer in linears)]
    return [PackedLinear(packed, bias, slice(start, end)) for start, end in pairwise(ends)]

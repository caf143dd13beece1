"""Encoder-decoder models (T5, BART, Marian and related).

The encoder reads the context of a branch as its source. The decoder starts every text with its start token,
not with the context. A negative is another source, or an empty one. The cross-attention keys and values are
computed once for each source and shared by all rows with this source.
"""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache
from transformers.modeling_outputs import BaseModelOutput

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import Context
from cfg_lab.decoding.prefix import EncoderMemory
from cfg_lab.errors import InputError
from cfg_lab.models.context_limit import ContextLimit, context_limit
from cfg_lab.models.kv_cache import AttentionLayer, KVBufferCache
from cfg_lab.models.language_model import LanguageModel
from cfg_lab.models.self_check import SelfCheck

_ENCODER_TOKENS = 4096
"""Largest number of source tokens, padding included, in one forward of the encoder."""


class EncoderDecoder(LanguageModel):
    """An encoder-decoder language model of transformers."""

    _positions: Tensor | None = None
    """Positions [rows, q] of the tokens in the running forward; None outside of `forward`."""

    def _prepare(self, module: Any) -> None:
        """Give each row of a batch its own positions, and check that the lab runs the model right."""
        check = SelfCheck(self, module, self._own_logits, encoder=True)
        self._takes_positions = "decoder_position_ids" in inspect.signature(module.forward).parameters
        embedding = getattr(module.get_decoder(), "embed_positions", None)
        if embedding is not None:
            if any(parameter.is_meta for parameter in embedding.parameters()):
                raise InputError(
                    f"model {self.name!r} keeps the positions of its decoder on the CPU or the disk, where "
                    "the lab cannot read them; give decoder.embed_positions a device in its device map"
                )
            embedding.register_forward_hook(self._embed_positions)
        if not check.passes():
            raise check.refusal()

    @property
    def recurrent(self) -> bool:
        """See `cfg_lab.decoding.model.CausalModel.recurrent`."""
        return False

    @property
    def static_length(self) -> int:
        """0, because the cross-attention has columns of its own."""
        return 0

    @cached_property
    def _limit(self) -> ContextLimit:
        """The limit of the encoder or of the decoder, whichever is smaller."""
        return min(context_limit(self.config.get_text_config(encoder=True)), super()._limit)

    def _own_logits(self, contexts: list[Context]) -> Tensor:
        """The logits of the model's own forward; see `cfg_lab.models.self_check.OwnLogits`."""
        logits = [
            self.module(
                input_ids=torch.tensor([context.source], device=self.device),
                decoder_input_ids=torch.tensor([context.ids], device=self.device),
                use_cache=False,
            ).logits
            for context in contexts
        ]
        return torch.cat(logits).float()

    @property
    def start(self) -> tuple[int, ...]:
        """The decoder's first tokens: the start token, and a language token if the config forces one.

        Raises:
            InputError: the config names no start token.
        """
        return self._start

    @cached_property
    def _start(self) -> tuple[int, ...]:
        config = self.source.generation_config
        first: int | None = config.decoder_start_token_id
        if first is None:
            first = config.bos_token_id
        if first is None:
            raise InputError(
                f"the config of model {self.name!r} names no token for its decoder to start with"
            )
        return (first,) if config.forced_bos_token_id is None else (first, config.forced_bos_token_id)

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert the ids of new tokens to text, without special tokens. The new tokens begin a text."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def encode_suffix(self, text: str) -> tuple[int, ...]:
        """Token ids of a text, without special tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    @torch.inference_mode()
    def read(self, sources: list[tuple[int, ...]]) -> list[EncoderMemory]:
        """Run the encoder on each source; see `cfg_lab.decoding.model.CausalModel.read`.

        The encoder reads equal sources only once. Sources of similar length share a batch, so that there is
        little padding.
        """
        memories: dict[tuple[int, ...], EncoderMemory] = {}
        waiting = sorted(set(sources), key=len)
        while waiting:
            count = max(1, _ENCODER_TOKENS // len(waiting[-1]))
            chunk = waiting[-count:]
            del waiting[-count:]
            width = len(chunk[-1])
            padding = [width - len(source) for source in chunk]
            ids = torch.tensor(
                [[*source, *[0] * pad] for source, pad in zip(chunk, padding, strict=True)],
                device=self.device,
            )  # [sources, width]
            mask = torch.tensor([[1] * (width - pad) + [0] * pad for pad in padding], device=self.device)
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            # One step of the decoder fills the cache of its cross-attention. The token does not matter.
            first = torch.zeros_like(ids[:, :1])
            self.module(input_ids=ids, attention_mask=mask, decoder_input_ids=first, past_key_values=cache)
            layers: Any = cache.cross_attention_cache.layers
            for row, source in enumerate(chunk):
                tokens = slice(len(source))
                memories[source] = [
                    (layer.keys[row, :, tokens], layer.values[row, :, tokens]) for layer in layers
                ]
        return [memories[source] for source in sources]

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int = 1
    ) -> Tensor:
        """See `cfg_lab.decoding.model.CausalModel.forward`."""
        layers, source_mask = buffer.memory()
        cache = EncoderDecoderCache(
            KVBufferCache(buffer, [AttentionLayer] * len(layers)),
            Cache(layers=[_filled_layer(*layer) for layer in layers]),
        )
        module, self._positions = self.module, positions
        # The encoder's keys and values are in the cache. Of its output only the shape is used.
        shape: Any = torch.zeros(*source_mask.shape, 1, device=source_mask.device, dtype=module.dtype)
        encoder_output: Any = BaseModelOutput(last_hidden_state=shape)
        encoder_output.router_logits = None  # NLLB-MoE reads it
        try:
            output = module(
                encoder_outputs=encoder_output,
                attention_mask=source_mask.long(),
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
                **({"decoder_position_ids": positions} if self._takes_positions else {}),
            )
        finally:
            self._positions = None
        return output.logits[:, -keep:].float()

    def _embed_positions(self, embedding: Any, _: object, output: Tensor) -> Tensor:
        """Forward hook of the decoder's position embedding: each row has its own positions.

        transformers gives all rows of a batch the same positions.
        """
        if self._positions is None:
            return output
        positions = self._positions.to(output.device)  # a part of a spread model may be on another device
        if hasattr(embedding, "weights"):  # a table of sines, which begins after the padding token (M2M100)
            return embedding.weights[positions + embedding.padding_idx + 1].to(output.dtype)
        if hasattr(embedding, "make_positions"):  # the same, with another name (FSMT)
            return embedding.weight[positions + embedding.padding_idx + 1]
        if hasattr(embedding, "weight"):
            return embedding.weight[positions + getattr(embedding, "offset", 0)]
        return output


def _filled_layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    """A layer of a transformers cache with given keys and values, [rows, heads, tokens, head_dim]."""
    layer: Any = DynamicLayer()
    layer.keys, layer.values, layer.is_initialized = keys, values, True
    return layer

"""Encoder-decoder models (T5, BART, Marian and related).

The encoder reads the context of a branch as its source. The decoder starts every text with its start token,
not with the context. A negative is another source, or an empty one. The cross-attention keys and values are
computed once for each source and shared by all rows with this source.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer, Prefix
from cfg_lab.errors import InputError
from cfg_lab.models.kv_cache import AttentionLayer, KVBufferCache
from cfg_lab.models.language_model import LanguageModel

TESTED_TYPES = {"t5", "mt5", "bart", "mbart", "marian", "pegasus"}
"""Types of models (`config.model_type`) that count positions in a way that the tests cover."""

_ENCODER_TOKENS = 4096
"""Largest number of source tokens, padding included, in one forward of the encoder."""


class EncoderDecoder(LanguageModel):
    """An encoder-decoder language model of transformers."""

    _positions: Tensor | None = None
    """Positions [rows, q] of the tokens in the running forward; None outside of `forward`."""

    def _prepare(self, module: Any) -> None:
        """Give each row of a batch its own positions. Raise InputError if the model does not allow this."""
        embedding = getattr(module.get_decoder(), "embed_positions", None)
        if embedding is not None:
            embedding.register_forward_hook(self._embed_positions)
        self._check_positions()

    @property
    def start(self) -> tuple[int, ...]:
        """The decoder's first tokens: the start token, and a language token if the config forces one.

        Raises:
            InputError: the config names no start token, or the model cannot be used; see `module`.
        """
        return self._start

    @cached_property
    def _start(self) -> tuple[int, ...]:
        # Planning calls this. So a model that cannot be used raises an error before a sweep writes anything.
        # The weights of models that are known to work are not loaded for planning.
        if self.config.model_type not in TESTED_TYPES:
            self.module  # noqa: B018, checks the positions
        config = self.source.generation_config
        first: int | None = config.decoder_start_token_id
        if first is None:
            first = config.bos_token_id
        if first is None:
            raise InputError(
                f"the config of model {self.name!r} names no token for its decoder to start with"
            )
        return (first,) if config.forced_bos_token_id is None else (first, config.forced_bos_token_id)

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
            Cache(layers=[_filled_layer(*layer) for layer in layers])
        )
        module, self._positions = self.module, positions
        try:
            output = module(
                # The encoder's keys and values are in the cache. Of its output only the shape is used.
                encoder_outputs=(
                    torch.empty(*source_mask.shape, 1, device=source_mask.device, dtype=module.dtype),
                ),
                attention_mask=source_mask.long(),
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            self._positions = None
        return output.logits[:, -keep:].float()

    def _embed_positions(self, embedding: Any, _: object, output: Tensor) -> Tensor:
        """Forward hook of the decoder's position embedding: each row has its own positions.

        transformers gives all rows of a batch the same positions.
        """
        weight: Tensor | None = getattr(embedding, "weight", None)
        if self._positions is None or weight is None:
            return output
        return weight[self._positions + getattr(embedding, "offset", 0)]

    def _check_positions(self) -> None:
        """Raise InputError if the logits of a row depend on when the row starts.

        A row that starts later than another row must have the same logits as if it were the only row.
        """
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.vocab_size, (1, 5), generator=generator).to(self.device)
        source = cast("list[int]", ids[0].tolist())
        (memory,) = self.read([tuple(source)])
        with torch.inference_mode():
            expected: Tensor = self.module(input_ids=ids, decoder_input_ids=ids).logits[0, -1]
        buffer = KVBuffer(2, 12, self.device)
        buffer.admit([Prefix(memory=memory)])
        logits = expected
        for step, token in enumerate(source * 2):
            if step == 5:
                buffer.admit([Prefix(memory=memory)])  # the second row starts here
            tokens = ids.new_full((buffer.live, 1), token)
            logits = self.forward(tokens, buffer.positions(), buffer.mask(), buffer)[-1, 0]
            buffer.advance()
        expected, logits = expected.float().nan_to_num(), logits.nan_to_num()
        if not torch.allclose(logits, expected, rtol=1e-3, atol=1e-2 * float(expected.abs().max())):
            raise InputError(
                f"model {self.name!r} ({type(self.module).__name__}) counts positions in a way that the lab "
                "does not know; encoder-decoder models of the T5, BART, Marian and Pegasus families work"
            )


def _filled_layer(keys: Tensor, values: Tensor) -> DynamicLayer:
    """A layer of a transformers cache with given keys and values, [rows, heads, tokens, head_dim]."""
    layer: Any = DynamicLayer()
    layer.keys, layer.values, layer.is_initialized = keys, values, True
    return layer

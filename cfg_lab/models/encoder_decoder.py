"""Encoder-decoder models (T5, BART, Marian and their kin): contexts are sources, texts start anew.

A negative is another source, or an empty one. What the decoder attends to of a source is computed once and
shared by all its rows.
"""

from __future__ import annotations

from functools import cached_property
from typing import Any, cast

import torch
from torch import Tensor
from transformers.cache_utils import Cache, DynamicCache, DynamicLayer, EncoderDecoderCache

from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer, Prefix
from cfg_lab.errors import InputError
from cfg_lab.models.kv_cache import KVBufferCache
from cfg_lab.models.language_model import LanguageModel

_TOKENS_AT_ONCE = 4096


class EncoderDecoder(LanguageModel):
    """An encoder-decoder LM of transformers."""

    _positions: Tensor | None = None
    """Of the tokens in the forward that is running."""

    @cached_property
    def module(self) -> Any:
        module = self.load().eval()
        self._measure(module)
        embedding = getattr(module.get_decoder(), "embed_positions", None)
        if embedding is not None:
            embedding.register_forward_hook(self._own_positions)
        self.__dict__["module"] = module  # what follows runs it
        try:
            self._start = self._starting(module.generation_config)
            self.fingerprint = f"{self.fingerprint}-{'-'.join(map(str, self._start))}"
            self._check_positions()
        except InputError:
            self.unload()
            raise
        return module

    @property
    def start(self) -> tuple[int, ...]:
        """See `cfg_lab.decoding.CausalModel.start`."""
        self.module  # noqa: B018, finds it
        return self._start

    def _starting(self, config: Any) -> tuple[int, ...]:
        """What transformers' generate starts the decoder with: its start token, and a language where one is
        forced."""
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
        """See `cfg_lab.decoding.CausalModel.read`: the encoder, and every layer's keys and values of it."""
        memories: dict[tuple[int, ...], EncoderMemory] = {}
        waiting = sorted(set(sources), key=len)
        while waiting:
            count = max(1, _TOKENS_AT_ONCE // len(waiting[-1]))
            chunk = waiting[-count:]
            del waiting[-count:]
            width = len(chunk[-1])
            ids = torch.tensor([[*one, *[0] * (width - len(one))] for one in chunk], device=self.device)
            own = torch.tensor(
                [[1] * len(one) + [0] * (width - len(one)) for one in chunk], device=self.device
            )
            cache = EncoderDecoderCache(DynamicCache(), DynamicCache())
            first = torch.full_like(ids[:, :1], self.start[0])
            # One step of the decoder: its cross-attention fills the cache.
            self.module(input_ids=ids, attention_mask=own, decoder_input_ids=first, past_key_values=cache)
            layers: Any = cache.cross_attention_cache.layers
            for row, source in enumerate(chunk):
                seen = slice(len(source))
                memories[source] = [(one.keys[row, :, seen], one.values[row, :, seen]) for one in layers]
        return [memories[source] for source in sources]

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int = 1
    ) -> Tensor:
        """See `cfg_lab.decoding.CausalModel.forward`."""
        layers, own = buffer.memory()
        cache = EncoderDecoderCache(
            KVBufferCache(buffer, len(layers)), Cache(layers=[_filled(*layer) for layer in layers])
        )
        module, self._positions = self.module, positions
        try:
            output = module(
                # Its keys and values are in the cache; only the shape of what the encoder gave is asked for.
                encoder_outputs=(torch.empty(*own.shape, 1, device=own.device, dtype=module.dtype),),
                attention_mask=own.long(),
                decoder_input_ids=ids,
                decoder_attention_mask=mask,
                past_key_values=cache,
                use_cache=True,
            )
        finally:
            self._positions = None
        return output.logits[:, -keep:].float()

    def _own_positions(self, embedding: Any, _: object, output: Tensor) -> Tensor:
        """Rows stand at positions of their own; transformers' decoders count for all rows at once."""
        weight: Tensor | None = getattr(embedding, "weight", None)
        if self._positions is None or weight is None:
            return output
        return weight[self._positions + getattr(embedding, "offset", 0)]

    def _check_positions(self) -> None:
        """Raise InputError unless a row that starts after another gives what it gives alone."""
        generator = torch.Generator().manual_seed(0)
        ids = torch.randint(self.vocab_size, (1, 5), generator=generator).to(self.device)
        source = cast("list[int]", ids[0].tolist())
        (memory,) = self.read([tuple(source)])
        with torch.inference_mode():
            expected: Tensor = self.module(input_ids=ids, decoder_input_ids=ids).logits[0, -1]
        buffer = KVBuffer(2, 12, self.device)
        buffer.admit([Prefix([], memory)])
        found = expected
        for step, token in enumerate(source * 2):
            if step == 5:
                buffer.admit([Prefix([], memory)])
            tokens = ids.new_full((buffer.live, 1), token)
            found = self.forward(tokens, buffer.positions(), buffer.mask(), buffer)[-1, 0]
            buffer.advance()
        expected, found = expected.float().nan_to_num(), found.nan_to_num()
        if not torch.allclose(found, expected, rtol=1e-3, atol=1e-2 * float(expected.abs().max())):
            raise InputError(
                f"model {self.name!r} ({type(self.module).__name__}) counts positions in a way that the lab "
                "does not know; encoder-decoder models of the T5, BART, Marian and Pegasus families work"
            )


def _filled(keys: Tensor, values: Tensor) -> DynamicLayer:
    """A layer of a cache that holds these already."""
    layer: Any = DynamicLayer()
    layer.keys, layer.values, layer.is_initialized = keys, values, True
    return layer

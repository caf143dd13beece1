"""A causal language model with its tokenizer: text in and out for people, buffer for the decoder."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, get_args

import torch
import xxhash
from torch import Tensor

from cfg_lab.decoding.kv_buffer import EncoderMemory, KVBuffer
from cfg_lab.errors import InputError
from cfg_lab.models.cpu import onednn
from cfg_lab.models.cpu.llama import LlamaOnCpu
from cfg_lab.models.kv_cache import KVBufferCache

PromptFormat = Literal["auto", "chat", "plain"]


@dataclass(eq=False)
class LanguageModel:
    """A causal LM of transformers.

    Args:
        name: what reports call it.
        load: gives the transformers model; called when the weights are first needed, for planning a sweep
            takes only tokenizer and config.
        tokenizer: None for a model that is only given token ids.
        config: the transformers config.
        prompt_format: "chat" renders prompts with the tokenizer's chat template, "plain" takes them as
            they are, "auto" is chat where there is a template.
        pack: take the linears over for speed where `onednn` can; afterwards the transformers model works
            as before, but its plain weights are gone.
    """

    name: str
    load: Callable[[], Any]
    tokenizer: Any
    config: Any
    prompt_format: PromptFormat = "auto"
    pack: bool = False

    def __post_init__(self) -> None:
        if self.prompt_format not in get_args(PromptFormat):
            raise InputError(
                f"model.prompt_format must be one of {', '.join(get_args(PromptFormat))}, "
                f"got {self.prompt_format!r}"
            )
        if self.prompt_format == "chat" and not self._has_template:
            raise InputError(
                f"model.prompt_format=chat, but model {self.name!r} has no chat template; "
                "use plain, or an instruction-tuned model"
            )

    @cached_property
    def module(self) -> Any:
        """The transformers model in evaluation mode."""
        module = self.load().eval()
        self._measure(module)
        self._takes_positions = "position_ids" in inspect.signature(module.forward).parameters
        self._fast = self._packed(module) if self.pack and onednn.available(module) else None
        return module

    def _measure(self, module: Any) -> None:
        """What is known of the weights as they were stored."""
        self.config = module.config
        self.fingerprint = _fingerprint(module)
        self._parameters: int = sum(parameter.numel() for parameter in module.parameters())

    def _packed(self, module: Any) -> LlamaOnCpu | None:
        """Pack the linears, and take the shorter forward where it gives what the model's own gives."""
        if LlamaOnCpu.fits(module):
            fast = LlamaOnCpu(module)
        else:
            fast = None
            onednn.pack(module)
        onednn.give_back(module)
        if fast is None or self._agrees(fast, module):
            return fast
        warnings.warn(
            f"model {self.name!r} runs with transformers' own forward, which is slower", stacklevel=2
        )
        return None

    def _agrees(self, fast: LlamaOnCpu, module: Any) -> bool:
        ids = torch.arange(12).reshape(2, 6) % self.config.vocab_size
        with torch.inference_mode():
            expected = module(ids).logits[:, -1].nan_to_num()  # broken weights are the decoder's to report
            positions = torch.arange(6).expand(2, -1)
            found = fast.forward(ids, positions, None, KVBuffer(2, 6, ids.device, live=2), 1)
            found = found[:, 0].nan_to_num()
        return torch.allclose(found, expected, rtol=1e-3, atol=1e-3 * float(expected.abs().max()))

    def unload(self) -> None:
        """Give the weights' memory back; they are loaded again when needed."""
        self.__dict__.pop("module", None)

    @property
    def device(self) -> torch.device:
        return self.module.device

    @property
    def start(self) -> tuple[int, ...]:
        """See `cfg_lab.decoding.CausalModel.start`."""
        return ()

    def read(self, sources: list[tuple[int, ...]]) -> list[EncoderMemory]:
        """Never called: there is no encoder."""
        raise NotImplementedError

    @property
    def context_length(self) -> int:
        """Tokens the model can see; a large number where its config sets no limit."""
        return int(getattr(self.config, "max_position_embeddings", None) or 1 << 30)

    @property
    def vocab_size(self) -> int:
        """Logits a position."""
        return int(self.config.get_text_config().vocab_size)

    @property
    def parameters(self) -> int:
        """How many numbers the weights are, those used twice (tied embeddings) counted once."""
        self.module  # noqa: B018, counts them while they are as they were stored
        return self._parameters

    @cached_property
    def fingerprint(self) -> str:
        """Names the exact weights: a hash of every parameter and of the config that uses them."""
        self.module  # noqa: B018, sets it while the weights are as they were stored
        return self.fingerprint

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int = 1
    ) -> Tensor:
        """See `cfg_lab.decoding.CausalModel.forward`."""
        module = self.module
        if self._fast is not None:
            return self._fast.forward(ids, positions, mask, buffer, keep)
        output = module(
            input_ids=ids,
            attention_mask=mask,
            past_key_values=KVBufferCache(buffer, self.config.get_text_config().num_hidden_layers),
            use_cache=True,
            logits_to_keep=keep,
            **({"position_ids": positions} if self._takes_positions else {}),
        )
        return output.logits[:, -keep:].float()

    # Text

    @property
    def chat(self) -> bool:
        """Whether prompts are rendered with the chat template."""
        return self.prompt_format != "plain" and self._has_template

    @property
    def _has_template(self) -> bool:
        return bool(getattr(self.tokenizer, "chat_template", None))

    @property
    def stop_ids(self) -> frozenset[int]:
        """Tokens that end a text: the model's and the tokenizer's EOS."""
        named: int | list[int] | None = getattr(self.config, "eos_token_id", None)
        ids = named if isinstance(named, list) else [named]
        own: int | None = getattr(self.tokenizer, "eos_token_id", None)
        return frozenset(token for token in [*ids, own] if token is not None)

    @property
    def bos(self) -> tuple[int, ...]:
        """The beginning-of-sequence token (some models use their EOS for it).

        Raises:
            InputError: the model has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return (int(token),)
        raise InputError(f"model {self.name!r} has no beginning-of-sequence token; use another negative")

    def encode(self, text: str, system: str | None = None) -> tuple[int, ...]:
        """Token ids of a prompt as the model is meant to see it.

        Args:
            text: an instruction for chat models, else a text to continue; "" is an empty user turn, or BOS.
            system: system message; None leaves the template's own default. Only for chat models.
        """
        if not self.chat:
            if system is not None:
                raise InputError(
                    f"prompts.system is {system!r}, but model {self.name!r} is used without a chat template; "
                    "leave system unset"
                )
            return tuple(self.tokenizer(text).input_ids) or self.bos
        messages = [{"role": "user", "content": text}]
        if system is not None:
            messages.insert(0, {"role": "system", "content": system})
        rendered = self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False)
        return tuple(self.tokenizer(rendered, add_special_tokens=False).input_ids)

    def encode_suffix(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that continues a context: no chat template, no special tokens."""
        return tuple(self.tokenizer(text, add_special_tokens=False).input_ids)

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of new tokens, special tokens left out."""
        return self.tokenizer.decode(list(tokens), skip_special_tokens=True)

    def piece(self, token: int) -> str:
        """The text of a token inside a text, its leading space included; special tokens by their name. Of a
        character's bytes in several tokens none has a text: each is \N{REPLACEMENT CHARACTER}."""
        if token not in self._pieces:
            before = self._before
            whole = self.tokenizer.decode([*before, token], skip_special_tokens=False)
            self._pieces[token] = whole[len(self.tokenizer.decode(before)) :]
        return self._pieces[token]

    @cached_property
    def _pieces(self) -> dict[int, str]:
        return {}

    @cached_property
    def _before(self) -> list[int]:
        """A token to decode another one after: some tokenizers drop the space that begins a text."""
        return list(self.tokenizer("a", add_special_tokens=False).input_ids[-1:])

    @property
    def vocabulary(self) -> dict[str, int]:
        """Every token's id: models with equal ones can guide each other."""
        return self.tokenizer.get_vocab()


def _fingerprint(module: Any) -> str:
    digest = xxhash.xxh3_128()
    config = {key: value for key, value in module.config.to_dict().items() if not key.startswith("_")}
    config.pop("transformers_version", None)
    digest.update(json.dumps(config, sort_keys=True, default=str).encode())
    for name, tensor in module.state_dict().items():
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}".encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy())
    return digest.hexdigest()

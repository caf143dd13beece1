"""A language model with its tokenizer: converts text to token ids, and runs the model for the decoder."""

from __future__ import annotations

import gc
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property, partial
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from cfg_lab.decoding.kv_buffer import KVBuffer
from cfg_lab.decoding.model import Context
from cfg_lab.decoding.prefix import EncoderMemory
from cfg_lab.errors import InputError
from cfg_lab.models.checkpoint.placement import is_spread
from cfg_lab.models.context_limit import ContextLimit, context_limit
from cfg_lab.models.cpu import onednn
from cfg_lab.models.cpu.kernels import Kernels, choose_kernels
from cfg_lab.models.cpu.llama import LlamaOnCpu
from cfg_lab.models.forward_arguments import ForwardArguments
from cfg_lab.models.generation_settings import settings_not_applied, stop_ids_of
from cfg_lab.models.kv_cache import full_attention_length, is_recurrent
from cfg_lab.models.self_check import SelfCheck
from cfg_lab.models.source import ModelSource
from cfg_lab.models.tokenization.chat_template import ChatTemplate, find_template
from cfg_lab.models.tokenization.detokenizer import Detokenizer
from cfg_lab.models.tokenization.token_ids import check_characters, token_ids

PromptFormat = Literal["auto", "chat", "plain"]

_REMEMBERED_PROMPTS = 20_000
"""Largest number of prompts whose token ids a model remembers: all cells of a grid have the same prompts."""


@dataclass(eq=False)
class LanguageModel:
    """A causal language model of transformers, as the decoder and the planning of a sweep use it.

    Only `module`, `forward` and `parameters` load the weights. So a sweep can be planned without them.

    Args:
        name: the model's name in results and reports.
        source: gives the configs and, when they are first needed, the weights.
        tokenizer: None for a model that is only given token ids.
        prompt_format: "chat" renders prompts with the tokenizer's chat template, "plain" uses them
            unchanged, "auto" is chat if the tokenizer has a template, else plain.
        pack: replace the linear layers by faster ones if `onednn.supports` the model (only on CPUs). The
            transformers model still works, but its weights are no longer plain parameters.
        chat_template: which chat template to use, see `find_template`.
        template_arguments: values for variables that the chat template reads.

    Attributes:
        stays_loaded: `unload` does nothing, see `cfg_lab.models.kept`.

    Raises:
        InputError: the prompt format does not exist, or is "chat" without a chat template; or an argument
            does not fit the chat template.
    """

    name: str
    source: ModelSource
    tokenizer: Any
    prompt_format: PromptFormat = "auto"
    pack: bool = False
    chat_template: str | None = None
    template_arguments: Mapping[str, Any] | None = None
    stays_loaded: bool = field(init=False, default=False)
    _short_forward: LlamaOnCpu | None = field(init=False, default=None)
    _kernels: Kernels | None = field(init=False, default=None)
    _token_ids_of_prompts: dict[tuple[str, str | None], tuple[int, ...]] = field(
        init=False, default_factory=dict[tuple[str, str | None], tuple[int, ...]]
    )
    _parameters: int | None = field(init=False, default=None)

    def __post_init__(self) -> None:
        if self.prompt_format not in get_args(PromptFormat):
            raise InputError(
                f"model.prompt_format must be one of {', '.join(get_args(PromptFormat))}, "
                f"got {self.prompt_format!r}"
            )
        if not self.chat and self.prompt_format == "chat":
            raise InputError(
                f"model.prompt_format=chat, but model {self.name!r} has no chat template; "
                "use plain, or an instruction-tuned model"
            )

    # What is known without loading the weights

    @property
    def config(self) -> Any:
        """The transformers config."""
        return self.source.config

    @property
    def device(self) -> torch.device:
        """The device of the inputs and of the logits. Layers may be on others, with their keys and values."""
        return self.source.device

    @property
    def start(self) -> tuple[int, ...]:
        """See `cfg_lab.decoding.model.CausalModel.start`."""
        return ()

    @cached_property
    def fingerprint(self) -> str:
        """The part of a text's id that identifies the weights, dtype, config and first decoder tokens.

        It ends in "spaces" for a model whose texts had lost their leading space in earlier versions.
        """
        parts = [self.source.fingerprint(), *map(str, self.start)]
        if self.tokenizer is not None and not self.start and not self._detokenizer.keeps_leading_spaces:
            parts.append("spaces")
        return "-".join(parts)

    @property
    def context_length(self) -> int:
        """The largest number of tokens in a context; 2**30 if the config sets no limit."""
        return self._limit.tokens

    @property
    def context_limit(self) -> str:
        """See `cfg_lab.decoding.model.CausalModel.context_limit`."""
        return self._limit.key

    @cached_property
    def _limit(self) -> ContextLimit:
        return context_limit(self._text_config)

    @cached_property
    def _text_config(self) -> Any:
        """The config of the part that reads and writes text; models with other parts have several configs."""
        return self.config.get_text_config(decoder=True)

    @property
    def recurrent(self) -> bool:
        """See `cfg_lab.decoding.model.CausalModel.recurrent`."""
        return is_recurrent(self._text_config)

    @property
    def static_length(self) -> int:
        """See `cfg_lab.decoding.model.CausalModel.static_length`."""
        return self._static_length

    @cached_property
    def _static_length(self) -> int:
        # Other implementations of attention read a mask of four dimensions in another way.
        takes_mask = self.module.config._attn_implementation in ("sdpa", "eager")
        if is_spread(self.module) or not takes_mask:
            return 0
        return full_attention_length(self._text_config)

    @property
    def vocab_size(self) -> int:
        """Number of logits that the model returns at each position."""
        return int(self._text_config.vocab_size)

    # The weights

    @cached_property
    def module(self) -> Any:
        """The transformers model in evaluation mode.

        Raises:
            InputError: the lab cannot run this model.
        """
        # The first access is often in a decoding step. Tensors made in inference mode could not be used
        # outside of it, so it is off here.
        with torch.inference_mode(False):
            module = self.source.load().eval()
            self._parameters = sum(parameter.numel() for parameter in module.parameters())
            self.__dict__["module"] = module  # `_prepare` may run the model
            try:
                self._prepare(module)
            except BaseException:
                self._free()
                raise
        return module

    def _prepare(self, module: Any) -> None:
        """Make a loaded model ready for `forward`, and check that the lab runs it right.

        Raises:
            InputError: the lab cannot run this model.
        """
        with onednn.called_linears(module) as called:
            check = SelfCheck(self, module, self._own_logits, encoder=False)
        with check.refusing_errors():
            self._arguments = ForwardArguments(module)
        if self.pack and onednn.supports(module):
            self._short_forward = self._pack(module, called)
            if self._short_forward is not None and not check.passes():
                self._short_forward = None
                warnings.warn(
                    f"model {self.name!r} runs with the forward of transformers, which is slower",
                    stacklevel=2,
                )
        if self._short_forward is None and not check.passes():
            raise check.refusal()

    def _own_logits(self, contexts: list[Context]) -> Tensor:
        """The logits of the model's own forward; see `cfg_lab.models.self_check.OwnLogits`."""
        ids = torch.tensor([context.ids for context in contexts], device=self.device)
        return self.module(input_ids=ids, use_cache=False).logits.float()

    def _pack(self, module: Any, linears: set[nn.Module]) -> LlamaOnCpu | None:
        """Replace linear layers by packed ones (weights in the memory layout of oneDNN).

        Args:
            linears: the linear layers that may be replaced.

        Returns:
            The faster forward of `LlamaOnCpu`, or None if it does not support the model.
        """
        short = None
        if LlamaOnCpu.supports(module):
            short = LlamaOnCpu(module)
        else:
            onednn.pack_linears(module, linears)
        onednn.free_plain_weights(module)
        self._kernels = choose_kernels(module, None if short is None else short.head.weight)
        if short is not None:
            short.kernels = self._kernels
        return short

    def unload(self) -> None:
        """Free the memory of the weights, unless the model `stays_loaded`. The next use loads them again."""
        if not self.stays_loaded:
            self._free()

    def _free(self) -> None:
        module = self.__dict__.pop("module", None)
        self._short_forward = None
        if module is not None and is_spread(module):
            del module
            gc.collect()  # the hooks of accelerate refer to the model, and the model to them

    @property
    def kernels(self) -> str:
        """Which kernels compute the linear layers for few rows, in one sentence. Loads the weights."""
        self.module  # noqa: B018, loading chooses them
        return "the kernels of torch" if self._kernels is None else str(self._kernels)

    @property
    def parameters(self) -> int:
        """Number of parameters. Parameters that are used twice (tied embeddings) count once."""
        if self._parameters is None:
            self.module  # noqa: B018, loading counts them
        assert self._parameters is not None
        return self._parameters

    @torch.inference_mode()
    def forward(
        self, ids: Tensor, positions: Tensor, mask: Tensor | None, buffer: KVBuffer, keep: int = 1
    ) -> Tensor:
        """See `cfg_lab.decoding.model.CausalModel.forward`."""
        module = self.module
        if self._short_forward is not None:
            return self._short_forward.forward(ids, positions, mask, buffer, keep)
        output = module(
            input_ids=ids,
            use_cache=True,
            logits_to_keep=keep,
            **self._arguments(positions, mask, buffer),
        )
        return output.logits[:, -keep:].float()

    def read(self, sources: list[tuple[int, ...]]) -> list[EncoderMemory]:
        """Never called, because this model has no encoder."""
        raise NotImplementedError

    # Text

    @property
    def chat(self) -> bool:
        """Whether prompts are rendered with a chat template."""
        return self._template is not None

    @cached_property
    def _template(self) -> ChatTemplate | None:
        tokenizer = None if self.prompt_format == "plain" else self.tokenizer
        return find_template(tokenizer, self.name, self.chat_template, self.template_arguments)

    @cached_property
    def stop_ids(self) -> frozenset[int]:
        """Ids of the tokens that end a text: the end-of-sequence tokens of all files of the model.

        The files are the generation config, the config and the tokenizer.
        """
        return stop_ids_of(self._generation_config, self.config, self.tokenizer)

    @property
    def special_tokens(self) -> dict[str, int]:
        """The special tokens of the tokenizer, which `decode` leaves out: token -> id."""
        return self._detokenizer.special_tokens

    def warn_about_generation_settings(self) -> None:
        """Give a warning if the model's generation config has settings that the lab does not apply."""
        ignored = settings_not_applied(self._generation_config, self.config)
        if ignored:
            settings = ", ".join(f"{name}={value!r:.60}" for name, value in ignored.items())
            warnings.warn(
                f"the generation config of model {self.name!r} has settings that the lab does not apply: "
                f"{settings}",
                stacklevel=2,
            )

    @property
    def _generation_config(self) -> Any:
        """The transformers GenerationConfig; None if the model has none."""
        return getattr(self.source, "generation_config", None)

    @property
    def bos(self) -> tuple[int, ...]:
        """The beginning-of-sequence token, or the end-of-sequence token if there is none.

        Raises:
            InputError: the tokenizer has neither.
        """
        for token in (self.tokenizer.bos_token_id, self.tokenizer.eos_token_id):
            if token is not None:
                return (int(token),)
        raise InputError(f"model {self.name!r} has no beginning-of-sequence token; use another negative")

    def encode(self, text: str, system: str | None = None) -> tuple[int, ...]:
        """Token ids of a prompt in the model's prompt format.

        Args:
            text: an instruction for a chat model, else a text to continue. The empty text is an empty user
                message for a chat model, else the beginning-of-sequence token.
            system: the system message, only for chat models; None uses the chat template's default.

        Raises:
            InputError: a system message is given, but the model is used without a chat template; the chat
                template refuses the prompt; or the tokenizer cannot read the text, or does not fit the model.
        """
        prompt = (text, system)
        if prompt not in self._token_ids_of_prompts:
            if len(self._token_ids_of_prompts) >= _REMEMBERED_PROMPTS:
                self._token_ids_of_prompts.clear()
            self._token_ids_of_prompts[prompt] = self._encode(text, system)
        return self._token_ids_of_prompts[prompt]

    def _encode(self, text: str, system: str | None) -> tuple[int, ...]:
        check_characters(text)
        check_characters(system or "")
        if self._template is not None:
            rendered = self._template.render(text, system)
            return self._token_ids(rendered, partial(self._tokenize, add_special_tokens=False))
        if system is not None:
            raise InputError(
                f"prompts.system is {system!r}, but model {self.name!r} is used without a chat template; "
                "leave system unset"
            )
        return self._token_ids(text, self._tokenize) or self.bos

    def render_messages(self, messages: Sequence[Mapping[str, Any]], *, continue_last: bool = False) -> str:
        """The text of a chat of several messages, see `ChatTemplate.render_messages`.

        Raises:
            InputError: the model is used without a chat template, or the template refuses a message.
        """
        if self._template is None:
            raise InputError(
                f"model {self.name!r} is used without a chat template, so messages cannot be rendered; leave "
                "out the chat template, or use an instruction-tuned model with model.prompt_format=chat"
            )
        return self._template.render_messages(messages, continue_last=continue_last)

    def encode_suffix(self, text: str) -> tuple[int, ...]:
        """Token ids of a text that continues a context, without chat template and special tokens.

        The text of a context with these tokens is the text of the context followed by `text`.

        Raises:
            InputError: the tokenizer cannot read the text, or does not fit the model.
        """
        return self._token_ids(text, self._detokenizer.encode)

    def _tokenize(self, text: str, *, add_special_tokens: bool = True) -> Sequence[int]:
        return self.tokenizer(text, add_special_tokens=add_special_tokens).input_ids

    def _token_ids(self, text: str, encode: Callable[[str], Sequence[int]]) -> tuple[int, ...]:
        return token_ids(encode, text, self.tokenizer, self.vocab_size, self.name)

    def decode(self, tokens: Sequence[int]) -> str:
        """Convert the ids of new tokens to text, without special tokens.

        The text of a context with these tokens is the text of the context followed by the returned text. So
        the returned text can begin with a space.
        """
        return self._detokenizer.decode(tokens)

    def piece(self, token: int) -> str:
        """The text of one token as it stands inside a text, with its leading space.

        Special tokens are shown by name. A token that holds only some bytes of a character is shown as
        \N{REPLACEMENT CHARACTER}.
        """
        return self._detokenizer.piece(token)

    @cached_property
    def _detokenizer(self) -> Detokenizer:
        return Detokenizer(self.tokenizer)

    @property
    def vocabulary(self) -> dict[str, int]:
        """All tokens of the tokenizer: token -> id. Models with equal vocabularies can guide each other."""
        return self.tokenizer.get_vocab()

"""The texts of lm-eval's tasks as token ids, as in lm-eval's own class for transformers models, `HFLM`."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from typing import Any

from lm_eval.api.model import TemplateLM
from lm_eval.models.utils import has_bos_prefix, resolve_max_length

from cfg_lab.errors import InputError
from cfg_lab.integrations.checks import check_whole
from cfg_lab.models import LanguageModel
from cfg_lab.study.pairs import Pair, PromptContext

_logger = logging.getLogger(__name__)

Messages = Sequence[Mapping[str, Any]]
"""The messages of a chat, each with "role" and "content"."""


class TokenizingModel(TemplateLM):
    """The part of an lm-eval model that makes contexts and continuations of texts. It loads no weights.

    Args:
        model: the language model.
        max_length, add_bos_token, prefix_token_id: see `cfg_lab.integrations.lm_eval.CfgLabModel`.

    Raises:
        InputError: the model has no tokenizer, or an argument is wrong.
    """

    def __init__(
        self, model: LanguageModel, max_length: int | None, add_bos_token: bool | None, prefix: int | None
    ) -> None:
        super().__init__()
        if model.tokenizer is None:
            raise InputError(f"model {model.name!r} has no tokenizer, but lm-eval's tasks are texts")
        self.model = model
        self.tokenizer: Any = model.tokenizer
        self.backend = "seq2seq" if model.start else "causal"
        longest = min(resolve_max_length(model.config, self.tokenizer), model.context_length)
        self.max_length: int = longest if max_length is None else max_length
        check_whole("max_length", self.max_length, 1, longest)
        if not isinstance(add_bos_token, bool | None):
            raise InputError(f"add_bos_token must be true, false or null, got {add_bos_token!r}")
        self.add_bos_token = add_bos_token
        self._prefix = model.bos[0] if prefix is None else prefix
        check_whole("prefix_token_id", self._prefix, 0, model.vocab_size - 1)
        self._chats: dict[str, Messages] = {}
        """The messages of every rendered chat, by its text without whitespace at the end."""

    @property
    def eot_token_id(self) -> int:
        """The end-of-sequence token."""
        return self.tokenizer.eos_token_id

    @property
    def prefix_token_id(self) -> int:
        """The token that stands for an empty context."""
        return self._prefix

    @property
    def tokenizer_name(self) -> str:
        """Name of the tokenizer in the names of lm-eval's cached requests."""
        return self.model.name.replace("/", "__")

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **kwargs: Any) -> list[int]:
        """Token ids of a text. A text that begins with the prefix token gets no other special tokens."""
        if add_special_tokens is None:
            is_complete = has_bos_prefix(string, self.tokenizer.decode(self.prefix_token_id))
            add_special_tokens = False if is_complete else self.add_bos_token
        special = {} if add_special_tokens is None else {"add_special_tokens": add_special_tokens}
        return self.tokenizer.encode(string, **special)

    def apply_chat_template(
        self, chat_history: list[dict[str, str]], add_generation_prompt: bool = True
    ) -> str:
        """The text of a chat, by the chat template of the model.

        Args:
            chat_history: the messages, each with "role" and "content".
            add_generation_prompt: False if the last message is the beginning of the answer.

        Raises:
            InputError: the model has no chat template, or the template refuses a message.
        """
        text = self.model.render_messages(chat_history, continue_last=not add_generation_prompt)
        self._chats[text.rstrip()] = chat_history
        return text

    def pair(self, context: str, continuation: str) -> Pair:
        """A context and a continuation, split into tokens and truncated as by lm-eval.

        Whitespace at the end of the context belongs to the continuation. Both texts are tokenised jointly. If
        they are too long, tokens on the left of the context are left out.

        Raises:
            InputError: the continuation has no tokens, or more than `max_length`.
        """
        return self.pair_of_tokens(context, *self.token_ids(context, continuation))

    def token_ids(self, context: str, continuation: str) -> tuple[list[int], list[int]]:
        """The token ids of a context and a continuation, before truncation.

        An empty context has the prefix token, unless the continuation itself begins with it.
        """
        if context:
            return self._encode_pair(context, continuation)
        tokens = self.tok_encode(continuation, add_special_tokens=False)
        if tokens[:1] == [self.prefix_token_id]:
            return tokens[:1], tokens[1:]
        return [self.prefix_token_id], tokens

    def pair_of_tokens(self, text: str | None, context: Sequence[int], continuation: Sequence[int]) -> Pair:
        """The pair with given token ids, truncated to `max_length`.

        Args:
            text: the text of the context. None means that it is to be decoded from the token ids.
            context, continuation: the token ids.

        Raises:
            InputError: the continuation has no tokens, or more than `max_length`.
        """
        if text is None:
            text = self._text_of(context)
        if not 1 <= len(continuation) <= self.max_length:
            raise InputError(
                f"a continuation must have 1 to {self.max_length} tokens (max_length), got "
                f"{len(continuation)} after the context {_end(text)}"
            )
        # The last token of the continuation is not read, so there is room for one token more. An encoder
        # reads the context alone.
        room = self.max_length if self.model.start else self.max_length + 1 - len(continuation)
        return Pair(self.context(text.rstrip(), context, room), tuple(continuation))

    def context(self, text: str, ids: Sequence[int], room: int) -> PromptContext:
        """A context, of which the last `room` tokens are kept.

        Args:
            text: the text of the context.
            ids: the token ids of the text.
            room: largest number of tokens.
        """
        messages = self._chats.get(text.rstrip())
        kept = ids[-room:]
        if len(kept) < len(ids):
            _logger.warning("a context of %d tokens is truncated from the left to %d", len(ids), len(kept))
        if messages is not None:
            prompt = messages[_last_of_user(messages)]["content"]
        else:
            prompt = text if len(kept) == len(ids) else self._text_of(kept)

        def encode(other_prompt: str) -> list[int]:
            """Token ids of the context with another prompt."""
            if messages is None and not any(token in text[1:] for token in self.model.special_tokens):
                return self.tok_encode(other_prompt)
            if messages is None or len(kept) < len(ids):
                problem = "its messages are not known" if messages is None else "it exceeds max_length"
                raise InputError(
                    f"these negatives have another prompt in the chat {_end(text)}, but {problem}; use "
                    "negatives=last_token, bos or suffix, or let lm-eval apply the chat template to shorter "
                    "prompts, without cached requests"
                )
            chat = _with_prompt(messages, other_prompt)
            rendered = self.model.render_messages(chat, continue_last=chat[-1]["role"] == "assistant")
            # `text` has lost its whitespace at the end where it belongs to the continuation.
            return self.tok_encode(rendered if text != text.rstrip() else rendered.rstrip())

        return PromptContext(ids=tuple(kept), text=prompt, encode=encode, chat=messages is not None)

    def _text_of(self, ids: Sequence[int]) -> str:
        """The text of a context. The prefix token alone is an empty context."""
        if list(ids) == [self.prefix_token_id]:
            return ""
        return self.tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


def _last_of_user(messages: Messages) -> int:
    """The index of the user's last message, or of the last message if none is the user's."""
    numbers = (number for number, message in enumerate(messages) if message["role"] == "user")
    return max(numbers, default=len(messages) - 1)


def _with_prompt(messages: Messages, prompt: str) -> list[Mapping[str, Any]]:
    """A chat with another last message of the user.

    With an empty prompt only the system message and the beginning of the answer remain. The messages between
    them are few-shot examples, which are part of the prompt where no chat template is used.
    """
    number = _last_of_user(messages)
    before = [message for message in messages[:number] if prompt or message["role"] == "system"]
    return [*before, {**messages[number], "content": prompt}, *messages[number + 1 :]]


def _end(text: str) -> str:
    """The end of a text, for messages of errors."""
    return repr(f"…{text[-40:]}" if len(text) > 40 else text)

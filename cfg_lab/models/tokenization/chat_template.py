"""Chat templates: Jinja templates of tokenizers that make one text of a system message and a prompt."""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, cast

from transformers.utils import chat_template_utils

from cfg_lab.errors import InputError, errors_of_libraries

TODAY = datetime(2024, 7, 26)
"""The date that every template is told as today's date.

Some templates write the date into the system message. With the real date, a study would have other texts
every day. This date is the one that templates of Llama 3 use where the date is not known.
"""

_MADE_BY_RENDERING = {"messages", "add_generation_prompt"}
"""Variables of templates that `ChatTemplate.render` sets."""


@dataclass(frozen=True, kw_only=True)
class ChatTemplate:
    """A chat template with its arguments.

    Attributes:
        model: name of the model, for messages of errors.
        tokenizer: the tokenizer that the template belongs to.
        source: the template, in Jinja.
        arguments: values for variables that the template reads, such as {"enable_thinking": False}.

    Raises:
        InputError: the template is not valid Jinja, or does not read a variable of `arguments`.
    """

    model: str
    tokenizer: Any
    source: str
    arguments: Mapping[str, Any] = field(default_factory=dict[str, Any])

    def __post_init__(self) -> None:
        with errors_of_libraries(f"the chat template of model {self.model!r} is broken"):
            variables = cast("Any", chat_template_utils)._get_template_variables(self.source)
        known = set(variables) - _MADE_BY_RENDERING
        if unknown := sorted(set(self.arguments) - known):
            raise InputError(
                f"model.template_arguments has {', '.join(unknown)}, but the chat template of model "
                f"{self.model!r} reads only {', '.join(sorted(known)) or 'the messages'}"
            )

    def render(self, text: str, system: str | None = None) -> str:
        """The text that the model reads: the messages, and the beginning of the model's answer.

        Args:
            text: the user's message.
            system: the system message; None is the template's default.

        Raises:
            InputError: the template refuses a message, or leaves it out.
        """
        left_out = ""
        for as_parts in (False, True):  # templates of multimodal models can read a message as a list of parts
            rendered = self._render(text, system, as_parts)
            # A system message can have an effect without being shown, such as the command /no_think. So what
            # is not shown is left out only if the text without it is the same.
            if text.strip() not in rendered and rendered == self._render("", system, as_parts):
                left_out = f"prompt {text!r}"
            elif system and system.strip() not in rendered and rendered == self._render(text, None, as_parts):
                left_out = f"system message {system!r}"
            else:
                return rendered
        raise InputError(f"the chat template of model {self.model!r} leaves out the {left_out}")

    def _render(self, text: str, system: str | None, as_parts: bool) -> str:
        contents = {"system": system, "user": text}
        messages = [
            {"role": role, "content": [{"type": "text", "text": content}] if as_parts else content}
            for role, content in contents.items()
            if content is not None
        ]
        subject = "prompt" if system is None else f"prompt with system message {system!r}"
        return self.render_messages(messages, subject=subject)

    def render_messages(
        self, messages: Sequence[Mapping[str, Any]], *, continue_last: bool = False, subject: str = "messages"
    ) -> str:
        """The text that the model reads: some messages, and the beginning of the model's answer.

        Args:
            messages: the messages as transformers takes them: {"role": "user", "content": "…"}.
            continue_last: the last message is the beginning of the model's answer.
            subject: the messages in words, for the message of an error.

        Raises:
            InputError: the template refuses a message.
        """
        with (
            errors_of_libraries(f"the chat template of model {self.model!r} refuses the {subject}"),
            _fixed_date(),
        ):
            return self.tokenizer.apply_chat_template(
                list(messages),
                chat_template=self.source,
                add_generation_prompt=not continue_last,
                continue_final_message=continue_last,
                tokenize=False,
                **self.arguments,
            )


def find_template(
    tokenizer: Any, model: str, choice: str | None, arguments: Mapping[str, Any] | None
) -> ChatTemplate | None:
    """The chat template to use; None if there is none.

    Args:
        tokenizer: a transformers tokenizer; None uses no template.
        model: name of the model, for messages of errors.
        choice: name of a template of the tokenizer, or path of a file with a template in Jinja. None is the
            tokenizer's only template, or the one that it names "default".
        arguments: values for variables that the template reads.

    Raises:
        InputError: there is no template `choice`; or it is None, and the tokenizer has several templates
            without a default; or the template cannot be used with the arguments.
    """
    templates: Any = getattr(tokenizer, "chat_template", None) or {}
    if isinstance(templates, str):
        templates = {"default": templates}
    source: str | None = templates.get("default" if choice is None else choice)
    if source is None and choice is not None and tokenizer is not None:
        with errors_of_libraries(
            f"model.chat_template is {choice!r}, which is neither a file nor a template of model {model!r} "
            f"({', '.join(sorted(templates)) or 'it has none'})"
        ):
            source = Path(choice).read_text(encoding="utf-8")
    if source is not None:
        return ChatTemplate(model=model, tokenizer=tokenizer, source=source, arguments=arguments or {})
    if templates:
        raise InputError(
            f"model {model!r} has the chat templates {', '.join(sorted(templates))} and no default; "
            "choose one with model.chat_template=…, or set model.prompt_format=plain"
        )
    for key, value in {"chat_template": choice, "template_arguments": arguments}.items():
        if value:
            raise InputError(
                f"model.{key} is {value!r}, but model {model!r} is used without a chat template; "
                f"set model.{key}=null"
            )
    return None


class _FixedDate(datetime):
    """A datetime whose `now` is always `TODAY`."""

    @classmethod
    def now(cls, tz: Any = None) -> datetime:  # pyright: ignore[reportIncompatibleMethodOverride]
        return TODAY


@contextmanager
def _fixed_date() -> Generator[None]:
    """Let templates read `TODAY` as the date in a `with` block.

    transformers defines the function `strftime_now` of templates, and accepts no function in its place.
    """
    module: Any = chat_template_utils
    real = module.datetime
    module.datetime = _FixedDate
    try:
        yield
    finally:
        module.datetime = real

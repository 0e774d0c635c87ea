"""Rendering a conversation with a chat template, and telling the assistant's tokens from the rest."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from geonb.errors import InputError
from geonb.records import plain

# for tokenizers without a template of their own: plain role headings (convention, named in the plan)
PLAIN_TEMPLATE = (
    "{% for message in messages %}{{ message['role'] + ': ' + message['content'] }}"
    "{% if message['role'] == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
)


class CannotRender(InputError):
    """A chat template that cannot render these messages; `reason` is jinja's or the template's own."""

    def __init__(self, reason: object) -> None:
        self.reason = plain(" ".join(str(reason).split())[:160]) or "it does not say why"
        super().__init__(
            f'the chat template cannot render these messages ({self.reason}): mend it, or give {{"text"}} records.'
        )


def template_source(tokenizer: Any) -> str:
    """Whose template renders conversations: the tokenizer's or geonb's plain one."""
    return (
        "the tokenizer's chat template" if tokenizer.chat_template else "plain role headings (no template of its own)"
    )


def render(tokenizer: Any, messages: Sequence[dict[str, str]], *, prompt: bool = False) -> str:
    """The conversation as text; with `prompt`, up to where the assistant starts to write.

    It is the text of transformers' `apply_chat_template`, made under a budget of work. Raises `CannotRender` (an
    `InputError`) for whatever the template raises, and for one that asks for more work than a conversation needs.
    """
    from geonb.data.sandbox import render as rendered

    try:
        if not messages:
            raise ValueError("there is no message")
        template = tokenizer.get_chat_template(None if tokenizer.chat_template else PLAIN_TEMPLATE)
        if not isinstance(template, str):
            raise ValueError(f"it is a {type(template).__name__} and no text")
        special = {
            name: token if isinstance(token, list) else str(token)
            for name, token in tokenizer.special_tokens_map.items()
        }
        return rendered(
            template,
            messages=[dict(message) for message in messages],
            tools=None,
            documents=None,
            add_generation_prompt=prompt,
            **special,
        )
    except Exception as error:  # a template raises whatever it likes
        raise CannotRender(error) from None


def assistant_spans(tokenizer: Any, messages: Sequence[dict[str, str]]) -> tuple[str, list[tuple[int, int]]]:
    """The rendered text and the character spans that the assistant writes, end token included.

    A span runs from the end of the prompt (everything before the turn, with the generation prompt) to the end of the
    text rendered up to and including the turn. Templates that rewrite earlier turns break that prefix property and are
    refused with the reason.
    """
    whole = render(tokenizer, messages)
    spans = []
    for position, message in enumerate(messages):
        if message["role"] != "assistant":
            continue
        before = render(tokenizer, messages[:position], prompt=True) if position else ""
        after = render(tokenizer, messages[: position + 1])
        # some templates end a conversation with white space that a following turn does not keep
        after = after if whole.startswith(after) else after.rstrip()
        if not whole.startswith(before) or not whole.startswith(after) or len(after) < len(before):
            before = _without_generation_prompt(tokenizer, messages[:position], whole)
            if before is None or not whole.startswith(after):
                raise InputError(
                    "the chat template rewrites earlier turns, so the assistant's tokens cannot be told apart: use a "
                    'template that only appends, or give {"text"} records.'
                )
        spans.append((len(before), len(after)))
    return whole, spans


def _without_generation_prompt(tokenizer: Any, messages: Sequence[dict[str, str]], whole: str) -> str | None:
    """A template whose generation prompt differs from a finished turn's heading still appends turn by turn."""
    text = render(tokenizer, messages) if messages else ""
    return text if whole.startswith(text) else None

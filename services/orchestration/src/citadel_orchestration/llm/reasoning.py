"""Reasoning that a model writes into its answer, between tags."""

import re

_KINDS = r"think|thinking|thought|reasoning|seed:think"
OPENING = re.compile(
    rf"<(?P<tag>{_KINDS})(?:\s[^<>]{{0,80}})?>|(?P<mistral>\[THINK\])|(?P<kimi>◁think▷)"
    r"|(?P<harmony><\|channel\|>analysis<\|message\|>)",
    re.IGNORECASE,
)
CLOSING = re.compile(
    rf"</(?:{_KINDS})\s*>|\[/THINK\]|◁/think▷|(?:<\|end\|>)?(?:<\|start\|>assistant)?<\|channel\|>final<\|message\|>",
    re.IGNORECASE,
)
_CLOSING_LINE = re.compile(rf"^[ \t]*(?:{CLOSING.pattern})[ \t]*$", re.IGNORECASE | re.MULTILINE)


def split(text: str) -> tuple[str, str]:
    """Return the reasoning at the beginning of an answer, and the answer; the text is unchanged if it has none.

    Reasoning that is not closed lasts to the end. Where the model's template has opened it, only its end is in the
    text, on a line of its own.
    """
    reasoning: list[str] = []
    while opened := OPENING.match(text, len(text) - len(text.lstrip())):
        closed = CLOSING.search(text, opened.end())
        reasoning.append(text[opened.end() : closed.start() if closed else len(text)].strip())
        text = text[closed.end() :] if closed else ""
    if not reasoning and (closed := _CLOSING_LINE.search(text)):
        return text[: closed.start()].strip(), text[closed.end() :].strip()
    return ("\n".join(reasoning), text.strip()) if reasoning else ("", text)

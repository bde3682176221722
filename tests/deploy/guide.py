"""The commands and files of compose/README.md, which tests run and read as they are printed."""

import re

from tests.deploy.engine import ROOT

_BLOCKS = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMANDS = re.compile(r"^\$ (.*?)(?=^\$ |\Z)", re.DOTALL | re.MULTILINE)


_FILES = re.compile(r"^```yaml\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands_of(section: str) -> list[list[str]]:
    """Return the commands of a section, block by block."""
    return [
        [re.sub(r"^> ", "", command, flags=re.MULTILINE).strip() for command in _COMMANDS.findall(block)]
        for block in _BLOCKS.findall(_text_of(section))
    ]


def override_of(section: str) -> str:
    """Return the text of the `compose.override.yaml` that a section shows."""
    (found,) = _FILES.findall(_text_of(section))
    return str(found)


def _text_of(section: str) -> str:
    """Return the text below a heading, up to the next heading of its level or above."""
    guide = (ROOT / "compose" / "README.md").read_text(encoding="utf-8")
    level, text = re.split(rf"^(##+) {re.escape(section)}\n", guide, flags=re.MULTILINE)[1:]
    return re.split(rf"^#{{2,{len(level)}}} ", text, flags=re.MULTILINE)[0]

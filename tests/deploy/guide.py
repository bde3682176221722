"""The commands of compose/README.md, which tests run as they are printed."""

import re

from tests.deploy.engine import ROOT

_BLOCKS = re.compile(r"^```console\n(.*?)^```", re.DOTALL | re.MULTILINE)
_COMMANDS = re.compile(r"^\$ (.*?)(?=^\$ |\Z)", re.DOTALL | re.MULTILINE)


def commands_of(section: str) -> list[list[str]]:
    """Return the commands of a section, block by block."""
    guide = (ROOT / "compose" / "README.md").read_text(encoding="utf-8")
    text = guide.split(f"## {section}\n")[1].split("\n## ")[0]
    return [
        [re.sub(r"^> ", "", command, flags=re.MULTILINE).strip() for command in _COMMANDS.findall(block)]
        for block in _BLOCKS.findall(text)
    ]

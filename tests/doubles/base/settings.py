"""Settings of doubles as dataclasses whose fields are flags of the command line too."""

import argparse
from dataclasses import dataclass, field, fields
from typing import Any


def flag(default: Any, text: str) -> Any:
    """Return a field with its explanation."""
    return field(default=default, metadata={"help": text})


@dataclass(frozen=True, kw_only=True, slots=True)
class NoSettings:
    """Settings of a double that has none."""


def arguments(settings: Any) -> list[str]:
    """Return settings as arguments of the command line."""
    return [f"--{item.name.replace('_', '-')}={_plain(getattr(settings, item.name))}" for item in fields(settings)]


def add_flags(parser: argparse.ArgumentParser, kind: Any) -> None:
    """Add a flag for each field of a class of settings."""
    for item in fields(kind):
        parse: Any = _names if isinstance(item.default, tuple) else type(item.default)
        name = f"--{item.name.replace('_', '-')}"
        parser.add_argument(name, type=parse, default=item.default, help=item.metadata["help"])


def _plain(value: Any) -> str:
    return ",".join(value) if isinstance(value, tuple) else str(value)


def _names(value: str) -> tuple[str, ...]:
    return tuple(name for name in value.split(",") if name)

"""One expression, compiled once and evaluated often."""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from citadel_orchestration.definition.expressions import syntax, values
from citadel_orchestration.definition.expressions.compiler import Compiler
from citadel_orchestration.definition.expressions.evaluation import Failed, Frame, Malformed, Meter, Node
from citadel_orchestration.definition.expressions.syntax import Key, Uses, of_path

SHORT = 256
"""Characters up to which an expression is usual: many such are kept, and few longer ones, so that memory is bounded."""
KEPT_SHORT, KEPT_LONG = 4096, 128


@dataclass(frozen=True, kw_only=True)
class Expression:
    """One CEL expression.

    Attributes:
        text: As written.
        uses: What it mentions.
        gives: Kind of its value (`bool`, `int`, `string`…) where that can be told, else empty.
        path: Its root name and keys, where it is nothing but a path.
        run: Evaluates it.
    """

    text: str
    uses: Uses
    gives: str
    path: tuple[str, tuple[Key, ...]] | None
    run: Node

    def evaluate(self, scope: Mapping[str, Any], meter: Meter) -> Any:
        """Its value as JSON.

        Raises:
            Failed: It has none.
            Exhausted: It costs too much.
        """
        try:
            value = self.run(Frame(scope, meter))
            return value if self.path is not None else values.to_json(value, meter)
        except RecursionError:
            raise Failed("its values are nested too deeply") from None


def compiled(text: str) -> Expression:
    """The expression of a text without `${{` and `}}`; one that was compiled before is reused.

    Raises:
        Malformed: It is none.
    """
    return _short(text) if len(text) <= SHORT else _long(text)


def _compiled(text: str) -> Expression:
    plain = syntax.path(text)
    if plain is not None and len(text) <= syntax.MAX_LENGTH and plain[0] not in ("true", "false", "null"):
        return Expression(text=text, uses=of_path(*plain), gives="", path=plain, run=_along(*plain))
    compiler = Compiler()
    try:
        code = compiler.code(syntax.tree(text))
    except RecursionError:
        raise Malformed("expression_too_large", "the expression is nested too deeply") from None
    return Expression(text=text, uses=compiler.uses, gives=code.gives, path=None, run=code.run)


_short = functools.lru_cache(maxsize=KEPT_SHORT)(_compiled)
_long = functools.lru_cache(maxsize=KEPT_LONG)(_compiled)


def _along(root: str, keys: tuple[Key, ...]) -> Node:
    """Follows a path, without the detour over syntax trees."""
    steps = [(values.select if key.dotted else values.index, key.name) for key in keys]

    def run(frame: Frame) -> Any:
        value = frame.root(root)
        for take, name in steps:
            value = take(value, name)  # type: ignore[arg-type]  # dotted names are strings
        return value

    return run

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
"""Characters of a short expression. Many short ones are kept compiled, few longer ones: that bounds the memory."""
KEPT_SHORT, KEPT_LONG = 4096, 128


@dataclass(frozen=True, kw_only=True)
class Expression:
    """One CEL expression.

    Attributes:
        text: As written.
        uses: What it mentions.
        gives: Kind of its value (`bool`, `int`, `string`…) ; empty if that is not known.
        path: Its root name and keys, if it is nothing but a path.
        run: Evaluates it.
    """

    text: str
    uses: Uses
    gives: str
    path: tuple[str, tuple[Key, ...]] | None
    run: Node

    def evaluate(self, scope: Mapping[str, Any], meter: Meter) -> Any:
        """Return its value as JSON.

        Raises:
            Failed: It has no value.
            Exhausted: It costs too much.
        """
        try:
            value = self.run(Frame(scope, meter))
            return value if self.path is not None else values.to_json(value, meter)
        except RecursionError:
            raise Failed("its values are nested too deeply") from None


def compiled(text: str) -> Expression:
    """Return the expression of a text without `${{` and `}}`, compiled now or before.

    Raises:
        Malformed: It is not a valid expression.
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
    """Return the expression of a path; no syntax tree is needed."""
    steps = [(values.select if key.dotted else values.index, key.name) for key in keys]

    def run(frame: Frame) -> Any:
        value = frame.root(root)
        for take, name in steps:
            value = take(value, name)  # type: ignore[arg-type]  # dotted names are strings
        return value

    return run

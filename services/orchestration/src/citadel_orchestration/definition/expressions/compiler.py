"""Expressions: compiled once, from CEL's syntax tree to functions, and evaluated often.

Chains of one operator, and paths of any length, are evaluated in a loop; only true nesting costs stack, and its
depth is limited.
"""

import functools
import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from lark import Token

from citadel_orchestration.definition.expressions import operators, syntax, values
from citadel_orchestration.definition.expressions.evaluation import Failed, Frame, Malformed, Meter, Node
from citadel_orchestration.definition.expressions.functions import FUNCTIONS, Function
from citadel_orchestration.definition.expressions.syntax import Key, Syntax, Uses, decoded, of_path

MAX_NESTING = 40
_PASSING = frozenset(
    {"expr", "conditionalor", "conditionaland", "relation", "addition", "multiplication", "unary", "member"}
)
_POSTFIX = frozenset({"member_dot", "member_dot_arg", "member_index"})
SHORT = 256
"""Characters of a short expression. Many short ones are kept compiled, few longer ones: that bounds the memory."""
KEPT_SHORT, KEPT_LONG = 4096, 128


@dataclass(frozen=True, kw_only=True)
class Code:
    """A compiled part of an expression.

    Attributes:
        run: Evaluates it.
        gives: Kind of its value; empty if that is not known.
        constant: Its value, if it is a literal string or int.
    """

    run: Node
    gives: str = ""
    constant: str | int | None = None


class Postfix(NamedTuple):
    """A suffix of a value: `.name`, `[index]` or `.method(…)`."""

    run: Callable[[Any, Frame], Any]
    key: Key | None
    gives: str


class Compiler:
    """Compiler of one expression; collects what the expression mentions."""

    def __init__(self) -> None:
        self.uses = Uses()
        self._bound: dict[str, str] = {}
        self._slots = 0
        self._depth = 0
        self._noting = True

    def code(self, tree: Syntax) -> Code:
        """Return the code of a node.

        Raises:
            Malformed: It is not possible here, or is nested too deeply.
        """
        tree = _inner(tree)
        self._depth += 1
        if self._depth > MAX_NESTING:
            raise Malformed("expression_too_large", f"an expression may be nested {MAX_NESTING} deep at most")
        code = self._of(tree)
        self._depth -= 1
        return code

    def _of(self, tree: Syntax) -> Code:
        if tree.data == "expr":
            return self._choice(tree)
        if tree.data in ("conditionalor", "conditionaland"):
            operands = [self.code(operand).run for operand in _operands(tree)]
            return Code(run=operators.logic(operands, absorbing=tree.data == "conditionalor"), gives="bool")
        if tree.data in ("relation", "addition", "multiplication"):
            return self._binary(tree)
        if tree.data == "unary":
            return self._unary(tree)
        return self._chain(tree)

    def _choice(self, tree: Syntax) -> Code:
        condition, yes, no = (self.code(child) for child in tree.children)
        gives = yes.gives if yes.gives == no.gives else ""
        return Code(run=operators.choice(condition.run, yes.run, no.run), gives=gives)

    def _binary(self, tree: Syntax) -> Code:
        first, rest = _spine(tree)
        start = self.code(first)
        steps = [(operators.BINARY[sign], self.code(right)) for sign, right in rest]
        gives = "bool" if tree.data == "relation" else (start.gives or steps[0][1].gives or "no bool")
        return Code(run=operators.fold(start.run, [(apply, right.run) for apply, right in steps]), gives=gives)

    def _unary(self, tree: Syntax) -> Code:
        signs = []
        while tree.data == "unary" and len(tree.children) == 2:
            signs.append(str(tree.children[0].data))
            tree = _inner(tree.children[1])
        value = self.code(tree)
        run = operators.prefix(value.run, list(reversed(signs)))
        return Code(run=run, gives="bool" if signs[0] == "unary_not" else value.gives or "no bool")

    def _chain(self, tree: Syntax) -> Code:
        links: list[Syntax] = []
        while tree.data in _POSTFIX:
            links.append(tree)
            tree = _inner(tree.children[0])
        links.reverse()
        root = self._root(tree)
        if root is None:
            base, postfixes = self._primary(tree), self._postfixes(links)
        else:
            postfixes = self._postfixes(links)
            base = self._name(root, postfixes)
        if not postfixes:
            return base
        return Code(run=operators.follow(base.run, [link.run for link in postfixes]), gives=postfixes[-1].gives)

    def _root(self, tree: Syntax) -> str | None:
        child = tree.children[0] if tree.data == "primary" else tree
        return str(child.children[0]) if not isinstance(child, Token) and child.data == "ident" else None

    def _name(self, name: str, postfixes: list[Postfix]) -> Code:
        if name in self._bound:
            slot = self._bound[name]
            return Code(run=lambda frame: frame.bound[slot])
        if self._noting:
            keys = itertools.takewhile(lambda key: key is not None, (postfix.key for postfix in postfixes))
            self.uses |= of_path(name, tuple(key for key in keys if key))
        return Code(run=lambda frame: frame.root(name))

    def _postfixes(self, links: list[Syntax]) -> list[Postfix]:
        return [self._postfix(link) for link in links]

    def _postfix(self, link: Syntax) -> Postfix:
        if link.data == "member_index":
            code = self.code(link.children[1])
            key = Key(name=code.constant, dotted=False) if code.constant is not None else None
            return Postfix(operators.indexed(code.run), key, "")
        name = str(link.children[1])
        if link.data == "member_dot":
            return Postfix(lambda value, _frame: values.select(value, name), Key(name=name, dotted=True), "")
        arguments = link.children[2].children if len(link.children) > 2 else []
        if name in operators.MACROS:
            return self._macro(name, arguments)
        return self._method(name, arguments)

    def _macro(self, name: str, arguments: list[Syntax]) -> Postfix:
        build, counts, gives = operators.MACROS[name]
        variable = self._root(_inner(arguments[0])) if arguments else None
        if len(arguments) not in counts or variable is None:
            raise Malformed("bad_call", f"{name} needs a name and an expression: {name}(x, …)")
        self._slots += 1
        slot, outer = f"{variable}#{self._slots}", self._bound
        self._bound = {**outer, variable: slot}
        bodies = [self.code(argument).run for argument in arguments[1:]]
        self._bound = outer
        return Postfix(build(slot, bodies), None, gives)

    def _method(self, name: str, arguments: list[Syntax]) -> Postfix:
        function = _function(name, len(arguments) + 1)
        if not function.method:
            raise Malformed("bad_call", f"write {name}(x), not x.{name}()")
        codes = [self.code(argument).run for argument in arguments]
        return Postfix(operators.method(function.call, codes), None, function.gives)

    def _primary(self, tree: Syntax) -> Code:
        child: Any = tree.children[0] if tree.data == "primary" else tree
        if child.data == "literal":
            return _literal(child.children[0])
        if child.data == "paren_expr":
            return self.code(child.children[0])
        if child.data == "list_lit":
            elements = child.children[0].children if child.children else []
            return Code(run=operators.listed([self.code(element).run for element in elements]), gives="list")
        if child.data == "map_lit":
            entries = [self.code(entry).run for entry in (child.children[0].children if child.children else [])]
            return Code(run=operators.mapped(entries[::2], entries[1::2]), gives="map")
        if child.data == "ident_arg":
            return self._call(str(child.children[0]), child.children[1].children if len(child.children) > 1 else [])
        raise Malformed("expression_syntax", "messages and absolute names are not possible in expressions")

    def _call(self, name: str, arguments: list[Syntax]) -> Code:
        if name == "has":
            return self._has(arguments)
        function = _function(name, len(arguments))
        if not function.free:
            raise Malformed("bad_call", f"write x.{name}(…), not {name}(x, …)")
        codes = [self.code(argument).run for argument in arguments]
        return Code(run=operators.call(function.call, codes), gives=function.gives)

    def _has(self, arguments: list[Syntax]) -> Code:
        """Return the code of `has(x.name)`; the mention is that of the whole path, the evaluated map is `x`."""
        tree = _inner(arguments[0]) if len(arguments) == 1 else None
        if tree is None or tree.data != "member_dot":
            raise Malformed("bad_call", "has() needs a field: has(x.name)")
        self.code(tree)
        noting, self._noting = self._noting, False
        holder = self.code(tree.children[0])
        self._noting = noting
        return Code(run=operators.has(holder.run, str(tree.children[1])), gives="bool")


def _inner(tree: Syntax) -> Syntax:
    """Return the first node below that is more than a wrapper of another."""
    while tree.data in _PASSING and len(tree.children) == 1 and not isinstance(tree.children[0], Token):
        tree = tree.children[0]
    return tree


def _operands(tree: Syntax) -> list[Syntax]:
    """Return the operands of a chain of one logical operator, left to right."""
    operands, kind = [], tree.data
    while tree.data == kind and len(tree.children) == 2:
        operands.append(tree.children[1])
        tree = tree.children[0]
    return [tree, *reversed(operands)]


def _spine(tree: Syntax) -> tuple[Syntax, list[tuple[str, Syntax]]]:
    """Return the leftmost operand of a chain of operators, and each operator with its right operand."""
    rest, kind = [], tree.data
    while tree.data == kind and len(tree.children) == 2:
        sign = tree.children[0]
        rest.append((str(sign.data), tree.children[1]))
        tree = sign.children[0]
    rest.reverse()
    return tree, rest


def _function(name: str, arguments: int) -> Function:
    function = FUNCTIONS.get(name)
    if function is None:
        raise Malformed("unknown_function", f"there is no function `{name[:100]}`")
    if arguments not in function.arguments:
        raise Malformed("bad_call", f"{name} does not take {arguments} arguments")
    return function


def _literal(token: Token) -> Code:
    value, gives = decoded(token)
    constant = value if gives in ("string", "int") else None
    return Code(run=lambda _frame: value, gives=gives, constant=constant)


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

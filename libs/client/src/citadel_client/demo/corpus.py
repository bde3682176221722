"""The demo's texts: docstrings of the standard library of this machine's Python."""

import ast
import hashlib
import importlib
import inspect
import sysconfig
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

SIZE = 2400
MAX_CHARS = 320
MIN_CHARS = 24
LEFT_OUT = frozenset(
    {
        *("__pycache__", "dist-packages", "distutils", "encodings", "ensurepip", "idlelib", "lib2to3"),
        *("pydoc_data", "site-packages", "test", "tests", "turtledemo"),
    }
)
COMPILED = (
    *("array", "atexit", "binascii", "cmath", "errno", "faulthandler", "gc", "itertools", "marshal", "math"),
    *("mmap", "select", "sys", "time", "unicodedata", "zlib"),
)
"""Modules without Python source that are safe to import; some builds lack some of them."""

Documented = ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef


@dataclass(frozen=True, kw_only=True)
class Doc:
    """One docstring.

    Attributes:
        name: Qualified name, such as `gzip.open`.
        text: Text that is embedded: the name and the beginning of the docstring.
        is_module: Whether it describes a module as a whole.
    """

    name: str
    text: str
    is_module: bool

    @property
    def summary(self) -> str:
        """First sentence of the docstring."""
        body = self.text.removeprefix(f"{self.name}: ")
        return body.split(". ", 1)[0].rstrip(".")


def collect(size: int = SIZE, progress: Callable[[int, int], None] | None = None) -> list[Doc]:
    """Return distinct docstrings, the same on each run: those of all modules, and as many others as fit.

    Args:
        size: Maximum number of docstrings.
        progress: Called with the number of files read and of all files.
    """
    found: dict[str, Doc] = {}
    files = _files()
    for done, (path, module) in enumerate(files, start=1):
        found.update((doc.text, doc) for doc in _of_file(path, module))
        if progress:
            progress(done, len(files))
    for name in COMPILED:
        found.update((doc.text, doc) for doc in _of_module(name))
    chosen = sorted(found.values(), key=_preference)[:size]
    return sorted(chosen, key=lambda doc: doc.name)


def _preference(doc: Doc) -> tuple[bool, bool, bytes]:
    """Return the sort key: modules, then functions and classes, then methods; within each by a hash, to mix modules."""
    is_member = doc.name.rpartition(".")[0].rpartition(".")[2][:1].isupper()
    return not doc.is_module, is_member, hashlib.blake2b(doc.name.encode(), digest_size=8).digest()


def _files() -> list[tuple[Path, str]]:
    root = Path(sysconfig.get_path("stdlib"))
    found = []
    for path in sorted(root.rglob("*.py")):
        inside = path.relative_to(root)
        if not LEFT_OUT.intersection(inside.parts) and not _private(inside):
            found.append((path, ".".join(inside.with_suffix("").parts).removesuffix(".__init__")))
    return found


def _private(path: Path) -> bool:
    return any(part.startswith("_") and part != "__init__.py" for part in path.parts)


def _of_file(path: Path, module: str) -> Iterator[Doc]:
    """Yield the docstrings of a file, which is parsed and not imported."""
    try:
        tree = ast.parse(path.read_bytes())
    except (SyntaxError, ValueError, OSError):
        return
    yield from _of_node(tree, module)


def _of_node(node: Documented, name: str) -> Iterator[Doc]:
    yield from _doc(name, ast.get_docstring(node), is_module=isinstance(node, ast.Module))
    if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
        return
    for child in node.body:
        if isinstance(child, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not child.name.startswith("_"):
            yield from _of_node(child, f"{name}.{child.name}")


def _of_module(name: str) -> Iterator[Doc]:
    try:
        module = importlib.import_module(name)
    except ImportError:
        return
    yield from _doc(name, inspect.getdoc(module), is_module=True)
    for member, value in sorted(vars(module).items()):
        if callable(value) and not member.startswith("_") and not isinstance(value, ModuleType):
            yield from _doc(f"{name}.{member}", inspect.getdoc(value), is_module=False)


def _doc(name: str, docstring: str | None, *, is_module: bool) -> Iterator[Doc]:
    words = " ".join((docstring or "").split())
    if len(words) < MIN_CHARS:
        return
    yield Doc(name=name, text=f"{name}: {_cropped(words)}", is_module=is_module)


def _cropped(words: str) -> str:
    """Return the beginning of a text, up to a whole word."""
    return words if len(words) <= MAX_CHARS else words[:MAX_CHARS].rsplit(" ", 1)[0]

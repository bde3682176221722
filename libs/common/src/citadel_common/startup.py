"""Quick loading of a program's modules."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused_imports() -> Iterator[None]:
    """A program's first imports, without the cyclic garbage collector; never in a process that already works.

    What modules make stays for the process's life: to look for garbage in it while they are loaded is a fifth of a
    start, and to look at it again at every full collection a pause.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

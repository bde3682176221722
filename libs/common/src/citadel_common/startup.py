"""Fast imports at a program's start."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def gc_paused_imports() -> Iterator[None]:
    """Import a program's first modules without the cyclic garbage collector.

    Never use it in a process that already works. Modules and what they make stay for the process's life: collecting
    garbage during their import takes a fifth of a start, and visiting them at every full collection costs a pause. So
    they are frozen out of the collector's sight.
    """
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        gc.enable()

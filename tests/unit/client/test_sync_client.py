"""The blocking client is generated from the one for asyncio."""

import importlib.machinery
import importlib.util
from pathlib import Path

SCRIPT = Path(__file__).parents[3] / "scripts" / "sync-client"


def generator():
    loader = importlib.machinery.SourceFileLoader("sync_client", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("sync_client", loader))
    loader.exec_module(module)
    return module


def test_the_generated_modules_are_up_to_date():
    program = generator()
    made = program.modules()
    outdated = [path.name for path, text in made.items() if not path.is_file() or path.read_text() != text]
    assert not outdated, f"{outdated}: run `make sync-client`"
    assert set((program.PACKAGE / "_sync").glob("*.py")) == made.keys()


def test_awaits_and_names_of_asyncio_are_replaced():
    source = '''"""Doc."""

import asyncio


class AsyncThing:
    async def run(self) -> int:
        async with self._lock:
            await asyncio.sleep((await self.look(f(1))).seconds)
        return await self.run_async()
'''
    assert generator().generated(source).splitlines()[1:] == [
        '"""Doc."""',
        "",
        "import time",
        "",
        "",
        "class Thing:",
        "    def run(self) -> int:",
        "        with self._lock:",
        "            time.sleep(self.look(f(1)).seconds)",
        "        return self.run()",
    ]

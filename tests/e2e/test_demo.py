"""`citadel demo` as newcomers meet it: cold, again, interrupted."""

import json
import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path

import pytest

from citadel_client.dev.processes import alive
from tests.support.disclosure import DISCLOSURES

pytestmark = [pytest.mark.local_model, pytest.mark.timeout(900)]
COMPRESSORS = ("bz2", "gzip", "lzma", "zipfile", "zlib")


@contextmanager
def demo(home: Path, *options: str):
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}
    command = [sys.executable, "-m", "citadel_client", "demo", "--home", str(home), *options]
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
    for log in (home / "logs").glob("*"):
        DISCLOSURES.search(f"{log.name} of citadel demo", log.read_bytes())


def summary(home: Path):
    with demo(home, "--json") as process:
        out, err = process.communicate()
    assert process.returncode == 0, err
    return json.loads(out), err


def test_the_demo_finds_answers_and_is_faster_from_the_cache(tmp_path):
    cold, progress = summary(tmp_path / "home")
    assert cold["texts"] >= 2000
    assert cold["first"]["cache_hits"] == 0
    assert cold["second"]["cache_hits"] == cold["texts"]
    assert "embedding: " in progress  # progress, though there is no terminal
    assert cold["stored_seconds"] > 0
    assert cold["asked_seconds"] > 0
    assert cold["about_llm"].startswith("No LLM is configured")
    names = [hit["name"] for hit in cold["answers"][0]["hits"]]
    assert "compress" in cold["answers"][0]["question"]
    assert any(name.split(".")[0] in COMPRESSORS for name in names)

    again, _ = summary(tmp_path / "home")
    assert again["first"]["cache_hits"] == again["texts"]
    assert f"{again['texts']} of {again['texts']} texts were found in the cache" in again["explanation"][0]
    assert again["already_stored"]
    assert [hit["name"] for hit in again["answers"][0]["hits"]] == names


def test_an_interrupt_leaves_no_process(tmp_path):
    home = tmp_path / "home"
    with demo(home) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("embedding: "):
                break
        pids = json.loads((home / "state.json").read_text())["pids"]
        assert {"broker", "cache", "postgres", "embeddings", "api"} <= set(pids)
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate()
    assert process.returncode == 130
    assert "Traceback" not in rest
    assert not [name for name, pid in pids.items() if alive(pid)]

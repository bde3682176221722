"""`citadel workflow`, `runs`, `batch` and `collections` as processes, against the real API and workers."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from citadel_client import Citadel
from tests.integration.api.stack import Stack, open_stack
from tests.support.fixtures import require_redis
from tests.support.postgres_server import PostgresProcess

MODEL = "nomic-embed-text"
PATIENCE = 60.0
FLOW = """\
workflow_id: shell
context: {{text: nothing}}
steps:
  - step_id: vector
    type: embedding
    for_each: {{items: [a, b, c]}}
    parameters: {{text: "${{{{ item }}}} ${{{{ context.text }}}}", model: {model}}}
output: ${{{{ size(steps.vector.output) }}}}
"""
WAITING = "steps:\n  - {step_id: w, type: wait, parameters: {signal: go, timeout: 60s}}\n"


@pytest.fixture(scope="module")
def stack(postgres_server: PostgresProcess, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    require_redis()
    with open_stack(postgres_server, tmp_path_factory.mktemp("api") / "log") as stack:
        yield stack


@pytest.fixture
def start(stack: Stack):
    """Start the command."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("CITADEL_")}

    def start(*arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "citadel_client", *map(str, arguments)],
            env=environment | {"CITADEL_API_URL": stack.api.url},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    return start


@pytest.fixture
def citadel(start):
    """Run the command and return its exit code, standard output and standard error."""

    def run(*arguments: object, given: str = "") -> tuple[int, str, str]:
        with start(*arguments) as process:
            out, err = process.communicate(given, timeout=PATIENCE)
        assert "Traceback" not in err
        return process.returncode, out, err

    return run


def test_a_workflow_is_read_from_a_file_or_standard_input(citadel, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(FLOW.format(model=MODEL))
    code, out, err = citadel("workflow", "run", file, "--set", "text=x")
    assert (code, out) == (0, "3\n"), err
    assert "vector: 3/3 items" in err
    code, out, _ = citadel("workflow", "run", "-", "--json", given=json.dumps(json_flow()))
    assert (code, json.loads(out)["output"]) == (0, 3)


def json_flow() -> dict:
    step = {"step_id": "v", "type": "embedding", "for_each": {"items": [1, 2, 3]}}
    parameters = {"text": "n ${{ item }}", "model": MODEL}
    return {"steps": [step | {"parameters": parameters}], "output": "${{ size(steps.v.output) }}"}


def test_problems_are_printed_with_their_lines(citadel, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(FLOW.format(model=MODEL).replace("type: embedding", "type: embeding"))
    code, out, _ = citadel("workflow", "validate", file)
    assert code == 2
    assert out.startswith(f"{file}:5: /steps/0/type: ")
    assert citadel("workflow", "run", file)[0] == 2


def test_an_interrupt_does_not_end_the_run(stack: Stack, start, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(WAITING)
    with start("workflow", "run", file) as process:
        assert process.stderr is not None
        first = process.stderr.readline()
        for line in process.stderr:
            if line.startswith("w: waiting"):
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=PATIENCE)
    run_id = first.split()[-1]
    assert process.returncode == 130
    assert f"citadel runs watch {run_id}" in rest
    with Citadel(stack.api.url) as client:
        assert client.runs.get(run_id).status == "running"
        client.runs.cancel(run_id)


def test_a_run_is_paused_resumed_and_signalled_from_the_shell(citadel, tmp_path: Path) -> None:
    file = tmp_path / "flow.yaml"
    file.write_text(WAITING)
    run_id = citadel("workflow", "run", file, "--no-wait")[1].strip()
    assert citadel("runs", "pause", run_id)[1] == "paused\n"
    assert json.loads(citadel("runs", "resume", run_id, "--json")[1])["status"] == "running"
    assert citadel("runs", "signal", run_id, "go", '{"n": 1}')[0] == 0
    code, out, _ = citadel("runs", "watch", run_id, "--json")
    assert (code, json.loads(out)["final_context"]["w"]) == (0, {"n": 1})
    assert citadel("runs", "cancel", run_id)[0] == 1
    listed = json.loads(citadel("runs", "list", "--status", "succeeded", "--json")[1])
    assert run_id in [run["run_id"] for run in listed]


def test_a_batch_as_a_run_writes_the_same_records_as_in_chunks(citadel, tmp_path: Path) -> None:
    file, direct, as_run = (tmp_path / name for name in ("in", "direct", "as_run"))
    lines = [{"request_id": n, "text": "bad [[nan]]" if n == 7 else f"text {n}"} for n in range(30)]
    file.write_text("\n".join(map(json.dumps, lines)) + '\n{"request_id": "unfit"}\n')
    assert citadel("batch", file, "-o", direct, "-m", MODEL)[0] == 1
    code, out, _ = citadel("batch", file, "-o", as_run, "-m", MODEL, "--wait", "--json")
    assert code == 1
    summary = json.loads(out)
    assert (summary["written"], summary["failed"], summary["cache_hits"]) == (31, 2, 29)
    assert vectors(as_run) == vectors(direct)
    assert vectors(as_run)[7] is vectors(as_run)[30] is None
    file.write_text("one\ntwo\n")
    run_id = citadel("batch", file, "-m", MODEL, "--async")[1].strip()
    code, out, _ = citadel("runs", "results", run_id)
    assert [json.loads(line)["request_id"] for line in out.splitlines()] == [1, 2]


def vectors(file: Path) -> list[list[float] | None]:
    return [json.loads(line).get("embedding") for line in file.read_text().splitlines()]


def test_named_vectors_and_a_metric_are_options_of_the_command(citadel, tmp_path: Path) -> None:
    file = tmp_path / "points.ndjson"
    file.write_text('{"id": 1, "embedding": [3, 4]}\n{"id": 2, "embedding": [0, 1]}\n')
    which = ("--vector-name", "place")
    stored = citadel("collections", "store", "places", file, *which, "--distance", "manhattan", "--json")[1]
    assert json.loads(stored)["upserted"] == 2
    search = ("collections", "search", "places", "--embedding", "[0, 0]", *which)
    hits = json.loads(citadel(*search, "--score-threshold", 5, "--json")[1])["hits"]
    assert [(hit["id"], hit["score"], hit["metric"]) for hit in hits] == [(2, 1.0, "manhattan")]
    assert "manhattan" in citadel(*search)[1]


def test_collections_are_stored_and_searched(citadel, tmp_path: Path) -> None:
    file = tmp_path / "points"
    file.write_text("".join(json.dumps({"id": n, "text": f"doc {n}"}) + "\n" for n in range(5)))
    assert json.loads(citadel("collections", "store", "shell", file, "-m", MODEL, "--json")[1])["upserted"] == 5
    hits = json.loads(citadel("collections", "search", "shell", "doc", "-m", MODEL, "-n", 2, "--json")[1])["hits"]
    assert len(hits) == 2
    assert citadel("collections", "search", "none", "doc", "-m", MODEL)[0] == 1

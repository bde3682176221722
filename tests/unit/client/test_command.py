"""The command: output, exit codes, files."""

import json

import httpx
import pytest

from tests.unit.client.double import Double, problem, vector_of


@pytest.fixture
def double():
    return Double()


def records(text):
    return [json.loads(line) for line in text.splitlines()]


def test_embed_prints_vectors(citadel):
    code, out, _ = citadel("embed", "one", "two", "--json")
    assert code == 0
    assert json.loads(out)["embeddings"] == [vector_of("one"), vector_of("two")]


def test_embed_reads_files(citadel, tmp_path):
    file = tmp_path / "texts"
    file.write_text("one\n\ntwo\n")
    code, out, _ = citadel("embed", "--file", file, "--ndjson")
    assert code == 0
    assert [record["text"] for record in records(out)] == ["one", "two"]


def test_embed_prints_a_table(citadel):
    code, out, _ = citadel("embed", "[bold]one")
    assert code == 0
    assert "[bold]one" in out


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (("embed", "one", "--file", "x"), 2),
        (("embed", "--file", "/does/not/exist"), 2),
        (("embed", "one", "--nonsense"), 2),
        (("health", "--url", "nonsense"), 2),
        (("health",), 4),
        (("health", "--json"), 4),
        (("queues", "--json"), 0),
        (("workers",), 0),
        (("models",), 0),
        (("cache", "stats"), 0),
        (("embed", "bad"), 1),
    ],
)
def test_exit_codes(citadel, arguments, code):
    found, out, err = citadel(*arguments)
    assert found == code
    assert "Traceback" not in out + err


def test_an_unreachable_server_is_exit_code_3_and_a_hint(citadel, double):
    double.script.extend([httpx.ConnectError("refused")] * 9)
    code, out, err = citadel("cache", "stats", "--json")
    assert (code, out) == (3, "")
    assert "citadel dev" in err


def test_errors_name_the_trace(citadel, double):
    double.script.append(problem(422))
    code, _, err = citadel("queues")
    assert code == 1
    assert "trace t1" in err


def test_an_interrupt_is_exit_code_130(citadel, double):
    double.script.append(KeyboardInterrupt())
    code, out, err = citadel("queues", "--json")
    assert (code, out) == (130, "")
    assert "Traceback" not in err


@pytest.fixture
def lines(tmp_path):
    file = tmp_path / "in.ndjson"
    requests = [
        {"request_id": "a", "text": "one"},
        {"text": "two"},
        {"request_id": "c", "text": "bad three"},
        {"request_id": "d"},
        {"request_id": 5, "text": "five", "model": "m"},
        {"request_id": "f", "text": "six"},
    ]
    file.write_text("\n".join(json.dumps(request) for request in requests) + "\nnonsense\n")
    return file


def test_batch_answers_every_line_in_order(citadel, lines):
    code, out, _ = citadel("batch", lines, "--chunk-size", 2)
    found = records(out)
    assert code == 1
    assert [record["request_id"] for record in found] == ["a", 2, "c", "d", 5, "f", 7]
    assert [record.get("embedding") for record in found] == [
        vector_of("one"),
        vector_of("two"),
        None,
        None,
        None,
        vector_of("six"),
        None,
    ]
    assert "text must be a string" in found[3]["error"]["message"]
    assert "model" in found[4]["error"]["message"]
    assert found[6]["error"]["message"] == "not a JSON object"


def test_batch_reads_plain_lines(citadel, tmp_path):
    file = tmp_path / "plain"
    file.write_text("one\n{two\n")
    code, out, _ = citadel("batch", file, "--encoding", "base64")
    assert code == 0
    assert [record["request_id"] for record in records(out)] == [1, 2]
    assert isinstance(records(out)[0]["embedding"], str)


def test_batch_resumes_where_it_was_interrupted(citadel, double, tmp_path):
    file, out = tmp_path / "in", tmp_path / "out"
    file.write_text("".join(f"text {number}\n" for number in range(10)))
    assert citadel("batch", file, "-o", out)[0] == 0
    whole = out.read_bytes()
    cut = whole.splitlines(keepends=True)
    out.write_bytes(b"".join(cut[:4]) + cut[4][:20])
    double.requests.clear()
    code, summary, _ = citadel("batch", file, "-o", out, "--resume", "--json")
    assert code == 0
    assert json.loads(summary) | {"tokens": 0} == {
        "written": 6,
        "failed": 0,
        "skipped": 4,
        "cache_hits": 0,
        "tokens": 0,
        "model": "m",
    }
    again = records(out.read_text())
    assert [(record["request_id"], record["embedding"]) for record in again] == [
        (record["request_id"], record["embedding"]) for record in records(whole.decode())
    ]
    assert len(double.bodies()[0]["input"]) == 6


def test_batch_overwrites_only_with_the_option(citadel, tmp_path):
    file, out = tmp_path / "in", tmp_path / "out"
    file.write_text("one\n")
    out.write_text("precious\n")
    assert citadel("batch", file, "-o", out)[0] == 2
    assert citadel("batch", file, "-o", out, "--resume")[0] == 2
    assert out.read_text() == "precious\n"
    assert citadel("batch", file, "-o", out, "--overwrite")[0] == 0
    assert records(out.read_text())[0]["request_id"] == 1


def test_batch_leaves_whole_records_when_the_server_fails(citadel, double, tmp_path):
    file, out = tmp_path / "in", tmp_path / "out"
    file.write_text("".join(f"text {number}\n" for number in range(10)))
    double.script.extend([double.embeddings(_request(2)), problem(401, "unauthorized")])
    code, _, err = citadel("batch", file, "-o", out, "--chunk-size", 2, "--parallel", 1)
    assert code == 1
    assert "unauthorized" in err
    assert [record["request_id"] for record in records(out.read_text())] == [1, 2]


def _request(count):
    texts = [f"text {number}" for number in range(count)]
    return httpx.Request("POST", "http://api.test/v1/embeddings", json={"input": texts})


def test_progress_without_a_terminal_is_about_ten_lines(citadel, tmp_path):
    file = tmp_path / "in"
    file.write_text("".join(f"text {number}\n" for number in range(100)))
    _, _, err = citadel("batch", file, "--chunk-size", 1)
    lines_of_progress = [line for line in err.splitlines() if line.startswith("embedding: ")]
    assert 5 <= len(lines_of_progress) <= 12
    assert lines_of_progress[-1] == "embedding: 100 of 100, 100 %"


def test_warming_prints_its_counts(citadel, tmp_path):
    file = tmp_path / "in"
    file.write_text("one\ntwo\n")
    code, out, _ = citadel("cache", "warm", file, "--json")
    assert code == 0
    assert json.loads(out) == {"warmed": 2, "skipped": 1, "errors": 0}

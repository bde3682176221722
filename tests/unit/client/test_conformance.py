"""The conformance run and its command, with servers that err in every way."""

import asyncio
import contextlib
import json
import random

import pytest

from citadel_client.conformance.detection import Undetected
from citadel_client.conformance.run import check
from citadel_client.conformance.server import MOST_CALLS, NoAnswer, Server
from tests.doubles.base.server import ServerThread
from tests.doubles.llm.app import LlmDouble
from tests.doubles.llm.settings import LlmSettings
from tests.doubles.ollama.app import OllamaDouble
from tests.doubles.ollama.behaviour import OllamaBehaviour
from tests.doubles.ollama.settings import OllamaSettings
from tests.support.child import free_port
from tests.support.planted import planted

KEY = planted("checked-key")
MODEL = "all-minilm"
SHORT = 300
"""Words that are too long for the double's model."""


@contextlib.contextmanager
def served(app):
    """The URL of an ASGI application in a thread."""
    server = ServerThread(app)
    try:
        yield server.url
    finally:
        server.stop()


def run(url, *, key=None, timeout=10.0, **options):
    """The report on a server."""
    server = Server(url, key=key, timeout=timeout)
    try:
        return check(server, long_words=SHORT, **options)
    finally:
        server.close()


class Answers:
    """An ASGI application that answers what a function of method, path and JSON returns: status and JSON or bytes."""

    def __init__(self, answer):
        self.answer = answer
        self.count = 0

    async def __call__(self, scope, receive, send):
        body, more = b"", True
        while more:
            message = await receive()
            body, more = body + message.get("body", b""), message.get("more_body", False)
        self.count += 1
        found = self.answer(scope["method"], scope["path"], json.loads(body or b"null"))
        if found is None:
            await asyncio.sleep(30)
            return
        status, content = found
        content = content if isinstance(content, bytes) else json.dumps(content).encode()
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})


def vector_of(text, size=8):
    chance = random.Random(str(text))
    return [chance.uniform(-1, 1) for _ in range(size)]


def embedding(spoil=lambda rows, _: rows):
    """An application that embeds, with rows that a function spoils."""

    def answer(method, path, body):
        if method == "GET":
            return 404, {"error": {"message": "no such route"}}
        texts = body["input"] if isinstance(body["input"], list) else [body["input"]]
        rows = spoil([vector_of(text) for text in texts], texts)
        return 200, {"data": [{"index": index, "embedding": row} for index, row in enumerate(rows)]}

    return Answers(answer)


@pytest.mark.parametrize(
    ("spoil", "check_name", "result"),
    [
        (lambda rows, _: rows[::-1], "order", "mixed up"),
        (lambda rows, _: rows[:-1] if len(rows) > 1 else rows, "order", "failed"),
        (lambda rows, _: [[float("nan")] * 8 for _ in rows], "vectors", "none"),
        (lambda rows, _: [[] for _ in rows], "vectors", "none"),
        (
            lambda rows, texts: [row[: 4 + (len(text) % 3)] for row, text in zip(rows, texts, strict=True)],
            "vectors",
            "none",
        ),
        (lambda rows, texts: rows[:1] if texts == ["a", ""] else rows, "empty text", "left out"),
        (lambda rows, texts: rows[1:] if any("\u4f60" in str(text) for text in texts) else rows, "Unicode", "failed"),
    ],
)
def test_a_server_whose_vectors_are_wrong_does_not_fit(spoil, check_name, result):
    with served(embedding(spoil)) as url:
        report = run(url, model="m", style="openai", kind="embedding")
    assert report.table()[check_name] == result
    assert not report.fits


def test_what_a_lesser_server_lacks_is_noted_and_set():
    with served(embedding()) as url:
        report = run(url, model="team's/m", style="openai")
    table = report.table()
    assert report.fits
    assert {name: table[name] for name in ("models", "usage", "length", "base64", "dimensions")} == {
        "models": "no such route",
        "usage": "missing",
        "length": "other",
        "base64": "ignored",
        "dimensions": "ignored",
    }
    assert "CITADEL_EMBEDDINGS__BACKENDS__main__MODELS='team'\"'\"'s/m'" in report.settings


def test_the_credentials_are_tried_and_shown_nowhere():
    with served(OllamaDouble(OllamaSettings(models=(MODEL,), api_key=KEY))) as url:
        report = run(url, key=("Authorization", f"Bearer {KEY}"))
        with pytest.raises(Undetected, match="refuses the credentials"):
            run(url)
    assert report.table()["authorization"] == "refused with 401"
    assert KEY not in repr(report)
    assert "CITADEL_EMBEDDINGS__BACKENDS__main__API_KEY_FILE=/run/secrets/NAME" in report.settings


def test_a_server_that_repeats_secrets_is_shown_without_them():
    def repeating(method, path, body):
        return 400, {"error": {"message": f"\x1b[31mBad key {KEY} of {planted('pass')}@"}}

    with served(Answers(repeating)) as url:
        named = url.replace("://", f"://me:{planted('pass')}%40@") + f"?key={planted('query')}"
        with pytest.raises(Undetected) as failed:
            run(named, key=("api-key", KEY), model="m", style="openai")
    for secret in (KEY, planted("pass"), planted("query"), "\x1b"):
        assert secret not in str(failed.value)


@pytest.mark.parametrize("fault", ["shuffled", "ok"])
def test_vectors_are_taken_by_their_index(fault):
    double = OllamaDouble(OllamaSettings(models=(MODEL,), manners="llama"))
    double.set_behaviour(OllamaBehaviour(mode=fault))
    with served(double) as url:
        assert run(f"{url}/v1").table()["order"] == "kept"


def test_an_llm_without_schema_and_counts_gets_settings_that_do_without():
    def answer(method, path, body):
        if method == "GET":
            return 200, {"data": [{"id": "chat"}, {"id": "other-embed"}]}
        if "response_format" in body and body["response_format"]["type"] == "json_schema":
            return 400, {"error": "unsupported"}
        return 200, {"choices": [{"message": {"content": "<think>hm</think> {}"}}]}

    with served(Answers(answer)) as url:
        report = run(url, kind="llm", style="openai")
    assert report.model == "chat"
    assert report.table() | {} == report.table() | {
        "finish reason": "missing",
        "usage": "missing",
        "reasoning": "in the text",
        "stream": "in one piece",
        "JSON mode": "ignored",
        "JSON schema": "refused with 400",
    }
    assert {"CITADEL_LLM__ENDPOINTS__main__STREAM=false", "CITADEL_LLM__ENDPOINTS__main__JSON_MODE=prompt"} <= set(
        report.settings
    )


def test_a_server_that_never_answers_ends_the_run_in_bounded_time():
    with served(Answers(lambda *_: None)) as url, pytest.raises(Undetected, match="no answer in time"):
        run(url, model="m", timeout=0.2)


def fuzzed(chance, depth=0):
    """A random JSON value with the names that answers have."""
    names = ("data", "embeddings", "embedding", "index", "choices", "message", "delta", "content", "usage", "models",
             "name", "id", "error", "version", "prompt_tokens", "finish_reason", "done", "details", "meta")  # fmt: skip
    kinds = [0, 1, 2, 3, 4] + ([5, 6, 6, 6] if depth < 4 else [])
    kind = chance.choice(kinds)
    if kind == 5:
        return [fuzzed(chance, depth + 1) for _ in range(chance.randrange(4))]
    if kind == 6:
        return {name: fuzzed(chance, depth + 1) for name in chance.sample(names, chance.randrange(1, 6))}
    return [None, chance.choice([True, -1, 10**30, 1e308]), chance.choice(["", "\x1b[0m", "AAAA", "m"]), [0.5, 1], 7][
        kind
    ]


@pytest.mark.parametrize("style", ["openai", "ollama"])
@pytest.mark.parametrize("kind", ["embedding", "llm", None])
def test_whatever_a_server_answers_the_run_ends_in_a_report_or_a_reason(style, kind):
    chance = random.Random(f"{style}{kind}")
    healthy = embedding()

    def answer(method, path, body):
        if chance.random() < 0.7 and style == "openai" and kind == "embedding" and isinstance(body, dict):
            return healthy.answer(method, path, body)
        if chance.random() < 0.2:
            return chance.choice([200, 302, 500]), chance.randbytes(chance.randrange(60))
        return chance.choice([200, 200, 200, 200, 404, 500]), fuzzed(chance)

    app = Answers(answer)
    with served(app) as url:
        for _ in range(25):
            before = app.count
            with contextlib.suppress(Undetected, NoAnswer):
                assert "\x1b" not in repr(run(url, model="m", style=style, kind=kind))
            assert app.count - before <= MOST_CALLS


class TestTheCommand:
    @pytest.fixture
    def double(self):
        return None

    @pytest.fixture
    def citadel(self, monkeypatch, capsysbinary):
        from citadel_client.cli import app as command

        def run(*arguments):
            monkeypatch.setattr("sys.argv", ["citadel", *map(str, arguments)])
            with pytest.raises(SystemExit) as end:
                command.main()
            said = capsysbinary.readouterr()
            return int(end.value.code), said.out.decode(), said.err.decode()

        return run

    def test_it_prints_a_table_and_settings(self, citadel, tmp_path):
        (tmp_path / "key").write_text(f"{KEY}\n")
        with served(LlmDouble(LlmSettings(api_key=KEY))) as url:
            code, out, err = citadel("backends", "check", url + "/v1", "--api-key-file", tmp_path / "key")
        assert code == 0
        assert "llm server, openai style, model tiny-llm" in out
        assert "CITADEL_LLM__ENDPOINTS__main__MODEL=tiny-llm" in out.splitlines()
        assert KEY not in out + err

    def test_json_lists_findings_settings_and_every_call(self, citadel, monkeypatch):
        monkeypatch.setenv("THE_KEY", KEY)
        with served(OllamaDouble(OllamaSettings(models=(MODEL,), api_key=KEY))) as url:
            code, out, _ = citadel("backends", "check", url, "--api-key-env", "THE_KEY", "--json", "--long-words", 300)
        found = json.loads(out)
        assert (code, found["fits"], found["style"]) == (0, True, "ollama")
        assert {"check", "result", "grade", "detail"} == found["findings"][0].keys()
        assert {call["path"] for call in found["calls"]} == {"/api/version", "/api/tags", "/api/embed"}
        assert KEY not in out

    @pytest.mark.parametrize(
        ("arguments", "code", "words"),
        [
            (["localhost:11434"], 2, "the URL has no scheme"),
            (["http://me:geheim@ho st"], 2, "has a space"),
            (["http://127.0.0.1:{port}"], 3, "does not answer"),
            (["http://me:geheim@127.0.0.1:{port}"], 3, "does not answer"),
            (["http://127.0.0.1:{port}", "--api-key-env", "NOT_SET"], 2, "there is no usable key in NOT_SET"),
        ],
    )
    def test_errors_have_exit_codes_and_show_no_secret(self, citadel, arguments, code, words):
        port = free_port()
        found, _, err = citadel("backends", "check", *(argument.format(port=port) for argument in arguments))
        assert (found, "geheim" in err) == (code, False)
        assert words in err

    def test_a_server_that_does_not_fit_is_a_failure(self, citadel):
        with served(embedding(lambda rows, _: rows[::-1])) as url:
            code, out, _ = citadel("backends", "check", url, "--model", "m", "--long-words", 0)
        assert code == 1
        assert "mixed up" in out

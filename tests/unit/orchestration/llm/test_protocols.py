"""What the two protocols make of a question, and of what servers send."""

import pytest

from citadel_common.errors import BadLlmOutput, LlmRefused, LlmUnavailable
from citadel_common.settings.llm import EndpointSettings
from citadel_contracts.errors import seconds_of_retry_after
from citadel_orchestration.llm.answers import Transcript
from citadel_orchestration.llm.protocols import OllamaStyle, OpenAIStyle
from citadel_orchestration.llm.question import Message, Piece, Question, Usage
from citadel_orchestration.llm.refusals import error_in, failure, read_body

SETTINGS = EndpointSettings(url="http://gpu1", model="llama")
SCHEMA = {"type": "object"}


def question(**fields):
    return Question(messages=(Message(role="user", content="Hi"),), **fields)


class TestOpenAI:
    style = OpenAIStyle()

    def test_the_request_has_openais_form(self):
        asked = question(options={"temperature": 0.5, "num_predict": 9}, schema=SCHEMA)
        assert self.style.body(asked, SETTINGS) == {
            "model": "llama",
            "messages": [{"role": "user", "content": "Hi"}],
            "temperature": 0.5,
            "max_tokens": 9,
            "stream": True,
            "stream_options": {"include_usage": True},
            "response_format": {"type": "json_schema", "json_schema": {"name": "answer", "schema": SCHEMA}},
        }

    @pytest.mark.parametrize(
        "content",
        [{}, {"choices": []}, {"choices": [None]}, {"choices": 5}, {"choices": [{"delta": 7}]}, {"usage": [1]}],
    )
    def test_malformed_chunks_add_nothing(self, content):
        assert self.style.piece(content) == Piece()

    def test_the_texts_of_a_list_of_parts_are_joined(self):
        parts = [{"type": "text", "text": "a"}, {"type": "image"}, {"type": "text", "text": "b"}]
        assert self.style.piece({"choices": [{"message": {"content": parts}}]}).text == "ab"

    def test_reasoning_is_not_part_of_the_answer(self):
        assert self.style.piece({"choices": [{"delta": {"reasoning_content": "hm"}}]}).text == ""

    def test_a_model_that_declines_is_a_refusal(self):
        transcript = Transcript(1000)
        for words in ("I", " cannot"):
            transcript.add(self.style.piece({"choices": [{"delta": {"content": None, "refusal": words}}]}))
        with pytest.raises(LlmRefused, match="the model declines: I cannot"):
            transcript.check_end("it")


class TestOllama:
    style = OllamaStyle()

    def test_the_request_has_ollamas_form(self):
        asked = question(
            options={"temperature": 0.5, "max_tokens": 9, "keep_alive": "5m"}, schema=SCHEMA, model="qwen3"
        )
        assert self.style.body(asked, SETTINGS) == {
            "model": "qwen3",
            "messages": [{"role": "user", "content": "Hi"}],
            "options": {"temperature": 0.5, "num_predict": 9},
            "keep_alive": "5m",
            "stream": True,
            "format": SCHEMA,
        }

    def test_only_ollama_gets_threads_and_the_question_overrides_them(self):
        six = SETTINGS.model_copy(update={"threads": 6})
        assert self.style.body(question(), six)["options"] == {"num_thread": 6}
        assert self.style.body(question(options={"num_thread": 2}), six)["options"] == {"num_thread": 2}
        assert "num_thread" not in OpenAIStyle().body(question(), six)

    def test_the_last_line_has_usage_and_reason(self):
        line = {"model": "m", "message": {"content": "x"}, "done": True, "prompt_eval_count": 2, "eval_count": 3}
        usage = Usage(prompt_tokens=2, completion_tokens=3, total_tokens=5)
        assert self.style.piece(line) == Piece(text="x", model="m", usage=usage, finish_reason="stop", last=True)

    @pytest.mark.parametrize("content", [{}, {"message": 5}, {"message": {"content": 5}}, {"done": "yes"}])
    def test_malformed_lines_add_nothing(self, content):
        assert self.style.piece(content) == Piece()


@pytest.mark.parametrize(
    ("counts", "usage"),
    [
        ((1, 2, 9), (1, 2, 9)),
        ((1, 2, None), (1, 2, 3)),
        (("1", -2, True), (0, 0, 0)),
        ((1.5, None, {}), (0, 0, 0)),
        ((10**30, 1, -(10**30)), (0, 1, 1)),
    ],
)
def test_usage_reads_only_counts(counts, usage):
    found = Usage.of(*counts)
    assert (found.prompt_tokens, found.completion_tokens, found.total_tokens) == usage


def test_a_transcript_is_bounded_in_bytes():
    transcript = Transcript(10)
    assert not transcript.add(Piece(text="ééééé"))
    with pytest.raises(BadLlmOutput, match="10 bytes"):
        transcript.add(Piece(text="x"))


def refusal(where, status, body, retry_after):
    headers = {} if retry_after is None else {"retry-after": retry_after}
    return failure(where, status, read_body(body), headers)


class TestRefusals:
    @pytest.mark.parametrize("status", [301, 400, 401, 403, 404, 405, 413, 422])
    def test_client_errors_are_refusals(self, status):
        assert type(refusal("it", status, b'{"error": {"message": "no"}}', None)) is LlmRefused

    @pytest.mark.parametrize("status", [408, 409, 425, 429, 500, 502, 503, 504, 529])
    def test_server_errors_are_retryable(self, status):
        assert isinstance(refusal("it", status, b"<html>", None), LlmUnavailable)

    @pytest.mark.parametrize(
        ("body", "words"),
        [
            (b'{"error": "plain"}', "plain"),
            (b'{"error": {"message": "nested"}}', "nested"),
            (b'{"message": "flat"}', "flat"),
            (b'{"detail": "fastapi"}', "fastapi"),
            (b"<html>", "no reason given"),
            (b"[1]", "no reason given"),
        ],
    )
    def test_refusals_quote_the_servers_message(self, body, words):
        assert str(refusal("it", 400, body, None)) == f"it answered 400: {words}"

    def test_retry_after_is_passed_on(self):
        busy = refusal("it", 503, b"", "3")
        assert isinstance(busy, LlmUnavailable)
        assert busy.retry_after == 3

    @pytest.mark.parametrize(
        ("header", "seconds"),
        [
            (None, None),
            ("2.5", 2.5),
            ("-1", 0),
            ("soon", None),
            ("nan", None),
            ("inf", 86_400),
            ("Wed, 21 Oct 2015 07:28:00 GMT", 0),
        ],
    )
    def test_retry_after_is_read_as_seconds(self, header, seconds):
        assert seconds_of_retry_after(header) == seconds

    @pytest.mark.parametrize(
        ("date", "age", "seconds"),
        [
            ("Wed, 21 Oct 2015 07:27:30 GMT", None, 30),
            ("Wed, 21 Oct 2015 07:27:30 GMT", "12", 18),
            ("Wed, 21 Oct 2015 07:27:30 GMT", "old", 30),
            ("Wed, 21 Oct 2015 07:27:30 -0000", None, 30),
            ("Wed, 21 Oct 2015 08:00:00 GMT", None, 0),
            ("today", None, 0),
        ],
    )
    def test_a_date_is_read_by_the_clock_of_its_server(self, date, age, seconds):
        assert seconds_of_retry_after("Wed, 21 Oct 2015 07:28:00 GMT", date, age) == seconds

    def test_errors_inside_an_answer_are_found(self):
        found = error_in({"error": {"message": "m", "code": 503, "type": "busy"}})
        assert (found.message, found.status, found.code) == ("m", 503, "busy")
        assert error_in({"error": None, "choices": []}) is None

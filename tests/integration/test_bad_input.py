"""Bad input by a plain Celery client: a clear error that names the field, at once, and nothing of it kept."""

import pytest

from tests.support.planted import TEXT
from tests.support.worker import WorkerProcess

GENERATE, BATCH, WARM = "generate_embedding", "batch_generate_embeddings", "warm_embedding_cache"
SURROGATE = f"{TEXT}\ud800b"
MANY = [TEXT] * 6


@pytest.fixture(scope="module", autouse=True)
def small_limits(redis_url, ollama):
    """A worker whose limits are easy to pass."""
    ollama.reset()
    limits = {"LIMITS__MAX_TEXTS": 5, "LIMITS__MAX_TEXT_CHARS": 1000, "LIMITS__MAX_BATCH_REQUESTS": 10}
    with WorkerProcess(redis_url, ollama.url, **limits) as process:
        yield process


CASES = {
    "no texts": (GENERATE, [[]], {}, "text: must hold at least one text"),
    "empty text": (GENERATE, [""], {}, "text: is empty"),
    "empty text in a list": (GENERATE, [[TEXT, ""]], {}, r"text[1]: is empty"),
    "too many texts": (GENERATE, [MANY], {}, "text: holds 6 texts, the limit is 5"),
    "overlong text": (GENERATE, [["a", TEXT.ljust(1001, "b")]], {}, "text[1]: has 1001 characters, the limit is 1000"),
    "no arguments": (GENERATE, [], {}, "text: is required"),
    "a number": (GENERATE, [5], {}, "text: input should be a valid string"),
    "null": (GENERATE, [None], {}, "text: input should be a valid string"),
    "a number in a list": (GENERATE, [[TEXT, 5]], {}, "text[1]: input should be a valid string"),
    "a list in a list": (GENERATE, [[[TEXT]]], {}, "text[0]: input should be a valid string"),
    "an object": (GENERATE, [{TEXT: 1}], {}, "text: input should be a valid string"),
    "model of a wrong type": (GENERATE, [TEXT], {"model": 1}, "model: input should be a valid string"),
    "unknown model": (GENERATE, [TEXT], {"model": "nope"}, "model: no backend has 'nope'; available: all-minilm"),
    "empty model": (GENERATE, [TEXT], {"model": "no such\nmodel"}, "model: no backend has 'no such\\nmodel'"),
    "options of a wrong type": (GENERATE, [TEXT], {"options": "x"}, "options: input should be a valid dictionary"),
    "options with a lone surrogate": (GENERATE, [TEXT], {"options": {"stop": SURROGATE}}, "options: cannot be sent"),
    "cache_enabled of a wrong type": (GENERATE, [TEXT], {"cache_enabled": "yes"}, "cache_enabled: input should be a v"),
    "dimensions of a wrong type": (GENERATE, [TEXT], {"dimensions": "64"}, "dimensions: input should be a valid int"),
    "dimensions as a bool": (GENERATE, [TEXT], {"dimensions": True}, "dimensions: input should be a valid integer"),
    "no dimensions": (GENERATE, [TEXT], {"dimensions": 0}, "dimensions: input should be greater than or equal to 1"),
    "more dimensions than there are": (GENERATE, [TEXT], {"dimensions": 769}, "dimensions: 'nomic-embed-text' gives"),
    "a model that cannot be shortened": (
        GENERATE, [TEXT], {"model": "bge-m3", "dimensions": 64}, "dimensions: 'bge-m3' gives 1024 dimensions and",
    ),
    "unknown input type": (GENERATE, [TEXT], {"input_type": "x"}, "input_type: must be one of query, search_query"),
    "unknown encoding": (GENERATE, [TEXT], {"encoding_format": "hex"}, "encoding_format: input should be 'float' or"),
    "unknown field": (GENERATE, [TEXT], {"modle": "x"}, "modle: is not a known field"),
    "given twice": (GENERATE, [TEXT], {"text": TEXT}, "text: is given both by position and by name"),
    "too many arguments": (GENERATE, [TEXT] * 11, {}, "takes at most 10 arguments (text, model, options"),
    "lone surrogate": (GENERATE, [[TEXT, SURROGATE]], {}, "text[1]: is not valid Unicode: it holds a lone"),
    "lone surrogate as a field": (GENERATE, [TEXT], {SURROGATE: 1}, "input should be a valid string, unable to"),
    "several at once": (GENERATE, [5], {"model": 1}, "; model: input should be a valid string"),
    "no requests": (BATCH, [[]], {}, "batch_data: must hold at least one request"),
    "requests of a wrong type": (BATCH, [TEXT], {}, "batch_data: input should be a valid"),
    "a request of a wrong type": (BATCH, [[TEXT]], {}, "batch_data[0]: input should be"),
    "a request without text": (BATCH, [[{"text": TEXT}, {}]], {}, "batch_data[1].text: is required"),
    "a request's unknown field": (BATCH, [[{"text": "a", "x": 1}]], {}, "batch_data[0].x: is not a known field"),
    "too many requests": (BATCH, [[{"text": TEXT}] * 11], {}, "batch_data: holds 11 requests, the limit is 10"),
    "no batch size": (BATCH, [[{"text": TEXT}], 0], {}, "batch_size: input should be greater than or equal to 1"),
    "nothing to warm": (WARM, [[]], {}, "texts: must hold at least one text"),
    "one text to warm": (WARM, [TEXT], {}, "texts: input should be a valid list"),
    "too many texts to warm": (WARM, [[TEXT] * 11], {}, "texts: holds 11 texts, the limit is 10"),
    "warming an unknown model": (WARM, [[TEXT], ["nope"]], {}, "model: no backend has 'nope'"),
}  # fmt: skip


@pytest.mark.parametrize(("task", "args", "kwargs", "message"), CASES.values(), ids=CASES)
def test_an_error_of_the_input_names_the_field(plain, store, task, args, kwargs, message):
    error = plain.error(task, *args, **kwargs)
    kind, _, text = error.partition(": ")
    assert kind == ("UnknownModel" if "no backend has" in message else "InvalidInput")
    assert message in text
    assert store.hgetall("citadel:dead-letters") == {}


def test_a_text_that_the_backend_refuses_is_named(plain):
    assert plain.error(GENERATE, f"{TEXT} [[nan]]").startswith("TextRejected: text: the backend refuses the text: ")
    assert plain.error(GENERATE, [f"{TEXT} [[nan]]", f"x {TEXT} [[nan]]"]).startswith(
        "TextRejected: text[0]: the backend refuses"
    )


def test_a_zero_vector_is_an_error_that_names_the_text(plain):
    assert plain.error(GENERATE, f"{TEXT} [[zero]]").startswith(
        "BadVector: text: the backend answered with a zero vector"
    )


def test_good_input_works_after_bad_input(plain):
    assert plain.call(GENERATE, TEXT)["success"]

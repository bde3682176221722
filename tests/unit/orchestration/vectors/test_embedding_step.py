"""The `embedding` step."""

import asyncio

import orjson
import pytest
from pydantic import ValidationError

from citadel_common.errors import InvalidInput, TextRejected
from citadel_contracts.errors import ErrorData
from citadel_orchestration.steps.embedding import EmbeddingParameters, EmbeddingStep
from tests.unit.orchestration.vectors.known import NOTHING, KnownFacts, answer

STEP = EmbeddingStep()


def execute(text, *vectors):
    """Return the output, as it is stored."""
    effect = STEP.begin(EmbeddingParameters(text=text))
    output = STEP.answered(effect.echo, [answer(*vectors)]) if vectors else asyncio.run(effect.run(None))
    return orjson.loads(orjson.dumps(output, option=orjson.OPT_SERIALIZE_NUMPY))


def problems(raw, catalog=NOTHING):
    return dict(STEP.check(raw, catalog))


def test_one_text_gives_one_embedding():
    assert execute("a", [1.0, 2.0]) == {
        "embedding": [1.0, 2.0],
        "model": "minilm",
        "dimensions": 2,
        "cache_hits": 1,
        "truncated": [0],
    }


def test_a_list_gives_a_list_even_of_one():
    assert execute(["a"], [1.0])["embeddings"] == [[1.0]]
    assert execute(["a", "b"], [1.0], [2.0])["embeddings"] == [[1.0], [2.0]]


def test_the_declared_outputs_are_those_of_the_step():
    assert set(execute("a", [1.0])) | set(execute(["a"], [1.0])) == STEP.outputs


def test_an_empty_list_needs_no_vectors():
    assert execute([])["embeddings"] == []


def test_all_parameters_reach_the_request():
    given = {"dimensions": 64, "input_type": "query", "options": {"num_ctx": 512}, "cache_enabled": False}
    (wanted,) = STEP.begin(EmbeddingParameters(text=["a", "b"], model="m", **given)).requests

    assert wanted.texts == ["a", "b"]
    assert (wanted.model, wanted.dimensions, wanted.input_type) == ("m", 64, "query")
    assert (wanted.options, wanted.cache_enabled) == ({"num_ctx": 512}, False)


@pytest.mark.parametrize(("text", "where"), [("", "text"), (["a", ""], r"text\[1\]")])
def test_an_empty_text_is_refused_when_it_came_from_an_expression(text, where):
    with pytest.raises(InvalidInput, match=f"{where}: is empty"):
        STEP.begin(EmbeddingParameters(text=text))


def test_a_text_without_a_vector_fails_the_step():
    bad = answer([1.0], errors=[ErrorData(index=1, code="text_rejected", message="no")])
    with pytest.raises(TextRejected, match=r"text\[1\]: no"):
        STEP.answered({"form": "embeddings"}, [bad])


def test_an_empty_text_is_seen_at_submission():
    assert problems({"text": ""}) == {"/text": "is empty"}
    assert problems({"text": ["a", ""]}) == {"/text/1": "is empty"}
    assert problems({"text": []}) == {"/text": "must hold at least one text"}


def test_more_dimensions_than_the_model_has_are_seen_at_submission():
    known = KnownFacts(models={"m": 384, None: 768})

    assert "/dimensions" in problems({"text": "a", "model": "m", "dimensions": 385}, known)
    assert "/dimensions" in problems({"text": "a", "dimensions": 769}, known)
    assert problems({"text": "a", "model": "m", "dimensions": 384}, known) == {}


def test_parameters_with_expressions_are_not_checked_at_submission():
    raw = {"text": "${{ context.text }}", "model": "${{ context.model }}", "dimensions": "${{ context.n }}"}

    assert problems(raw, KnownFacts(models={None: 1})) == {}


def test_unknown_parameters_are_refused():
    with pytest.raises(ValidationError):
        EmbeddingParameters(text="a", modle="m")

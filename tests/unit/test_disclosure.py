"""The search for what no process may tell: it finds what it is for, and names where."""

import base64
import json
from pathlib import Path

import numpy as np
import orjson
import pytest

from tests.doubles.ollama.vectors import expected_vector
from tests.support.disclosure import Disclosures
from tests.support.planted import LLM_KEY, TEXT

VECTOR = expected_vector("nomic-embed-text", TEXT)
DISCLOSED = {
    "a key": (f"refused {LLM_KEY}!", LLM_KEY),
    "a text in a URL": (f"http://host/?text={TEXT}&x=1", TEXT),
    "floats by orjson": (orjson.dumps(VECTOR, option=orjson.OPT_SERIALIZE_NUMPY).decode(), "a vector as numbers"),
    "floats by json": (json.dumps(VECTOR.tolist()), "a vector as numbers"),
    "floats by repr": (repr(VECTOR[:100].tolist()), "a vector as numbers"),
    "an array": (str(np.round(VECTOR, 6).tolist()), "a vector as numbers"),
    "base64": (base64.b64encode(VECTOR.tobytes()).decode(), "a vector as base64"),
}
HARMLESS = (
    '{"seconds": 0.123456, "of": 12.5, "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736"}',
    'citadel_api_seconds_bucket{le="0.0125",route="/v1/embeddings"} 17.0',
    '{"versions": [1, 2, 3, 4, 5, 6, 7, 8], "at": "2026-08-01T12:00:00.123456Z"}',
)


@pytest.mark.parametrize(("text", "what"), DISCLOSED.values(), ids=DISCLOSED)
def test_a_disclosure_is_found_and_named(text: str, what: str) -> None:
    disclosures = Disclosures()
    disclosures.search("metrics of it", f"a line before\nit says {text} there\nand one behind".encode())
    [*found] = disclosures.taken()
    assert {(each.source, each.what) for each in found} == {("metrics of it", what)}
    assert all("line before" not in each.line and "behind" not in each.line for each in found)
    assert disclosures.taken() == []


@pytest.mark.parametrize("text", HARMLESS)
def test_other_numbers_are_not_taken_for_vectors(text: str) -> None:
    disclosures = Disclosures()
    disclosures.search("log of it", text.encode())
    assert disclosures.taken() == []


def test_a_log_is_searched_once_as_it_grows_and_to_its_end(tmp_path: Path) -> None:
    log, disclosures = tmp_path / "log", Disclosures()
    disclosures.watch("it", log)
    log.write_text(f"{TEXT}\nhalf of {TEXT[:4]}")
    assert [each.what for each in disclosures.taken()] == [TEXT]
    assert disclosures.taken() == []
    with log.open("a") as file:
        file.write(TEXT[4:] + "\n")
    disclosures.end(log)
    log.unlink()
    [found] = disclosures.taken()
    assert (found.source, found.line) == ("log of it", f"half of {TEXT}")


def test_a_log_that_another_process_writes_anew_is_searched_from_its_beginning(tmp_path: Path) -> None:
    log, disclosures = tmp_path / "log", Disclosures()
    for name in ("first", "second"):
        disclosures.watch(name, log)
        log.write_text(f"{TEXT}\n")
    assert [each.source for each in disclosures.taken()] == ["log of first", "log of second"]

"""The demo's parts: its texts, its ranking, what it says of itself."""

import numpy as np
import pytest

from citadel_client.demo.corpus import Doc, collect
from citadel_client.demo.passes import DemoFailed, Pass, check_same, embed_all
from citadel_client.demo.ranking import best
from citadel_client.demo.report import explanation
from tests.unit.client.double import Double, talk_sync


def one_pass(hits, total=4, seconds=1.0):
    return Pass(vectors=np.eye(total, dtype=np.float32), seconds=seconds, cache_hits=hits, tokens=0, model="m")


@pytest.fixture(scope="module")
def docs():
    return collect()


def test_the_texts_are_many_distinct_and_short(docs):
    assert len(docs) == len({doc.text for doc in docs}) >= 2000
    assert max(len(doc.text) for doc in docs) < 500


def test_modules_are_all_there(docs):
    assert {"argparse", "bz2", "csv", "gzip", "lzma", "tempfile", "zlib"} <= {doc.name for doc in docs if doc.is_module}


def test_tests_and_private_parts_are_left_out(docs):
    assert not [doc.name for doc in docs if doc.name.startswith(("test.", "idlelib.")) or "._" in doc.name]


def test_ranking_is_by_cosine():
    names = [Doc(name=name, text=f"{name}: What it is. More.", is_module=True) for name in "abc"]
    vectors = np.array([[1, 0], [10, 10], [0, 1]], dtype=np.float32)
    hits = best(np.array([[2, 1.9]], dtype=np.float32), vectors, names, 2)[0]
    assert [hit.doc.name for hit in hits] == ["b", "a"]
    assert hits[0].doc.summary == "What it is"


def test_a_cold_run_and_its_repetition_are_explained():
    (line,) = explanation(one_pass(0, seconds=10.0), one_pass(4, seconds=0.1))
    assert "100 times faster" in line
    assert "4 of 4 texts were found in the cache" in line


def test_a_second_run_says_why_it_is_faster():
    (line,) = explanation(one_pass(3), one_pass(4))
    assert "3 of 4 texts were found in the cache" in line
    assert "computed 1" in line


def test_other_vectors_from_the_cache_are_noticed():
    with pytest.raises(DemoFailed):
        check_same(
            one_pass(0), Pass(vectors=np.zeros((4, 4), np.float32), seconds=1, cache_hits=4, tokens=0, model="m")
        )


def test_a_text_without_vector_fails_the_demo():
    bad = [Doc(name="bad", text="bad: text", is_module=True)]
    with pytest.raises(DemoFailed, match="no vector"):
        talk_sync(Double(), lambda client: embed_all(client, bad, "embedding"))

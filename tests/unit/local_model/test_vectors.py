"""The built-in model: exact to the published one, robust against any text."""

import random
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from citadel_embeddings.backends.local import LocalModel
from citadel_embeddings.backends.local import tokens as tokens_module
from citadel_embeddings.backends.local.batches import by_length, pooled
from citadel_embeddings.backends.local.tokens import WordPieces
from citadel_embeddings.backends.local.weights import TOKENIZER
from tests.support.local_model import REFERENCE, cosine, text_of, vector_of

pytestmark = pytest.mark.local_model

# sentence-transformers' documentation: quickstart and semantic textual similarity
PUBLISHED = [
    ("A man is eating food.", "A man is eating a piece of bread.", 0.755),
    ("The weather is lovely today.", "It's so sunny outside!", 0.6660),
    ("The weather is lovely today.", "He drove to the stadium.", 0.1046),
    ("It's so sunny outside!", "He drove to the stadium.", 0.1411),
    ("The new movie is awesome", "The dog plays in the garden", 0.0543),
    ("The new movie is awesome", "The new movie is so great", 0.8939),
    ("The new movie is awesome", "A woman watches TV", -0.0502),
    ("The cat sits outside", "The dog plays in the garden", 0.2838),
    ("The cat sits outside", "The new movie is so great", -0.0029),
    ("The cat sits outside", "A woman watches TV", 0.1310),
    ("A man is playing guitar", "The dog plays in the garden", 0.2277),
    ("A man is playing guitar", "The new movie is so great", -0.0136),
    ("A man is playing guitar", "A woman watches TV", -0.0327),
]


@pytest.mark.parametrize("case", REFERENCE, ids=lambda case: case["name"])
def test_a_vector_is_the_reference_implementations(model, case):
    encoded = model.encode([text_of(case)])

    assert cosine(encoded.vectors[0], vector_of(case)) >= 0.999999
    assert encoded.tokens == [case["tokens"]]
    assert encoded.truncated == [case["truncated"]]


@pytest.mark.parametrize(("one", "other", "similarity"), PUBLISHED)
def test_similarities_are_the_published_ones(model, one, other, similarity):
    first, second = model.encode([one, other]).vectors

    assert cosine(first, second) == pytest.approx(similarity, abs=5e-4)


def test_vectors_are_normalised_float32_rows(model):
    vectors = model.encode([text_of(case) for case in REFERENCE]).vectors

    assert vectors.shape == (len(REFERENCE), LocalModel.DIMENSIONS)
    assert vectors.dtype == np.float32
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, atol=1e-6)


def test_no_texts_give_no_vectors(model):
    encoded = model.encode([])

    assert encoded.vectors.shape == (0, LocalModel.DIMENSIONS)
    assert (encoded.tokens, encoded.truncated) == ([], [])


@pytest.mark.parametrize("seed", range(3))
def test_each_vector_belongs_to_its_text_whatever_else_is_in_the_batch(model, seed):
    cases = random.Random(seed).choices(REFERENCE, k=60)

    encoded = model.encode([text_of(case) for case in cases])

    np.testing.assert_allclose(encoded.vectors, [vector_of(case) for case in cases], atol=1e-5)
    assert encoded.tokens == [case["tokens"] for case in cases]
    assert encoded.truncated == [case["truncated"] for case in cases]


def test_a_text_alone_gives_the_vector_it_gives_in_a_batch(model):
    texts = [text_of(case) for case in REFERENCE]

    together = model.encode(texts).vectors

    np.testing.assert_allclose(together, [model.encode([text]).vectors[0] for text in texts], atol=1e-5)


def test_threads_calling_at_once_get_their_own_vectors(model):
    cases = REFERENCE[:16] * 4

    with ThreadPoolExecutor(8) as threads:
        encoded = list(threads.map(lambda case: model.encode([text_of(case)]).vectors[0], cases))

    np.testing.assert_allclose(encoded, [vector_of(case) for case in cases], atol=1e-5)


def test_the_identity_names_the_weights(model):
    assert model.identity == "all-minilm@53aa51172d14"


# --- tokens and truncation ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("words", "used", "cut"), [(253, 255, False), (254, 256, False), (255, 256, True)])
def test_truncation_is_reported_from_the_257th_token_on(model, words, used, cut):
    encoded = model.encode(["word " * words])

    assert (encoded.tokens, encoded.truncated) == ([used], [cut])


def test_text_after_the_256th_token_does_not_matter(model):
    first, second = model.encode(["word " * 254, "word " * 254 + "something else altogether"]).vectors

    np.testing.assert_allclose(first, second, atol=1e-5)


def test_reading_only_the_first_window_gives_the_same_pieces(monkeypatch):
    rng = random.Random(7)
    alphabet = ["word", "antidisestablishmentarianism", "é", "中", "[SEP]", "x" * 100, "y" * 101, "!", " " * 30]
    texts = [rng.choice(["", " "]).join(rng.choices(alphabet, k=rng.randint(50, 800))) for _ in range(250)]
    pieces = WordPieces(TOKENIZER.verified(), limit=256)

    windowed = pieces.split(texts)
    monkeypatch.setattr(tokens_module, "WINDOW", 10**9)
    whole = pieces.split(texts)

    assert [piece.cut(256) for piece in windowed] == [piece.cut(256) for piece in whole]
    assert [piece.count(256) > 256 for piece in windowed] == [piece.count(256) > 256 for piece in whole]


@pytest.mark.parametrize("text", ["z" * 1_000_000, "a" + " " * 1_000_000 + "b", "中" * 1_000_000, "e\u0301" * 500_000])
def test_a_megabyte_of_anything_costs_a_bounded_effort(model, text):
    started = time.process_time()

    encoded = model.encode([text])

    assert time.process_time() - started < 4  # CPU seconds of all threads
    assert encoded.truncated == [True]
    assert encoded.tokens[0] <= LocalModel.MAX_TOKENS


def test_a_lone_surrogate_is_refused_with_the_texts_index(model):
    with pytest.raises(ValueError, match=r"text 2 is not valid Unicode.*character 3"):
        model.encode(["fine", "also fine", "not\ud83dfine"])


# --- batches -----------------------------------------------------------------------------------------------------


def test_batches_hold_every_text_once_within_the_token_budget():
    lengths = random.Random(3).choices(range(2, 257), k=200)

    batches = list(by_length(lengths, budget=1024))

    assert sorted(index for batch in batches for index in batch) == list(range(200))
    assert all(len(batch) * max(lengths[index] for index in batch) <= 1024 for batch in batches)


def test_a_text_over_the_budget_goes_alone():
    assert list(by_length([5, 2000, 5], budget=1000)) == [[1], [0, 2]]


def test_padding_never_reaches_a_vector():
    hidden = np.full((2, 3, 4), np.nan, dtype=np.float32)
    hidden[0], hidden[1, :1] = 1, 2

    np.testing.assert_allclose(pooled(hidden, [3, 1]), np.full((2, 4), 0.5))

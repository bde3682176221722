"""The model, and a cache that it has filled."""

import importlib.util
import shutil
from pathlib import Path

import pytest

from citadel_embeddings.backends.local import LocalModel
from citadel_embeddings.backends.local.weights import PACKAGE
from tests.support.required import lacking


@pytest.fixture(scope="session", autouse=True)
def packages():
    missing = [name for name in ("ctranslate2", "tokenizers", PACKAGE) if importlib.util.find_spec(name) is None]
    if missing:
        lacking(f"the built-in model's packages are not installed: {', '.join(missing)}")


@pytest.fixture(scope="session")
def warm_cache(tmp_path_factory, packages):
    directory = tmp_path_factory.mktemp("local-model")
    LocalModel.load(cache_dir=directory).close()
    return directory


@pytest.fixture(scope="session")
def model(warm_cache):
    return LocalModel.load(cache_dir=warm_cache)


@pytest.fixture
def cache(warm_cache, tmp_path):
    return Path(shutil.copytree(warm_cache, tmp_path / "cache"))

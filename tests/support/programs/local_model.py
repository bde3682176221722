"""A process with the local model: `python -m tests.support.programs.local_model [CACHE_DIR [TEXT]]`.

Imports the package and, with a cache directory, loads the model; with a text, waits for a line on standard input, loads
the model and writes the vector of the text. At the end, fails if a package was imported that must not be.
"""

import sys
from pathlib import Path

from citadel_embeddings.backends.local import LocalModel
from citadel_embeddings.backends.local.weights import PACKAGE

NEVER = {"torch", "sentence_transformers", PACKAGE}
ONLY_TO_LOAD = {"ctranslate2", "tokenizers"}

if __name__ == "__main__":
    directory, text = [*sys.argv[1:], None, None][:2]
    if text is not None:
        sys.stdin.readline()
    if directory is not None:
        model = LocalModel.load(cache_dir=Path(directory), threads=1)
    if text is not None:
        sys.stdout.buffer.write(model.encode([text]).vectors.tobytes())
    forbidden = NEVER | (set() if directory is not None else ONLY_TO_LOAD)
    assert not sys.modules.keys() & forbidden, sys.modules.keys() & forbidden

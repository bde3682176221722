"""A certificate authority of the tests' own, and certificates that it has signed."""

import os
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tests.support.required import program


@dataclass(frozen=True, kw_only=True)
class Certificate:
    """A certificate and its key, as PEM files."""

    file: Path
    key: Path


class PrivateAuthority:
    """An authority that no system trusts."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._openssl = program("openssl")
        usage = ("basicConstraints=critical,CA:TRUE", "keyUsage=critical,keyCertSign", "subjectKeyIdentifier=hash")
        self.certificate = self._made("authority", usage)

    @property
    def file(self) -> Path:
        """The authority's certificate (PEM)."""
        return self.certificate.file

    def sign(self, *names: str) -> Certificate:
        """Return a certificate for names and addresses of a host, or for a client of that name."""
        listed = ",".join(f"IP:{name}" if name.replace(".", "").isdigit() else f"DNS:{name}" for name in names)
        extensions = ("basicConstraints=critical,CA:FALSE", f"subjectAltName={listed}", "authorityKeyIdentifier=keyid")
        return self._made(names[0], extensions, "-CA", str(self.file), "-CAkey", str(self.certificate.key))

    def _made(self, name: str, extensions: Sequence[str], *arguments: str) -> Certificate:
        made = Certificate(file=self._folder / f"{name}.pem", key=self._folder / f"{name}.key")
        added = (part for extension in extensions for part in ("-addext", extension))
        kind = ("-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        files = ("-config", os.devnull, "-keyout", str(made.key), "-out", str(made.file))
        command = [self._openssl, "req", *kind, "-subj", f"/CN={name}", *files, *added, *arguments]
        subprocess.run(command, check=True, capture_output=True)
        return made

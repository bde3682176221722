"""Sources of settings: variables, files that variables name, and a directory of secrets, in this order."""

import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeGuard, get_args
from urllib.parse import quote

from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_settings import EnvSettingsSource, SettingsError

PREFIX = "CITADEL_"
FILE_SUFFIX = "_file"
SECRETS_DIR = "CITADEL_SECRETS_DIR"
MOUNTED_SECRETS = Path("/run/secrets")
"""Looked into unless `CITADEL_SECRETS_DIR` names another directory; it need not be there."""
_PASSWORD_PAIR = re.compile(r"(^|\s)password\s*=")
_PASSWORD_PARAMETER = re.compile(r"[?&]password=")


class FileEnvSource(EnvSettingsSource):
    """Environment variables, where `X_FILE` gives `X` by a file's content, and lists need not be JSON.

    Third, a file in the directory of secrets, named as the variable in lower case, gives a value. Files for settings
    that these settings do not have are ignored: they are for other processes.
    """

    def decode_complex_value(self, field_name: str, field: FieldInfo, value: Any) -> Any:
        """Return the value of JSON text; other text as it is, for the field's own validation."""
        try:
            return super().decode_complex_value(field_name, field, value)
        except ValueError:
            return value

    def _load_env_vars(self) -> Mapping[str, str | None]:
        variables = dict(super()._load_env_vars())
        for name in [name for name, path in variables.items() if path and self._names_a_file(name)]:
            content = _content(Path(variables.pop(name) or ""), name.upper())
            variables.setdefault(name.removesuffix(FILE_SUFFIX), content)
        for file in _secrets():
            target = file.name.lower()
            if target not in variables and self._is_ours(target):
                variables[target] = _content(file, target.upper())
        return variables

    def _names_a_file(self, name: str) -> bool:
        target = name.removesuffix(FILE_SUFFIX)
        return name != target and self._is_ours(target) and not names_a_field(self.settings_cls, _path(name))

    def _is_ours(self, name: str) -> bool:
        head, _, _ = _path(name).partition("__")
        return name.startswith(PREFIX.lower()) and head in self.settings_cls.model_fields


def names_a_field(model: type[BaseModel], path: str) -> bool:
    """Return whether `a__b` names a field, such as `worker__health_file`, or a field of any entry of a map."""
    head, _, rest = path.partition("__")
    field = model.model_fields.get(head)
    if field is None or not rest:
        return field is not None
    if _is_model(field.annotation):
        return names_a_field(field.annotation, rest)
    rest = rest.partition("__")[2]
    return bool(rest) and any(names_a_field(kind, rest) for kind in get_args(field.annotation) if _is_model(kind))


def with_password(address: str, password: str) -> str:
    """Return the URL, each of sentinels' URLs, or PostgreSQL's `key=value` pairs, with the password if it has none."""
    if "://" not in address:
        return _pairs_with_password(address, password)
    parts = address.split(";") if address.startswith("sentinel") else [address]
    return ";".join(_part_with_password(part, quote(password, safe="")) for part in parts)


def _pairs_with_password(pairs: str, password: str) -> str:
    if not pairs or _PASSWORD_PAIR.search(pairs):
        return pairs
    escaped = password.replace("\\", "\\\\").replace("'", "\\'")
    return f"{pairs} password='{escaped}'"


def _part_with_password(url: str, password: str) -> str:
    scheme, separator, rest = url.partition("://")
    place, slash, path = rest.partition("/")
    user, at, host = place.rpartition("@")
    if not separator or ":" in user or _PASSWORD_PARAMETER.search(url):
        return url
    return f"{scheme}://{user}:{password}@{host if at else place}{slash}{path}"


def _path(name: str) -> str:
    return name.removeprefix(PREFIX.lower())


def _is_model(kind: Any) -> TypeGuard[type[BaseModel]]:
    return isinstance(kind, type) and issubclass(kind, BaseModel)


def _secrets() -> Iterator[Path]:
    named = os.environ.get(SECRETS_DIR)
    directory = Path(named) if named else MOUNTED_SECRETS
    try:
        files = sorted(directory.iterdir())
    except OSError as error:
        if named:
            raise SettingsError(f"{SECRETS_DIR}: cannot read {directory}: {error.strerror}") from error
        return
    yield from (file for file in files if file.name.upper().startswith(PREFIX))


def _content(file: Path, name: str) -> str:
    try:
        return file.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not UTF-8"
        raise SettingsError(f"{name}: cannot read {file}: {reason}") from error

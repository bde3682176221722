"""Errors that only an HTTP server has; the others are `citadel_common.errors`."""

from collections.abc import Mapping

from citadel_common.errors import CitadelError


class ApiError(CitadelError):
    """The request cannot be served."""

    def __init__(self, message: str = "", *, headers: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.headers = dict(headers or {})


class MalformedBody(ApiError):
    """The body is not JSON."""

    code = "malformed_body"
    status = 400


class Unauthorized(ApiError):
    """An API key is needed: send `Authorization: Bearer <key>`."""

    code = "unauthorized"
    status = 401


class Forbidden(ApiError):
    """This is not allowed."""

    code = "forbidden"
    status = 403


class TaskNotFound(ApiError):
    """There is no such task, or its result has expired."""

    code = "task_not_found"
    status = 404


class UploadStalled(ApiError):
    """The body stopped coming; nothing of it was kept."""

    code = "upload_stalled"
    status = 408


class BodyTooLarge(ApiError):
    """The body is too large."""

    code = "body_too_large"
    status = 413


class UnsupportedMediaType(ApiError):
    """The body must be JSON: send `Content-Type: application/json`."""

    code = "unsupported_media_type"
    status = 415


class RateLimited(ApiError):
    """Too many requests."""

    code = "rate_limited"
    status = 429


class Stopping(ApiError):
    """The server stops; connect again."""

    code = "stopping"
    status = 503
    transient = True


class InvalidBody(ApiError):
    """The body has bad fields; `fields` maps each one's JSON pointer to what is wrong with it."""

    code = "invalid_input"
    status = 422

    def __init__(self, message: str, fields: Mapping[str, str]) -> None:
        super().__init__(message)
        self.fields = dict(fields)

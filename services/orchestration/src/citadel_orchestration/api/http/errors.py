"""Errors that only the HTTP server raises; the others are in `citadel_common.errors`."""

from citadel_common.errors import CitadelError


class MalformedRequest(CitadelError):
    """This is not an HTTP/1.1 request."""

    code = "malformed_request"


class UrlTooLong(CitadelError):
    """The path with its query is too long."""

    code = "url_too_long"


class HeadersTooLarge(CitadelError):
    """The request has too many headers, or too many bytes of them."""

    code = "headers_too_large"


class HeadersTimedOut(CitadelError):
    """The headers of the request did not arrive in time."""

    code = "headers_timed_out"


class TooManyConnections(CitadelError):
    """Your address has too many open connections."""

    code = "too_many_connections"


class TooManyStreams(CitadelError):
    """You follow too many streams at once."""

    code = "too_many_streams"


class MalformedBody(CitadelError):
    """The body is not JSON."""

    code = "malformed_body"


class Unauthorized(CitadelError):
    """An API key is needed: send `Authorization: Bearer <key>`.

    Attributes:
        challenge: Value of the `WWW-Authenticate` header.
    """

    code = "unauthorized"
    challenge = 'Bearer realm="citadel"'


class Forbidden(CitadelError):
    """This is not allowed."""

    code = "forbidden"


class TaskNotFound(CitadelError):
    """There is no such task, or its result has expired."""

    code = "task_not_found"


class MethodNotAllowed(CitadelError):
    """The route does not have this method."""

    code = "method_not_allowed"


class UploadStalled(CitadelError):
    """The body came too slowly; nothing of it was kept."""

    code = "upload_stalled"


class BodyTooLarge(CitadelError):
    """The body is too large."""

    code = "body_too_large"


class UnsupportedMediaType(CitadelError):
    """The body must be JSON: send `Content-Type: application/json`."""

    code = "unsupported_media_type"


class RateLimited(CitadelError):
    """Too many requests."""

    code = "rate_limited"


class Stopping(CitadelError):
    """The server stops; connect again."""

    code = "stopping"

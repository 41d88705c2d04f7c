"""What can go wrong, sorted by what a program can do next."""

from __future__ import annotations

from typing import Optional


class LastkeyError(Exception):
    """The base of everything that this package raises about its own work."""


class ConfigError(LastkeyError):
    """No server is configured, or the configuration cannot be used."""


class UnreachableError(LastkeyError):
    """The server was not reached or did not answer in time; worth another try later."""


class EnvelopeError(LastkeyError):
    """Not an envelope, damaged, cut short, for somebody else, or with another context."""


class ServerError(LastkeyError):
    """The server refused.

    ``code`` is its error code, ``request_id`` finds the request in its logs, ``retry_after`` is
    in seconds when the server says it.
    """

    code: str
    request_id: str
    retry_after: Optional[float]

    def __init__(
        self,
        message: str,
        code: str = "",
        request_id: str = "",
        retry_after: Optional[str] = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.request_id = request_id
        self.retry_after = None if retry_after is None else float(retry_after)


class DeniedError(ServerError):
    """The caller is unknown or may not do this. Asking again does not help."""

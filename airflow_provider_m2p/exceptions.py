"""
Errors, named by what the reader can do next.

::

    M2PError
    ├── M2PConfigError            mend the connection or the operator's arguments
    ├── M2PResponseError          the platform answered in a shape we do not know
    │   └── M2PPaginationError    ... or its pages contradict each other
    ├── M2PSchemaError            the data do not fit the table or its policy
    ├── M2PLoadError              the warehouse refused, or the load would do harm
    │   └── M2PWarehouseAccessError   ... until somebody changes a privilege, the login or the path
    └── M2PApiError               the platform refused the request
        ├── M2PAuthError          client id, client secret or token
        ├── M2PPermissionError    role, tenant or IP whitelist
        └── M2PRateLimitError     slow down, then try again
"""

from __future__ import annotations


class M2PError(Exception):
    """
    Base of every error this provider raises. Its message is one line, whatever names are in it.

    :param message: what happened and what to check.
    """

    def __init__(self, message: str) -> None:
        super().__init__("".join(char if char.isprintable() else " " for char in message))


class M2PConfigError(M2PError):
    """The connection or an argument is wrong; no retry can help."""


class M2PResponseError(M2PError):
    """The platform answered with something that cannot be understood without guessing."""


class M2PPaginationError(M2PResponseError):
    """The pages of one list contradict each other: repeated, missing, or without end."""


class M2PSchemaError(M2PError):
    """The rows do not fit the table, its key or its schema policy. Nothing was written."""


class M2PLoadError(M2PError):
    """The warehouse refused the load, or the load was refused to protect the table."""


class M2PWarehouseAccessError(M2PLoadError):
    """The warehouse does not let this user in, or not do this; no retry can help."""


class M2PApiError(M2PError):
    """
    The platform answered with an error.

    :param message: what happened and what to check; never a secret, token or customer value.
    :param status_code: the HTTP status, ``None`` when no answer arrived.
    :param business_code: the platform's code such as ``PP_CORP_028``, from ``businessCode`` or ``business.code``.
    :param request_id: the ``X-Request-ID`` to quote to the platform's support.
    :param retry_after: seconds the platform asked us to wait, where it said so.
    """

    def __init__(
        self,
        message: str,
        *,
        status_code: int | None = None,
        business_code: str | None = None,
        request_id: str | None = None,
        retry_after: float | None = None,
    ) -> None:
        super().__init__(message)
        self.status_code = status_code
        self.business_code = business_code
        self.request_id = request_id
        self.retry_after = retry_after


class M2PAuthError(M2PApiError):
    """The platform does not accept the client id, the client secret or the token."""


class M2PPermissionError(M2PApiError):
    """The token is good, but its role, tenant or address may not do this (HTTP 403)."""


class M2PRateLimitError(M2PApiError):
    """The platform kept answering 429 for longer than we may wait."""

"""
Refusals, in the problem shape the vendor documents.

The vendor gives no codes for authentication, roles or its Configuration API, so those are the sandbox's own (``SBX_``).
``PP_CORP_028`` and ``PP_CORP_187`` are the vendor's. Its pages spell the member ``business.code`` in one place and
``businessCode`` in another; here the gateway's refusals use the first and the business rules' the second.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from enum import Enum
from http import HTTPStatus
from typing import Any

import msgspec
from starlette.responses import Response

MEDIA_TYPE = "application/problem+json"
TYPE = "https://www.m2pfintech.com/problem/problem-with-message"
TYPE_VALIDATION = "https://www.m2pfintech.com/problem/constraint-violation"


class Code(Enum):
    """Status and business code of every refusal."""

    INVALID = 400, "SBX_001"
    TENANT_MISSING = 400, "SBX_002"
    CREDENTIALS = 401, "SBX_010"
    TOKEN_MISSING = 401, "SBX_011"
    TOKEN_INVALID = 401, "SBX_012"
    TOKEN_EXPIRED = 401, "SBX_013"
    TOKEN_REVOKED = 401, "SBX_014"
    OTHER_TENANT = 403, "SBX_020"
    ROLE = 403, "SBX_021"
    ADDRESS = 403, "SBX_022"
    OWN_CHANGE = 403, "SBX_023"
    NOT_FOUND = 404, "SBX_030"
    METHOD = 405, "SBX_031"
    REQUEST_ID_REUSED = 409, "SBX_040"
    CHANGE_PENDING = 409, "SBX_041"
    NO_BIN = 409, "PP_CORP_028"
    ILLEGAL_TRANSITION = 409, "PP_CORP_187"
    RATE_LIMIT = 429, "SBX_050"
    INTERNAL = 500, "SBX_900"
    FAULT = 0, "SBX_999"

    @property
    def status(self) -> int:
        return int(self.value[0])

    @property
    def business(self) -> bool:
        """Whether a business rule refused, and not the gateway."""
        return self.status in (400, 404, 409)


class Problem(Exception):
    """
    A refusal on its way to the caller.

    :param detail: what happened and what to do, in a sentence.
    :param fields: ``(field, message)`` of the parts of the request that are wrong.
    :param headers: more headers for the answer.
    :param status: overrides the status of ``code``.
    """

    def __init__(
        self,
        code: Code,
        detail: str,
        *,
        fields: Sequence[tuple[str, str]] = (),
        headers: Mapping[str, str] | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail
        self.fields = fields
        self.headers = dict(headers or {})
        self.status = status or code.status
        if self.status == 401:
            self.headers.setdefault("WWW-Authenticate", "Bearer")

    def body(self, path: str) -> dict[str, Any]:
        """The problem document for a request to this path."""
        kind = "error.business" if self.code.business else f"error.http.{self.status}"
        try:
            title = HTTPStatus(self.status).phrase
        except ValueError:
            title = "Error"
        body = {
            "type": TYPE_VALIDATION if self.fields else TYPE,
            "title": title,
            "status": self.status,
            "detail": self.detail,
            "path": path,
            "message": "error.validation" if self.fields else kind,
            "businessCode" if self.code.business else "business.code": self.code.value[1],
        }
        if self.fields:
            body["fieldErrors"] = [{"field": field, "message": message} for field, message in self.fields]
        return body

    def response(self, path: str) -> Response:
        return Response(msgspec.json.encode(self.body(path)), self.status, headers=self.headers, media_type=MEDIA_TYPE)

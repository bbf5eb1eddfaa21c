"""Answers of lists: which shapes there are, and which are none."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import msgspec
import requests

from airflow_provider_m2p.client.problem import one_line, read_problem, saying, typed_error
from airflow_provider_m2p.client.transport import Call
from airflow_provider_m2p.exceptions import M2PPaginationError, M2PResponseError

_ABSURD = 10**12


@dataclass(frozen=True, slots=True)
class Pagination:
    """
    What an answer says about pages; ``None`` where it does not say.

    :param page_no: the page's number.
    :param page_size: rows of a full page.
    :param total_pages: pages in all.
    :param total_rows: rows in all.
    """

    page_no: int | None = None
    page_size: int | None = None
    total_pages: int | None = None
    total_rows: int | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """
    The rows of one answer and what it says about pages.

    :param rows: each row's exact bytes.
    :param pagination: what the answer says about pages.
    :param has_escapes: whether there is a backslash anywhere in it.
    :param unpaged: it says ``"pagination": null``, as the platform's lists without pages do.
    :param single: its result is one object and not an array.
    """

    rows: list[msgspec.Raw]
    pagination: Pagination
    has_escapes: bool
    unpaged: bool = False
    single: bool = False


class _Envelope(msgspec.Struct):
    """The usual answer, decoded no deeper than needed, and the keys that make an answer unusual."""

    result: list[msgspec.Raw]
    pagination: msgspec.Raw = msgspec.Raw()
    status: msgspec.Raw = msgspec.Raw()
    exception: msgspec.Raw = msgspec.Raw()
    code: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="businessCode")
    dotted_code: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="business.code")
    error_code: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="errorCode")
    field_errors: msgspec.Raw = msgspec.field(default=msgspec.Raw(), name="fieldErrors")
    business: msgspec.Raw = msgspec.Raw()

    def is_usual(self) -> bool:
        """Tell whether none of the keys of a problem object is there."""
        return not (
            bytes(self.status)
            or bytes(self.exception)
            or bytes(self.code)
            or bytes(self.dotted_code)
            or bytes(self.error_code)
            or bytes(self.field_errors)
            or bytes(self.business)
        )


_envelopes = msgspec.json.Decoder(_Envelope)
_arrays = msgspec.json.Decoder(list[msgspec.Raw])
_objects = msgspec.json.Decoder(dict[str, msgspec.Raw])


def read_answer(response: requests.Response, call: Call, secrets: tuple[str, ...] = ()) -> Answer:
    """
    Return the rows of an answer. Every shape but the known ones is an error: zero rows are never assumed.

    :param response: an answer whose status is no error.
    :param call: what was asked.
    :param secrets: texts that messages must not repeat.
    """
    if response.status_code != 200:
        raise M2PResponseError(call.says(f"HTTP {response.status_code} instead of 200: that is no list."))
    body = response.content
    has_escapes = b"\\" in body
    try:
        if body[:64].lstrip()[:1] == b"[":
            return Answer(_arrays.decode(body), Pagination(), has_escapes)
        envelope = _envelope(body)
        if envelope is None:
            return _unusual(body, has_escapes, call, secrets)
        return _list(envelope.result, has_escapes, envelope.pagination, call)
    except UnicodeDecodeError:
        problem = "not UTF-8"
    except RecursionError:
        problem = "nested too deeply"
    except msgspec.DecodeError as error:
        problem = str(error)
    kind = one_line(response.headers.get("Content-Type"), secrets, 60) or "no content type"
    hint = "A gateway or login page may have answered: check host, path and proxy."
    if "json" in kind:
        hint = "It was cut off on its way, or the platform writes broken JSON, such as half a surrogate pair."
    raise M2PResponseError(
        call.says(f"HTTP 200, but the answer is not JSON: {kind}, {len(body)} bytes, {problem}. {hint}")
    )


def _envelope(body: bytes) -> _Envelope | None:
    """Return the usual answer, or ``None`` if it is another."""
    try:
        envelope = _envelopes.decode(body)
    except msgspec.ValidationError:
        return None
    return envelope if envelope.is_usual() else None


def _list(rows: list[msgspec.Raw], has_escapes: bool, pagination: msgspec.Raw, call: Call) -> Answer:
    text = bytes(pagination)
    if not text:
        return Answer(rows, Pagination(), has_escapes)
    if text == b"null":
        return Answer(rows, Pagination(), has_escapes, unpaged=True)
    return Answer(rows, _pagination(text, bool(rows), call), has_escapes)


def _unusual(body: bytes, has_escapes: bool, call: Call, secrets: tuple[str, ...]) -> Answer:
    """Read what is no plain list: one object as the result, a problem object, or something unknown."""
    try:
        document = _objects.decode(body)
    except msgspec.ValidationError:
        raise M2PResponseError(call.says("HTTP 200, but the answer is neither an object nor an array.")) from None
    shallow = {name: _small(value) for name, value in document.items() if name not in ("result", "pagination")}
    problem = read_problem(shallow, secrets)
    if problem is not None:
        raise typed_error(problem.status or 200, problem, call, "HTTP 200, but the answer is a problem object")
    if "result" not in document:
        keys = ", ".join(saying(name, secrets, 40) or "''" for name in list(document)[:20]) or "none"
        raise M2PResponseError(
            call.says(
                "HTTP 200, but the answer has no known shape: neither an array nor an object with 'result'. "
                f"Its keys: {keys}. Check that the path is a list."
            )
        )
    result, pagination = document["result"], document.get("pagination", msgspec.Raw())
    start = bytes(result)[:1]
    if start == b"[":
        return _list(_arrays.decode(result), has_escapes, pagination, call)
    answer = _list([result] if start == b"{" and _objects.decode(result) else [], has_escapes, pagination, call)
    if not answer.rows and answer.pagination.total_rows != 0:
        found = {b"{": "an empty object", b"n": "null"}.get(start, "neither an array nor an object")
        raise M2PResponseError(
            call.says(f"HTTP 200, but 'result' is {found}, and no pagination says that there are no rows.")
        )
    if start not in (b"{", b"n"):
        raise M2PResponseError(call.says("HTTP 200, but 'result' is neither an array nor an object."))
    return Answer(answer.rows, answer.pagination, has_escapes, single=True)


def _small(value: msgspec.Raw) -> Any:
    return msgspec.json.decode(value)


def _pagination(text: bytes, has_rows: bool, call: Call) -> Pagination:
    try:
        fields = _objects.decode(text)
    except msgspec.ValidationError:
        raise M2PResponseError(call.says("'pagination' is neither an object nor null.")) from None

    def count(name: str) -> int | None:
        value = _small(fields[name]) if name in fields else None
        if value is None:
            return None
        number = _whole(value)
        if number is None or not 0 <= number <= _ABSURD:
            raise M2PPaginationError(call.says(f"'pagination.{name}' is not a number of pages or rows."))
        return number

    page_size, total_pages, total_rows = count("pageSize"), count("totalPages"), count("totalElements")
    if has_rows and not page_size and not total_rows:
        # All zero, next to rows: a placeholder that says nothing.
        total_rows = None
    if has_rows and not total_pages:
        total_pages = None
    return Pagination(count("pageNo"), page_size or None, total_pages, total_rows)


def _whole(value: Any) -> int | None:
    """Return a whole number, sent as a number or as text."""
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) < 20:
        return int(value)
    if isinstance(value, float) and math.isfinite(value) and value == int(value):
        return int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) else None

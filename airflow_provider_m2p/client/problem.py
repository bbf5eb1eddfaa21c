"""Problem answers: what the platform says went wrong, as the error that says what to do next."""

from __future__ import annotations

import http.client
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec
import requests

from airflow_provider_m2p.client.retry import ATTEMPTS, FEW_ATTEMPTS, Transient, retry_after
from airflow_provider_m2p.client.transport import Call
from airflow_provider_m2p.exceptions import (
    M2PApiError,
    M2PAuthError,
    M2PPermissionError,
    M2PRateLimitError,
)

_ATTEMPTS = {429: ATTEMPTS, 500: FEW_ATTEMPTS, 502: ATTEMPTS, 503: ATTEMPTS, 504: ATTEMPTS}
_KINDS = {401: M2PAuthError, 403: M2PPermissionError, 429: M2PRateLimitError}
_HINTS = {
    400: "Check endpoint, parameters and page_size.",
    401: "Check client id and client secret (login and password): a fresh token was refused, too.",
    403: "Check the client's role, the tenant (extra 'tenant_id') and the platform's IP whitelist.",
    404: "Check the path.",
    409: (
        "The state of the object does not allow it, or the same X-Request-ID was sent with other content. A change "
        "that waits for approval is approved or rejected by another user than its maker."
    ),
    429: "Lower max_requests_per_minute or max_concurrency, or run fewer tasks at once.",
}
_LONGEST_SAYING = 100_000
_CODE = re.compile(r"[A-Za-z0-9_.:-]{1,64}")
#: What may stand between the digits of a number.
_GAP = r"[ ()./_*|\u00b7\u2010-\u2015\u2212-]"
#: Numbers that are nobody's, unless they are a part of a longer one.
_HARMLESS = rf"""
    \b[0-9a-fA-F]{{8}}(?:-[0-9a-fA-F]{{4}}){{3}}-[0-9a-fA-F]{{12}}\b  # a request id
    | \b20[2-9]\d[-/](?:0[1-9]|1[0-2])[-/](?:0[1-9]|[12]\d|3[01])  # a time, and nobody's birthday
        (?:[T ]\d\d:\d\d(?::\d\d(?:\.\d+)?)?)?(?![./_-]?\d)
    | (?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)(?:\.(?=\d)|(?!\d))){{4}}(?![()./_\u2010-\u2015-]{{0,2}}\d)  # a host
    | (?<!\d)(?<!\d{_GAP})(?<!\d{_GAP * 2})(?<!\d{_GAP * 3})  # an amount, or so many of so many
        (?:\d{{1,7}}\.\d\d|\d{{1,4}}/\d{{1,4}})(?!{_GAP}{{0,3}}\d)
"""
_PERSONAL = re.compile(
    rf"""
    (?P<harmless>{_HARMLESS})
    | \+?\d(?:\d|{_GAP}{{1,3}}(?!{_HARMLESS})\d){{5,}}
    | (?<![A-Za-z])(?:[A-Za-z]{{5}}\d{{4}}[A-Za-z]|[A-Z]{{5}}[ -]\d{{4}}[ -][A-Z])(?![A-Za-z])
    | [^\s@<>(),;:]+@[^\s@<>(),;:]+
    """,
    re.VERBOSE,
)
#: What only problem objects have. Each counts unless it is null, empty or zero.
_PROBLEM_KEYS = ("businessCode", "business.code", "exception", "errorCode", "fieldErrors")


@dataclass(frozen=True, slots=True)
class Problem:
    """
    What can be read from a problem object.

    :param status: the HTTP status it names.
    :param code: the platform's business code.
    :param text: title, detail, category and field errors, on one line.
    """

    status: int | None = None
    code: str | None = None
    text: str = ""


def read_problem(document: Any, secrets: Iterable[str] = ()) -> Problem | None:
    """
    Return the problem a decoded JSON document describes, or ``None`` if it describes none.

    :param document: any JSON value.
    :param secrets: texts that must not be repeated.
    """
    if not isinstance(document, Mapping):
        return None
    status = _status(document.get("status"))
    if not (status and status >= 400) and not any(document.get(key) for key in _PROBLEM_KEYS):
        business = document.get("business")
        if not (isinstance(business, Mapping) and business.get("code")):
            return None
    return describe_problem(document, secrets)


def describe_problem(document: Mapping[str, Any], secrets: Iterable[str] = ()) -> Problem:
    """
    Return what an object that came with an error status says.

    :param document: the decoded object.
    :param secrets: texts that must not be repeated.
    """
    secrets = [secret for secret in secrets if secret]
    business = document.get("business")
    nested = business.get("code") if isinstance(business, Mapping) else None
    candidates = (document.get("businessCode"), document.get("business.code"), nested, document.get("errorCode"))
    codes = (one_line(code, secrets) for code in candidates if isinstance(code, str | int) and code is not True)
    code = next((code for code in codes if _CODE.fullmatch(code)), None)
    status = _status(document.get("status"))
    # Words that say no more than the status.
    known = {f"error.http.{status}", http.client.responses.get(status or 0)}
    texts: list[str] = []
    for key in ("title", "detail", "message", "error", "error_description"):
        text = saying(document.get(key), secrets).rstrip(".")
        if text and text not in texts and text not in known:
            texts.append(text)
    fields = document.get("fieldErrors")
    for error in fields[:10] if isinstance(fields, list) else ():
        if isinstance(error, Mapping):
            name, text = saying(error.get("field"), secrets, 80), saying(error.get("message"), secrets, 120)
            text = text.rstrip(".")
            texts.append(f"field {name or '?'}: {text or 'not accepted'}")
    return Problem(status, code, "; ".join(texts))


def error_of(
    response: requests.Response,
    call: Call,
    *,
    now: float,
    secrets: Iterable[str] = (),
    hints: Mapping[int, str] | None = None,
) -> Exception:
    """
    Return the error that an answer with an error status becomes: ``Transient`` where a retry can help.

    :param response: an answer whose status is 400 or more.
    :param call: what was asked.
    :param now: the time, for a ``Retry-After`` date.
    :param secrets: texts that must not be repeated.
    :param hints: what to check, by status, where there is more to say than usual.
    """
    status = response.status_code
    try:
        document = msgspec.json.decode(response.content)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        document = None
    if isinstance(document, Mapping):
        problem = describe_problem(document, secrets)
    else:
        kind = one_line(response.headers.get("Content-Type"), secrets, 60) or "no content type"
        problem = Problem(text=f"the answer is no problem object but {kind}, {len(response.content)} bytes")
    wait = retry_after(response.headers, now)
    error = typed_error(status, problem, call, f"HTTP {status}", retry_after=wait, hints=hints)
    return Transient(error, _ATTEMPTS[status]) if status in _ATTEMPTS else error


def typed_error(
    status: int,
    problem: Problem,
    call: Call,
    what: str,
    *,
    retry_after: float | None = None,
    hints: Mapping[int, str] | None = None,
) -> M2PApiError:
    """
    Return the error class of a status, with all that is known in its message.

    :param status: decides the class and what there is to check.
    :param problem: what the platform said.
    :param call: what was asked.
    :param what: the first words of the message.
    :param retry_after: seconds the platform asked us to wait.
    :param hints: what to check, by status, where there is more to say than usual.
    """
    parts = [f"{what}, business code {problem.code}" if problem.code else what]
    if problem.text:
        parts.append(f": {problem.text}")
    hint = {**_HINTS, **(hints or {})}.get(status)
    text = "".join(parts).rstrip(".") + "."
    if retry_after:
        text += f" The platform asks to wait {retry_after:.0f} s."
    if hint:
        text += f" {hint}"
    return _KINDS.get(status, M2PApiError)(
        call.says(text),
        status_code=status,
        business_code=problem.code,
        request_id=call.request_id,
        retry_after=retry_after,
    )


def one_line(value: Any, secrets: Iterable[str] = (), limit: int = 300) -> str:
    """
    Return a text of the platform as it may stand in a message: on one line, short, without secrets.

    :param value: what the platform sent; anything but text and numbers becomes empty.
    :param secrets: texts that must not be repeated.
    :param limit: longest result.
    """
    if isinstance(value, bool) or not isinstance(value, str | int):
        return ""
    try:
        text = str(value)
    except ValueError:  # an integer of thousands of digits
        return ""
    text = _flat(text[:_LONGEST_SAYING])
    for secret in filter(None, map(_flat, secrets)):
        text = text.replace(secret, "***")
    return text if len(text) <= limit else text[: limit - 3] + "..."


def saying(value: Any, secrets: Iterable[str] = (), limit: int = 300) -> str:
    """
    Return words of the platform as :func:`one_line` does, without what may be a customer's.

    That is long numbers, such as those of cards, accounts, mobiles and identity cards, tax numbers (PAN) and mail
    addresses.

    :param value: what the platform sent; anything but text and numbers becomes empty.
    :param secrets: texts that must not be repeated.
    :param limit: longest result.
    """
    return _PERSONAL.sub(lambda found: found["harmless"] or "***", one_line(value, secrets, limit))


def _flat(text: str) -> str:
    return " ".join("".join(char if char.isprintable() else " " for char in text).split())


def _status(value: Any) -> int | None:
    if isinstance(value, str) and re.fullmatch(r"[1-5]\d\d", value, re.ASCII):
        value = int(value)
    return value if isinstance(value, int) and not isinstance(value, bool) and 100 <= value <= 599 else None

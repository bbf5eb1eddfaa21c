"""The platform's paging: ``pageNo`` from 0, ``pageSize`` of 10 unless asked, and its answers' envelope."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

import msgspec
from fastapi import Query
from starlette.responses import Response

PAGE_SIZE_DEFAULT = 10

PageNo = Annotated[int | None, Query(ge=0, description="Page, from 0.")]
PageSize = Annotated[int | None, Query(ge=1, description="Rows a page; the platform may give fewer.")]


def cut(rows: Sequence[bytes], page_no: int | None, page_size: int | None, most: int) -> tuple[Sequence[bytes], Any]:
    """
    One page of a list.

    :param rows: the whole list, each row as JSON.
    :param most: the largest page there is.
    :return: the page's rows and the pagination object, which is ``None`` if no page was asked for.
    """
    if page_no is None and page_size is None:
        return rows, None
    size = min(page_size or PAGE_SIZE_DEFAULT, most)
    number = page_no or 0
    pagination = {
        "list": True,
        "pageSize": size,
        "pageNo": number,
        "totalPages": -(-len(rows) // size),
        "totalElements": len(rows),
    }
    return rows[number * size : (number + 1) * size], pagination


def envelope(rows: Sequence[bytes], pagination: Any) -> Response:
    """The answer that carries a list."""
    body = b'{"result":[%b],"pagination":%b}' % (b",".join(rows), msgspec.json.encode(pagination))
    return Response(body, media_type="application/json")

"""The platform's paging: ``pageNo`` from 0, ``pageSize`` of 10 unless asked, and its answers' envelope."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, TypeAlias

import msgspec
from fastapi import Depends, Query, Request
from starlette.responses import Response

PAGE_SIZE_DEFAULT = 10
PageNo = Annotated[int | None, Query(ge=0, description="Page, from 0.")]
PageSize = Annotated[int | None, Query(ge=1, description="Rows a page; the platform may give fewer.")]
Rows: TypeAlias = Sequence[bytes]
Pick: TypeAlias = Callable[[Rows, int, int], Rows]


def pick(rows: Rows, number: int, size: int) -> Rows:
    """The rows of one page; faults put something worse in its place."""
    return rows[number * size : (number + 1) * size]


@dataclass(frozen=True)
class Paging:
    """
    The page a request asks for.

    :param size_max: largest page the platform gives.
    :param picks: chooses the rows of a page.
    :param moved: rows that have moved from the list's beginning to its end.
    """

    number: int | None
    size: int | None
    size_max: int
    picks: Pick = pick
    moved: int = 0

    def answer(self, rows: Rows) -> Response:
        """The asked page of these rows, or all of them with a null ``pagination`` if none was asked for."""
        if self.number is None and self.size is None:
            return envelope(self._pick(rows, 0, max(1, len(rows))), None)
        page, pagination = self._cut(rows)
        pagination = {
            "list": True,
            "pageSize": pagination["pageSize"],
            "pageNo": pagination["pageNo"],
            "totalPages": -(-len(rows) // pagination["pageSize"]),
            "totalElements": len(rows),
        }
        return envelope(page, pagination)

    def partial_answer(self, rows: Rows) -> Response:
        """The asked page, the first unless asked, with the fewer totals that some of the vendor's lists give."""
        return envelope(*self._cut(rows))

    def _cut(self, rows: Rows) -> tuple[Rows, dict[str, Any]]:
        number, size = self.number or 0, min(self.size or PAGE_SIZE_DEFAULT, self.size_max)
        pagination = {"pageNo": number, "pageSize": size, "totalElements": len(rows)}
        return self._pick(rows, number, size), pagination

    def _pick(self, rows: Rows, number: int, size: int) -> Rows:
        start = self.moved % max(1, len(rows))
        return self.picks([*rows[start:], *rows[:start]] if start else rows, number, size)


def paging(request: Request, pageNo: PageNo = None, pageSize: PageSize = None) -> Paging:
    state = request.scope["state"]
    platform = state["platform"]
    return Paging(pageNo, pageSize, platform.settings.page_size_max, state.get("pick", pick), platform.faults.moved)


PagingDep = Annotated[Paging, Depends(paging)]


def envelope(rows: Rows, pagination: Any) -> Response:
    """The answer that carries a list."""
    body = b'{"result":[%b],"pagination":%b}' % (b",".join(rows), msgspec.json.encode(pagination))
    return Response(body, media_type="application/json")

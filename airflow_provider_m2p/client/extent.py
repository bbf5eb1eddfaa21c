"""Where a list ends."""

from __future__ import annotations

from airflow_provider_m2p.client.envelope import Answer
from airflow_provider_m2p.client.settings import Paging


class Extent:
    """
    How far the list goes, as the answers tell.

    :param paging: how the list is read.
    :param page_size: rows asked for per page.
    """

    def __init__(self, paging: Paging, page_size: int) -> None:
        self.total_rows: int | None = None
        self.total_changed = False
        #: Pages in all, where the platform told, or rows and the first page imply it.
        self.pages: int | None = None
        #: The first page does not tell whether there is another: the next one will.
        self.probing = False
        #: A page that was not the last had fewer rows than the first.
        self.uneven = False
        self._shorter = False
        self._paging = paging
        self._full = page_size
        self._first = 0
        self._rows = 0
        #: What the platform said last of pages in all, where it says nothing of rows in all.
        self._told: int | None = None

    def learn(self, number: int, answer: Answer) -> None:
        """
        Take in what a page says.

        :param number: the page's number.
        :param answer: the page.
        """
        told = answer.pagination
        if told.total_rows is not None:
            self.total_changed |= self.total_rows not in (None, told.total_rows)
            self.total_rows = told.total_rows
        if number == 0:
            # What the server makes of pageSize: it may have its own limit.
            self._first = len(answer.rows)
        self._rows += len(answer.rows)
        self.uneven |= self._shorter and bool(answer.rows)
        self._shorter |= len(answer.rows) < self._first
        pages = told.total_pages
        if self.total_rows is not None and self._first:
            if self._rows <= self.total_rows:
                pages = max(pages or 0, -(-self.total_rows // self._first))
            elif pages is None:
                # A total that is too low does not tell where the list ends.
                self.pages = None
        elif pages is not None and self.total_rows is None:
            self.total_changed |= self._told not in (None, pages)
            self._told = pages
            # There may be as many as it said before.
            pages = max(self.pages or 0, pages)
        if pages is not None:
            self.pages = pages

    def may_have_ended(self, number: int) -> bool:
        """
        Tell whether a page that is asked for may be beyond the end.

        :param number: the page's number.
        """
        return (number == 1 and self.probing) or (self._told is not None and number >= self._told)

    def goes_on(self, number: int, answer: Answer) -> bool:
        """
        Tell whether to ask for the next page.

        :param number: the number of the page just read.
        :param answer: the page just read.
        """
        rows, told = len(answer.rows), answer.pagination
        if rows == 0 or self._paging == "none" or answer.single:
            return False
        if self.pages is not None:
            return number + 1 < self.pages
        if number == 0:
            if answer.unpaged and self._paging == "auto":
                return False
            self._full, asked = told.page_size or rows, self._full
            self.probing = told.page_size is None and rows != asked
            return rows >= self._full
        return rows >= min(self._full, self._first)

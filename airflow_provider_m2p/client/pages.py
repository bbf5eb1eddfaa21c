"""Reading a list page by page: whether it was read whole, and pages fetched ahead by threads."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

from airflow_provider_m2p.client.envelope import Answer
from airflow_provider_m2p.client.extent import Extent
from airflow_provider_m2p.client.page import Page
from airflow_provider_m2p.client.retry import Cancellation, Cancelled
from airflow_provider_m2p.client.settings import Paging
from airflow_provider_m2p.client.transport import Call
from airflow_provider_m2p.exceptions import M2PApiError, M2PPaginationError

#: No list has more pages. A platform that never stops answering is stopped here.
MAX_PAGES = 100_000
#: Full pages read one by one before more are fetched ahead of a list whose length nobody told.
_PAGES_BEFORE_SPECULATION = 3
#: Pages under way from the start. Each costs memory, and its thread competes with the reader for the interpreter.
_FEW = 2
_NOTICEABLE_SECONDS = 0.01
#: Who waits so long for the first page, its token and connection included, will wait for others.
_LONG_SECONDS = 0.03
_IN_TIME_BEFORE_FEWER = 8

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Fetched:
    """
    One answer, named by its call.

    :param call: what was asked.
    :param answer: rows and pagination.
    :param digest: alike for answers with the same rows, in whatever order; seldom for others.
    """

    call: Call
    answer: Answer
    digest: int

    @classmethod
    def of(cls, call: Call, answer: Answer) -> Fetched:
        """
        Digest an answer.

        :param call: what was asked.
        :param answer: what came.
        """
        rows = answer.rows
        if not rows:
            return cls(call, answer, 0)
        # The longest rows stand for all of them: to hash every byte would take as long as to decode it. Where two are
        # alike, `has_same_rows` has the last word.
        sizes = list(map(len, rows))
        most = max(sizes)
        longest = [bytes(row) for row, size in zip(rows, sizes, strict=True) if size == most]
        return cls(call, answer, hash((len(rows), sum(sizes), min(longest), max(longest))))

    def has_same_rows(self, other: Fetched) -> bool:
        """Tell whether another answer has the same rows, in whatever order."""
        ours, theirs = self.answer.rows, other.answer.rows
        return self.digest == other.digest and sorted(map(bytes, ours)) == sorted(map(bytes, theirs))


Fetch = Callable[[int, Cancellation], Fetched]


class Pages:
    """
    The pages of one list, in order, to be read once: a ``PageStream``.

    The end is where the platform says it is: by its totals, else by an empty or short page. A page that came before is
    an ``M2PPaginationError``, and so are fewer rows than a total that stood still. More may be rows that came twice,
    which only those can tell who know the rows' key. A total that changed leaves the list incomplete. So do, where it
    tells how many pages there are and no more, fewer of them, or a short one before the last.

    :param fetch: asks for one page by its number; called from several threads.
    :param again: gives a new stream of the same list.
    :param paging: ``none`` reads one answer; ``page`` reads pages; ``auto`` reads pages unless the first answer shows
        that it is the whole list.
    :param page_size: rows asked for per page.
    :param concurrency: pages in flight, and in memory, at once: no more than so many, and only if the reader has to
        wait for fewer.
    :param max_pages: stop after so many pages.
    :param clock: seconds that only go forward.
    """

    def __init__(
        self,
        fetch: Fetch,
        again: Callable[[], Pages],
        *,
        paging: Paging,
        page_size: int,
        concurrency: int,
        max_pages: int | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.complete = False
        self.pages = 0
        self.rows = 0
        self.total_rows: int | None = None
        self.total_changed = False
        self.digest = ""
        self._fetch = fetch
        self._again = again
        self._paging = paging
        self._max_pages = max_pages
        self._extent = Extent(paging, page_size)
        self._seen: dict[int, int] = {}
        self._stop = Cancellation()
        self._ahead = _Ahead(fetch, concurrency, self._stop, clock)
        self._iterator = self._read()

    def __iter__(self) -> Iterator[Page]:
        return self._iterator

    def close(self) -> None:
        """Stop reading. Requests in flight are given up."""
        self._stop.cancel()
        self._ahead.close()

    def again(self) -> Pages:
        """Return a new stream of the same list."""
        return self._again()

    def _read(self) -> Iterator[Page]:
        try:
            number = 0
            fetched: Fetched | None = self._ahead.first()
            while fetched is not None:
                answer = fetched.answer
                self._refuse_repeat(number, fetched)
                self._extent.learn(number, answer)
                self.total_rows, self.total_changed = self._extent.total_rows, self._extent.total_changed
                more = self._extent.goes_on(number, answer)
                number += 1
                if more and number == self._max_pages:
                    yield self._page(number - 1, fetched)
                    return
                if more and number >= MAX_PAGES:
                    raise M2PPaginationError(fetched.call.says(f"the list has not ended after {MAX_PAGES} pages."))
                if more:
                    self._fetch_ahead(number)
                if answer.rows:
                    yield self._page(number - 1, fetched)
                last, fetched = fetched, self._next(number, fetched) if more else None
            self._reconcile(number, last.call)
        except Cancelled:
            # Closed while a page was under way: nobody waits for it.
            return
        finally:
            self.close()

    def _fetch_ahead(self, number: int) -> None:
        """Have the pages from ``number`` fetched, as many as are surely or at least probably there."""
        pages = self._extent.pages
        window = self._ahead.window
        if pages is None:
            window = min(window, max(1, number - _PAGES_BEFORE_SPECULATION))
        end = number + window
        for limit in (pages, self._max_pages):
            end = end if limit is None else min(end, limit)
        self._ahead.fill(number, end)

    def _next(self, number: int, before: Fetched) -> Fetched | None:
        """Return the next page, or ``None`` where the one before turns out to be the last."""
        if not self._extent.may_have_ended(number):
            return self._ahead.take(number)
        try:
            fetched = self._ahead.take(number)
        except M2PApiError as error:
            if error.status_code in (400, 404):
                return None
            raise
        same = self._paging == "auto" and fetched.has_same_rows(before)
        return None if same or not fetched.answer.rows else fetched

    def _page(self, number: int, fetched: Fetched) -> Page:
        self.pages += 1
        rows = fetched.answer.rows
        self.rows += len(rows)
        # A row that moves to another page pushes others over the edges of those between.
        self.digest = f"{hash((self.digest, fetched.digest, bytes(rows[0]), bytes(rows[-1]))):x}"
        return Page(
            number=number,
            rows=rows,
            total_rows=self.total_rows,
            total_pages=self._extent.pages,
            request_id=fetched.call.request_id,
            has_escapes=fetched.answer.has_escapes,
        )

    def _refuse_repeat(self, number: int, fetched: Fetched) -> None:
        if self._paging == "none":
            return
        reported = fetched.answer.pagination.page_no
        if reported not in (None, number):
            raise M2PPaginationError(
                fetched.call.says(
                    f"asked for page {number} (the first is 0), the platform answered with page {reported}. If it does "
                    "not know pageNo, set the extra 'paging' to none."
                )
            )
        if not fetched.answer.rows:
            return
        before = self._seen.get(fetched.digest)
        # Pages that came are not kept: look again, whether one that seems to be the same really is.
        if before is not None and fetched.has_same_rows(self._fetch(before, self._stop)):
            raise M2PPaginationError(
                fetched.call.says(
                    f"page {number} has the same rows as page {before}: the platform seems to ignore pageNo. If it "
                    "answers with the whole list, set the extra 'paging' to none."
                )
            )
        self._seen[fetched.digest] = number

    def _reconcile(self, asked: int, call: Call) -> None:
        """The list ended after so many pages: say whether it was whole."""
        doubt = ""
        if self.total_changed:
            doubt = "the platform's total changed while the list was read, so rows may be missing."
        elif self.total_rows is None and asked < (self._extent.pages or 0):
            doubt = f"the list ended on page {asked} of {self._extent.pages}, so rows may be missing."
        elif self.total_rows is None and self._extent.uneven:
            doubt = "a page before the last one was shorter than the first, so rows may be missing."
        if doubt:
            log.warning("%s", call.says(doubt))
            return
        read = f"read {self.rows} rows on {self.pages} pages, but the platform reports {self.total_rows}."
        total = self.rows if self.total_rows is None else self.total_rows
        if self.rows < total:
            hint = (
                "Set the extra 'paging' to auto." if self._paging == "none" else "The list may have moved: try again."
            )
            raise M2PPaginationError(call.says(f"{read} {hint}"))
        if self.rows > total:
            log.warning("%s", call.says(f"{read} Rows may have come twice."))
        self.complete = True


class _Ahead:
    """
    Pages under way, in order.

    ``window`` is how many there should be: more while the reader has to wait for them, fewer while he has not.

    :param fetch: asks for one page.
    :param threads: how many at once, at most.
    :param stop: ends them.
    :param clock: seconds that only go forward.
    """

    def __init__(self, fetch: Fetch, threads: int, stop: Cancellation, clock: Callable[[], float]) -> None:
        self._fetch = fetch
        self._threads = threads
        self._stop = stop
        self._clock = clock
        self.window = self._least = min(_FEW, threads)
        self._in_time = 0
        self._taken = 0.0
        self._executor: ThreadPoolExecutor | None = None
        self._under_way: deque[tuple[int, Future[Fetched]]] = deque()

    def first(self) -> Fetched:
        """Return page 0, fetched by the caller's own thread."""
        began = self._clock()
        fetched = self._fetch(0, self._stop)
        self._taken = self._clock()
        if self._taken - began > _LONG_SECONDS:
            self.window = self._threads
        return fetched

    def fill(self, begin: int, end: int) -> None:
        """
        Begin to fetch the pages that are not under way yet.

        :param begin: the page that is needed next.
        :param end: the page after the last one wanted.
        """
        if self._executor is None:
            self._executor = ThreadPoolExecutor(self._threads, thread_name_prefix="m2p-pages")
        following = self._under_way[-1][0] + 1 if self._under_way else begin
        for number in range(following, end):
            self._under_way.append((number, self._executor.submit(self._fetch, number, self._stop)))

    def take(self, number: int) -> Fetched:
        """
        Return a page once it is there, or raise what fetching it raised.

        :param number: the page; it must be the next one.
        """
        self._stop.check()
        expected, future = self._under_way.popleft()
        if expected != number:
            raise RuntimeError(f"page {expected} is next, not {number}")
        began = self._clock()
        fetched = future.result()
        ended = self._clock()
        waited, busy = ended - began, began - self._taken
        self._taken = ended
        if waited > _NOTICEABLE_SECONDS:
            # As many more as could have been read meanwhile.
            more = int(waited / busy) if busy else 1
            self.window, self._in_time = min(self.window + max(more, 1), self._threads), 0
        else:
            self._in_time += 1
            if self._in_time % _IN_TIME_BEFORE_FEWER == 0:
                self.window = max(self.window - 1, self._least)
        return fetched

    def close(self) -> None:
        """Wait for the threads, which the cancellation ends."""
        if self._executor is not None:
            self._executor.shutdown(wait=True, cancel_futures=True)
            self._executor = None
        self._under_way.clear()

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from airflow_provider_m2p.client import Page, PageStream
from airflow_provider_m2p.client import pages as pages_module
from airflow_provider_m2p.client.pages import Pages, _Ahead
from airflow_provider_m2p.client.retry import Cancellation
from airflow_provider_m2p.client.token import Clock
from airflow_provider_m2p.exceptions import M2PApiError, M2PConfigError, M2PPaginationError, M2PResponseError

from .conftest import Asked, MakeClient, Platform, Reply

COMPLETE = ("pageNo", "pageSize", "totalPages", "totalElements")
PARTIAL = ("pageNo", "pageSize", "totalElements")
SIZES_ONLY = ("pageNo", "pageSize")
PAGES_ONLY = ("totalPages",)


def products(count: int) -> list[dict[str, Any]]:
    return [{"productId": f"p{number:05}"} for number in range(count)]


def ids(stream: Pages) -> list[str]:
    return [row["productId"] for page in stream for row in page.records()]


def asked(platform: Platform) -> list[int]:
    return [asked.page for asked in platform.lists]


def waits(seconds: Callable[[], float]) -> dict[str, Any]:
    """Return a client's arguments: a clock on which whatever is measured takes so long."""
    now = itertools.accumulate((seconds() for _ in itertools.count()), initial=0.0)
    lock = threading.Lock()

    def steady() -> float:
        with lock:
            return next(now)

    return {"clock": Clock(wall=lambda: 0.0, steady=steady)}


def m2p_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("m2p-pages")]


@pytest.fixture(autouse=True)
def no_thread_is_left() -> Iterator[None]:
    yield
    assert m2p_threads() == []


@pytest.mark.parametrize("keys", [COMPLETE, PARTIAL, SIZES_ONLY, PAGES_ONLY, ("totalElements",), ("pageNo",), (), None])
@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, 35, 40, 95])
@pytest.mark.parametrize("concurrency", [1, 4])
def test_every_shape_is_read_whole(
    platform: Platform, make_client: MakeClient, keys: Any, count: int, concurrency: int
) -> None:
    platform.serve_rows(products(count), pagination=keys)
    stream = make_client(page_size=10, max_concurrency=concurrency).pages()
    assert ids(stream) == [row["productId"] for row in products(count)]
    assert (stream.complete, stream.rows, stream.total_changed) == (True, count, False)
    assert stream.pages == -(-count // 10)
    assert stream.total_rows == (count if keys and "totalElements" in keys else None)
    # Never a page more than it takes to know, but for those fetched ahead of a long list of unknown length.
    known = keys is not None and ("totalElements" in keys or "totalPages" in keys)
    needed = max(1, -(-count // 10)) if known else stream.pages + 1
    assert len(platform.lists) <= needed + (concurrency - 1 if count >= 40 and not known else 0)
    assert len(set(asked(platform))) == len(asked(platform))


@pytest.mark.parametrize("keys", [COMPLETE, PARTIAL, SIZES_ONLY, PAGES_ONLY, ("pageNo",), (), None])
@pytest.mark.parametrize("count", [0, 6, 7, 8, 14, 31])
@pytest.mark.parametrize("paging", ["auto", "page"])
def test_a_platform_with_a_smaller_page_size_loses_no_rows(
    platform: Platform, make_client: MakeClient, keys: Any, count: int, paging: str
) -> None:
    platform.serve_rows(products(count), pagination=keys, cap=7)
    stream = make_client(page_size=10, paging=paging).pages()
    assert len(ids(stream)) == count
    assert stream.complete


@pytest.mark.parametrize("more", [{}, {"totalPages": 4}])
def test_a_size_that_is_only_echoed(platform: Platform, make_client: MakeClient, more: dict[str, int]) -> None:
    rows = products(35)

    def answer(request: Asked) -> Any:
        page = rows[request.page * 7 : request.page * 7 + 7]
        return {"result": page, "pagination": {"pageNo": request.page, "pageSize": 10, "totalElements": 35, **more}}

    platform.answer = answer
    assert len(ids(make_client(page_size=10).pages())) == 35


def test_a_first_page_that_has_more_rows_than_the_size_told(platform: Platform, make_client: MakeClient) -> None:
    pages = [products(21)[:10], products(21)[10:18], products(21)[18:]]
    platform.answer = lambda request: {"result": pages[request.page], "pagination": {"pageSize": 7}}
    assert len(ids(make_client(page_size=7).pages())) == 21


def test_a_list_without_pages_that_is_said_to_have_them(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda request: {"result": products(35)[request.page * 10 :][:10], "pagination": None}
    stream = make_client(page_size=10, paging="page").pages()
    assert len(ids(stream)) == 35
    assert stream.complete


@pytest.mark.parametrize("size", [3, 10, 25])
@pytest.mark.parametrize("paging", ["auto", "none"])
def test_a_list_without_pages(platform: Platform, make_client: MakeClient, size: int, paging: str) -> None:
    platform.answer = lambda _: {"result": products(size), "pagination": None}
    stream = make_client(page_size=10, paging=paging).pages()
    assert len(ids(stream)) == size
    assert stream.complete
    assert len(platform.lists) == 1


@pytest.mark.parametrize("size", [3, 25])
def test_a_bare_array_that_ignores_all_parameters_is_the_whole_list(
    platform: Platform, make_client: MakeClient, size: int
) -> None:
    def answer(_: Asked) -> Any:
        return random.sample(products(size), size)

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    assert sorted(ids(stream)) == sorted(row["productId"] for row in products(size))
    assert stream.complete
    assert asked(platform) == [0, 1]


@pytest.mark.parametrize("second", [Reply(status=400), Reply(status=404), {"result": [], "pagination": {"pageNo": 0}}])
def test_a_platform_that_refuses_a_second_page_has_none(
    platform: Platform, make_client: MakeClient, second: Any
) -> None:
    platform.answer = lambda request: products(3) if request.page == 0 else second
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == 3
    assert stream.complete


@pytest.mark.parametrize(
    ("size", "told", "pages", "status"),
    [
        *((3, {}, 1, status) for status in (403, 409, 429, 500, 503)),
        (10, {}, 1, 404),
        (7, {}, 2, 404),
        (7, {"pageSize": 7}, 1, 404),
    ],
)
def test_no_other_error_ends_a_list(
    platform: Platform, make_client: MakeClient, size: int, told: dict[str, int], pages: int, status: int
) -> None:
    def answer(request: Asked) -> Any:
        rows = products(30)[request.page * size :][:size]
        return {"result": rows, "pagination": told} if request.page < pages else Reply(status=status)

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    with pytest.raises(M2PApiError, match=f"HTTP {status}"):
        ids(stream)
    assert not stream.complete


@pytest.mark.parametrize("keys", [None, (), ("totalElements",), SIZES_ONLY])
def test_a_platform_that_ignores_the_page_number(platform: Platform, make_client: MakeClient, keys: Any) -> None:
    known = {"pageSize": 10, "totalElements": 35}

    def answer(request: Asked) -> Any:
        rows = random.sample(products(10), 10)
        if keys is None:
            return rows
        pagination = {key: known.get(key, request.page) for key in keys}
        return {"result": rows, "pagination": pagination}

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    with pytest.raises(M2PPaginationError, match="page 1 has the same rows as page 0"):
        ids(stream)
    assert not stream.complete


def test_a_platform_that_answers_with_another_page(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: {"result": products(10), "pagination": {"pageNo": 0, "totalElements": 35}}
    with pytest.raises(M2PPaginationError, match=r"asked for page 1 .* answered with page 0"):
        ids(make_client(page_size=10).pages())
    platform.answer = lambda _: {"result": products(10), "pagination": {"pageNo": 1}}
    with pytest.raises(M2PPaginationError, match=r"asked for page 0 .* answered with page 1"):
        ids(make_client(page_size=10).pages())


def test_a_short_repeated_page_is_refused_where_pages_were_promised(
    platform: Platform, make_client: MakeClient
) -> None:
    platform.answer = lambda _: products(3)
    with pytest.raises(M2PPaginationError, match="page 1 has the same rows as page 0"):
        ids(make_client(page_size=10, paging="page").pages())


def test_a_page_that_came_long_before(platform: Platform, make_client: MakeClient) -> None:
    rows = products(100)
    platform.answer = lambda request: rows[request.page % 4 * 10 :][:10]
    with pytest.raises(M2PPaginationError, match="page 4 has the same rows as page 0"):
        ids(make_client(page_size=10).pages())


@pytest.mark.parametrize("keys", [PARTIAL, ("pageNo",), None])
@pytest.mark.parametrize("moved_to", [1, 3])
def test_pages_of_which_only_the_longest_row_is_the_same_are_two(
    platform: Platform, make_client: MakeClient, keys: Any, moved_to: int
) -> None:
    """The longest row moved on by some pages while the list was read, and came twice. All others are equally long."""
    rows: list[dict[str, Any]] = products(40)
    rows[9] = {"productId": "the longest"}
    rows[moved_to * 10] = rows[9]
    platform.serve_rows(rows, pagination=keys)
    stream = make_client(page_size=10).pages()
    assert ids(stream) == [row["productId"] for row in rows]
    assert stream.complete


def test_a_second_page_that_only_looks_like_the_first_is_no_copy_of_it(
    platform: Platform, make_client: MakeClient
) -> None:
    platform.serve_rows(products(21), pagination=None, cap=7)
    assert len(ids(make_client(page_size=10).pages())) == 21
    longest = [{"productId": "the longest"}]
    rows = products(6) + longest + products(13)[7:] + longest
    platform.serve_rows(rows, pagination=None, cap=7)
    assert ids(make_client(page_size=10).pages()) == [row["productId"] for row in rows]


def test_a_last_page_that_comes_again_and_again(platform: Platform, make_client: MakeClient) -> None:
    rows = products(20)
    rows[9] = rows[10] = {"productId": "the longest"}
    platform.answer = lambda request: rows[min(request.page, 1) * 10 :][:10]
    with pytest.raises(M2PPaginationError, match="page 2 has the same rows as page 1"):
        ids(make_client(page_size=10).pages())


def test_paging_none_sends_the_bare_request(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: {"result": products(3)}
    stream = make_client(paging="none").pages(params={"status": "ACTIVE"})
    assert len(ids(stream)) == 3
    assert [request.query for request in platform.lists] == [{"status": "ACTIVE"}]
    assert stream.complete


def test_paging_none_takes_whatever_number_the_page_has(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: {"result": products(3), "pagination": {"pageNo": 1, "totalElements": 3}}
    stream = make_client(paging="none").pages()
    assert len(ids(stream)) == 3
    assert stream.complete


def test_paging_none_with_more_rows_than_came(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: {"result": products(10), "pagination": {"totalElements": 250}}
    with pytest.raises(M2PPaginationError, match=r"read 10 rows on 1 pages, but the platform reports 250\. .*'paging'"):
        ids(make_client(paging="none").pages())


@pytest.mark.parametrize("lost_on", [1, 2, 3])
def test_rows_that_do_not_add_up(platform: Platform, make_client: MakeClient, lost_on: int) -> None:
    rows = products(35)

    def answer(request: Asked) -> Any:
        page = rows[request.page * 10 : request.page * 10 + 10]
        page = page[:-1] if request.page == lost_on else page
        return {"result": page, "pagination": {"pageNo": request.page, "totalElements": 35}}

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    with pytest.raises(M2PPaginationError, match="read 34 rows on 4 pages, but the platform reports 35"):
        ids(stream)
    assert not stream.complete


def test_an_empty_page_ends_the_list_before_its_total(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda request: {
        "result": products(10) if request.page == 0 else [],
        "pagination": {"totalElements": 35},
    }
    with pytest.raises(M2PPaginationError, match="read 10 rows on 1 pages, but the platform reports 35"):
        ids(make_client(page_size=10).pages())


def test_no_rows_but_a_total(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: {"result": [], "pagination": {"totalElements": 35}}
    with pytest.raises(M2PPaginationError, match="read 0 rows on 0 pages, but the platform reports 35"):
        ids(make_client(page_size=10).pages())


@pytest.mark.parametrize("keys", [COMPLETE, PARTIAL, ("totalElements",)])
@pytest.mark.parametrize(("count", "total"), [(3, 1), (10, 9), (35, 1), (35, 10), (35, 11), (35, 34)])
def test_more_rows_than_the_total_are_read_whole(
    platform: Platform,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    keys: tuple[str, ...],
    count: int,
    total: int,
) -> None:
    def answer(request: Asked) -> Any:
        told = {"pageNo": request.page, "pageSize": 7, "totalPages": -(-count // 7), "totalElements": total}
        page = products(count)[request.page * 7 : request.page * 7 + 7]
        return {"result": page, "pagination": {key: told[key] for key in keys}}

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == count
    assert (stream.complete, stream.total_rows) == (True, total)
    assert f"read {count} rows on {-(-count // 7)} pages, but the platform reports {total}." in caplog.text


def test_rows_but_a_total_of_zero(
    platform: Platform, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    platform.answer = lambda _: {"result": products(3), "pagination": {"pageSize": 10, "totalElements": 0}}
    assert len(ids(make_client(page_size=10).pages())) == 3
    assert "read 3 rows on 1 pages, but the platform reports 0." in caplog.text


def test_a_list_is_read_again_by_other_requests(platform: Platform, make_client: MakeClient) -> None:
    rows = products(35)
    platform.answer = lambda request: {
        "result": rows[request.page * 10 :][:10],
        "pagination": {"totalElements": len(rows)},
    }
    client = make_client(page_size=10)
    first = client.pages(params={"status": "ACTIVE"}, max_pages=4)
    assert len(ids(first)) == 35
    second = first.again()
    assert len(ids(second)) == 35
    assert (second.digest, second.complete) == (first.digest, True)
    assert [request.query["status"] for request in platform.lists] == ["ACTIVE"] * 8
    assert len({request.header("X-Request-ID") for request in platform.lists}) == 8
    # A row that moves within a page is where it was; one that moves to another page is not.
    rows[2], rows[3] = rows[3], rows[2]
    third = second.again()
    assert len(ids(third)) == 35
    assert third.digest == first.digest
    rows.insert(25, rows.pop(5))
    fourth = third.again()
    assert len(ids(fourth)) == 35
    assert fourth.digest != first.digest
    # Nor is a row in the midst of a page that another took the place of.
    rows[15] = {"productId": "another"}
    fifth = fourth.again()
    assert len(ids(fifth)) == 35
    assert fifth.digest != fourth.digest


def test_closing_the_client_closes_the_second_reading(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(100))
    client = make_client(page_size=10)
    first = client.pages()
    ids(first)
    second = first.again()
    next(iter(second))
    client.close()
    assert m2p_threads() == []
    assert list(second) == []


def test_one_object_is_one_row(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: {"result": {"productId": "a"}}
    stream = make_client(page_size=1).pages()
    assert ids(stream) == ["a"]
    assert stream.complete
    assert len(platform.lists) == 1


@pytest.mark.parametrize(("before", "after", "read"), [(35, 45, 45), (35, 31, 31), (40, 41, 41), (40, 15, 40)])
def test_a_total_that_changes_is_followed_and_reported(
    platform: Platform, make_client: MakeClient, before: int, after: int, read: int
) -> None:
    def answer(request: Asked) -> Any:
        total = before if request.page < 2 else after
        rows = products(max(before, after) if after != 31 else total)
        page = rows[request.page * 10 : request.page * 10 + 10]
        return {"result": page, "pagination": {"pageNo": request.page, "totalElements": total}}

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == read
    assert (stream.total_changed, stream.complete, stream.total_rows) == (True, False, after)


@pytest.mark.parametrize("beyond", [Reply(status=404), [], products(50)[20:30]], ids=["refused", "empty", "last again"])
@pytest.mark.parametrize(
    ("before", "after", "there", "read"), [(5, 3, 5, 50), (5, 3, 4, 40), (5, 3, 3, 30), (3, 5, 5, 50), (5, 6, 6, 60)]
)
def test_a_number_of_pages_that_changes_is_followed_and_reported(
    platform: Platform, make_client: MakeClient, beyond: Any, before: int, after: int, there: int, read: int
) -> None:
    """However many there are and whatever comes beyond them, all are read, and the list is not complete."""
    rows = products(60)

    def answer(request: Asked) -> Any:
        if request.page >= there:
            return beyond if isinstance(beyond, Reply) else {"result": rows[read - 10 : read] if beyond else []}
        pages = before if request.page < 2 else after
        return {"result": rows[request.page * 10 :][:10], "pagination": {"totalPages": pages}}

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == read
    assert (stream.total_changed, stream.complete, stream.total_rows) == (True, False, None)


def test_a_total_that_changed_is_told(
    platform: Platform, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    rows = products(30)
    platform.answer = lambda request: {
        "result": rows[request.page * 10 :][:10],
        "pagination": {"totalElements": 30 + request.page},
    }
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == 30
    assert not stream.complete
    assert "total changed while the list was read, so rows may be missing." in caplog.text


@pytest.mark.parametrize("last", [[], [[]]], ids=["full", "empty"])
def test_a_short_page_before_the_last_is_not_complete(
    platform: Platform, make_client: MakeClient, caplog: pytest.LogCaptureFixture, last: list[Any]
) -> None:
    pages = [products(30)[:10], products(30)[10:14], products(30)[20:], *last]
    platform.answer = lambda request: {"result": pages[request.page], "pagination": {"totalPages": len(pages)}}
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == 24
    assert not stream.complete
    assert "a page before the last one was shorter than the first, so rows may be missing." in caplog.text
    pages[1:] = [products(30)[10:20], products(30)[20:23]]
    whole = stream.again()
    assert len(ids(whole)) == 23
    assert whole.complete


def test_fewer_pages_than_announced_are_not_complete(
    platform: Platform, make_client: MakeClient, caplog: pytest.LogCaptureFixture
) -> None:
    rows = products(30)
    platform.answer = lambda request: {"result": rows[request.page * 10 :][:10], "pagination": {"totalPages": 5}}
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == 30
    assert (stream.total_changed, stream.complete) == (False, False)
    assert "the list ended on page 4 of 5, so rows may be missing." in caplog.text
    rows += products(40)[30:]
    again = stream.again()
    assert len(ids(again)) == 40
    assert again.complete  # the fifth page is there, but empty


def test_a_total_that_comes_late_or_goes_away_has_not_changed(platform: Platform, make_client: MakeClient) -> None:
    def answer(request: Asked) -> Any:
        page = products(35)[request.page * 10 : request.page * 10 + 10]
        return {"result": page, "pagination": {"totalElements": 35 if request.page == 1 else None}}

    platform.answer = answer
    stream = make_client(page_size=10).pages()
    assert len(ids(stream)) == 35
    assert (stream.total_changed, stream.complete) == (False, True)


@pytest.mark.parametrize("keys", [COMPLETE, None])
@pytest.mark.parametrize(
    ("max_pages", "read", "complete"), [(1, 10, False), (3, 30, False), (4, 35, True), (9, 35, True)]
)
def test_max_pages(
    platform: Platform, make_client: MakeClient, keys: Any, max_pages: int, read: int, complete: bool
) -> None:
    platform.serve_rows(products(35), pagination=keys)
    stream = make_client(page_size=10).pages(max_pages=max_pages)
    assert len(ids(stream)) == read
    assert stream.complete is complete
    assert len(platform.lists) <= max_pages


@pytest.mark.parametrize("max_pages", [0, "2", 2.0])
def test_max_pages_is_positive(make_client: MakeClient, max_pages: Any) -> None:
    with pytest.raises(M2PConfigError, match=f"m2p_test: max_pages must be 1 or more, as a number, not {max_pages!r}"):
        make_client().pages(max_pages=max_pages)


def test_a_list_without_end(platform: Platform, make_client: MakeClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages_module, "MAX_PAGES", 20)
    platform.answer = lambda request: [{"productId": f"{request.page}"}]
    with pytest.raises(M2PPaginationError, match="has not ended after 20 pages"):
        ids(make_client(page_size=1).pages())
    assert len(platform.lists) < 30


def test_pages_carry_what_was_said(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows([{"productId": 'a"b' if number == 12 else "x"} | {"n": number} for number in range(15)])
    first, second = make_client({"request_id_prefix": "dag-run-task-1"}, page_size=10).pages()
    assert (first.number, first.total_rows, first.total_pages, first.request_id) == (0, 15, 2, "dag-run-task-1-p0")
    assert (second.number, len(second.rows), second.request_id) == (1, 5, "dag-run-task-1-p1")
    assert (first.has_escapes, second.has_escapes) == (False, True)
    assert [request.header("X-Request-ID") for request in platform.lists] == [first.request_id, second.request_id]


def test_pages_come_in_order_whatever_order_they_arrive_in(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(150))
    in_pages, later = platform.answer, threading.Barrier(4, timeout=10)

    def answer(request: Asked) -> Any:
        if 6 <= request.page <= 13:
            # Four at once, or nobody comes through: that many really are in flight.
            position = later.wait()
            threading.Event().wait(0.01 * position)
        return in_pages(request)

    platform.answer = answer
    stream = make_client(waits(lambda: 0.02), page_size=10, max_concurrency=4).pages()
    assert [page.number for page in stream] == list(range(15))


def test_more_pages_are_in_flight_while_the_reader_waits(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(1000))
    wait = 0.02
    stream = make_client(waits(lambda: wait), page_size=10, max_concurrency=5).pages()
    ahead = {}
    for page in stream:
        ahead[page.number] = max(asked(platform)) - page.number
        assert ahead[page.number] <= 5
        if page.number == 20:
            wait = 0.0
    # What is under way already is not taken back, and a page asked for may not have arrived there yet.
    assert all(ahead[number] <= 2 for number in range(20 + 5 + 3 * 8, 100))
    assert max(ahead[number] for number in range(20)) > 2


@pytest.mark.parametrize(
    ("busy", "waited", "window"),
    [(0.02, 0.005, 2), (0.02, 0.015, 3), (0.02, 0.05, 4), (0.02, 0.09, 6), (0.005, 0.05, 8), (0, 0.05, 3)],
)
def test_as_many_more_pages_are_in_flight_as_could_have_been_read(busy: float, waited: float, window: int) -> None:
    moments = itertools.accumulate([0, 0.03, busy, waited])
    ahead = _Ahead(lambda number, _: number, 8, Cancellation(), lambda: next(moments))
    assert ahead.first() == 0
    ahead.fill(1, 2)
    assert ahead.take(1) == 1
    assert ahead.window == window
    ahead.close()


@pytest.mark.parametrize(("first", "window"), [(0.029, 2), (0.031, 8)])
def test_a_first_page_that_takes_long_lets_all_be_in_flight_at_once(first: float, window: int) -> None:
    moments = iter([5, 5 + first])
    ahead = _Ahead(lambda number, _: number, 8, Cancellation(), lambda: next(moments))
    ahead.first()
    assert ahead.window == window


def test_few_pages_are_in_flight_for_a_reader_who_need_not_wait(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(300))
    for page in make_client(page_size=10, max_concurrency=8).pages():
        assert max(asked(platform)) <= page.number + 2


def test_an_error_comes_at_its_page(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(100))
    in_pages = platform.answer
    platform.answer = lambda request: Reply(status=409) if request.page == 5 else in_pages(request)
    stream = make_client(page_size=10).pages()
    seen = []
    with pytest.raises(M2PApiError, match="HTTP 409"):
        seen.extend(page.number for page in stream)
    assert m2p_threads() == []
    assert stream.pages == 5
    assert not stream.complete


def test_closing_ends_requests_in_flight(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(100))
    in_pages, release = platform.answer, threading.Event()
    waiting = threading.Semaphore(0)
    answered = []

    def answer(request: Asked) -> Any:
        if request.page >= 1:
            waiting.release()
            release.wait(30)
            answered.append(request.page)
        return in_pages(request)

    platform.answer = answer
    stream = make_client(page_size=10, max_concurrency=3).pages()
    assert next(iter(stream)).number == 0
    for _ in range(2):
        assert waiting.acquire(timeout=10)
    try:
        stream.close()
        assert not answered  # it does not wait for what is under way
        assert m2p_threads() == []
        assert list(stream) == []
        assert not stream.complete
    finally:
        release.set()


def test_closing_from_another_thread_ends_the_reader(platform: Platform, make_client: MakeClient) -> None:
    release, waiting = threading.Event(), threading.Event()

    def answer(_: Asked) -> Any:
        waiting.set()
        release.wait(30)
        return []

    platform.answer = answer
    stream = make_client().pages()
    reader = threading.Thread(target=lambda: list(stream))
    reader.start()
    assert waiting.wait(10)
    stream.close()
    reader.join(10)
    release.set()
    assert not reader.is_alive()
    assert not stream.complete


def test_closing_the_client_closes_its_lists(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(100))
    client = make_client(page_size=10)
    stream = client.pages()
    next(iter(stream))
    client.close()
    assert m2p_threads() == []
    with pytest.raises(RuntimeError, match="closed"):
        client.request("GET", "/v1/products/")


def test_a_stream_that_is_not_read_asks_nothing(platform: Platform, make_client: MakeClient) -> None:
    make_client().pages().close()
    assert platform.asked == []


def test_a_reader_that_stops_early_leaves_nothing(platform: Platform, make_client: MakeClient) -> None:
    platform.serve_rows(products(100))
    stream = make_client(page_size=10).pages()
    for page in stream:
        if page.number == 2:
            break
    stream.close()
    assert (stream.complete, stream.pages) == (False, 3)
    stream.close()


def test_it_is_a_page_stream(make_client: MakeClient) -> None:
    def accepts(stream: PageStream) -> Iterator[Page]:
        return iter(stream)

    stream: Pages = make_client().pages()
    assert accepts(stream) is iter(stream)


def test_rows_that_are_no_list(platform: Platform, make_client: MakeClient) -> None:
    platform.answer = lambda _: Reply(b"<html>", headers={"Content-Type": "text/html"})
    with pytest.raises(M2PResponseError, match="not JSON: text/html"):
        ids(make_client().pages())


Server = Callable[[int, int], dict[str, Any] | list[Any]]


@settings(max_examples=300, deadline=None)
@given(
    count=st.integers(0, 60),
    page_size=st.integers(1, 20),
    cap=st.integers(1, 20),
    keys=st.none() | st.sets(st.sampled_from(COMPLETE)),
    concurrency=st.integers(1, 4),
    paging=st.sampled_from(["auto", "page"]),
)
def test_any_honest_platform_is_read_whole(
    count: int, page_size: int, cap: int, keys: set[str] | None, concurrency: int, paging: Any
) -> None:
    import msgspec

    from airflow_provider_m2p.client.envelope import Answer, Pagination
    from airflow_provider_m2p.client.pages import Fetched
    from airflow_provider_m2p.client.transport import Call

    rows = [msgspec.Raw(b"%d" % number) for number in range(count)]
    size = min(page_size, cap)

    def fetch(number: int, _: Any) -> Fetched:
        told = {
            "page_no": number if "pageNo" in (keys or ()) else None,
            "page_size": size if "pageSize" in (keys or ()) else None,
            "total_pages": -(-count // size) if "totalPages" in (keys or ()) else None,
            "total_rows": count if "totalElements" in (keys or ()) else None,
        }
        page = rows[number * size : (number + 1) * size]
        return Fetched.of(Call("x", "GET", "/", "y"), Answer(page, Pagination(**told), False))

    stream = Pages(fetch, lambda: stream, paging=paging, page_size=page_size, concurrency=concurrency)
    read = [bytes(row) for page in stream for row in page.rows]
    assert read == [bytes(row) for row in rows]
    assert stream.complete

"""Sequences of catalogues, loaded in each write mode, against models in plain Python."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from airflow_provider_m2p.exceptions import M2PLoadError, M2PPaginationError
from tests.integration.warehouse.effort import PATIENCE, effort
from tests.integration.warehouse.streams import Pages, Rows, Warehouse, counts, in_utc, number

pytestmark = PATIENCE
TABLES = (f"t{n}" for n in itertools.count())
MODES = ["append", "replace", "upsert", "history"]

Catalogue = dict[str, Any]
IDS = st.sampled_from("abcde")
FEES = st.sampled_from([None, Decimal("1.0"), Decimal("2.50"), Decimal("1e-30")])
CATALOGUES = st.dictionaries(IDS, FEES, max_size=5)


@st.composite
def answers(draw: st.DrawFn) -> tuple[Catalogue, list[list[dict[str, Any]]], bool]:
    """A catalogue, the pages in which it comes (some rows twice, the last one counts), and whether the read is complete."""
    catalogue = draw(CATALOGUES)
    rows = [{"id": key, "fee": fee} for key, fee in draw(st.permutations(list(catalogue.items())))]
    stale = [{"id": row["id"], "fee": draw(FEES)} for row in rows if draw(st.integers(0, 5)) == 0]
    rows = stale + rows
    cut = draw(st.integers(0, len(rows)))
    pages = [page for page in (rows[:cut], rows[cut:]) if page]
    moved = stale and len(pages) > 1
    return catalogue, pages, not moved and draw(st.integers(0, 4)) > 0


SEQUENCES = st.lists(answers(), min_size=1, max_size=6)


def live(rows: list[dict[str, Any]], end: str) -> Catalogue:
    found = {row["id"]: number(row["fee"]) for row in rows if row[end] is None}
    assert len(found) == sum(row[end] is None for row in rows)
    return found


@effort(12)
@given(SEQUENCES)
def test_history_has_neither_gap_nor_overlap(
    warehouse: Warehouse, sequence: list[tuple[Catalogue, list[list[dict[str, Any]]], bool]]
) -> None:
    table = next(TABLES)
    intervals: dict[str, list[tuple[Any, int, int | None]]] = {}  # by product: state, first load, load that ended it
    loads: list[datetime] = []
    for turn, (catalogue, pages, complete) in enumerate(sequence):
        result = warehouse.load(*pages, table=table, write_mode="history", complete=complete, max_delete_ratio=1)
        now = {key: states[-1][0] for key, states in intervals.items() if states and states[-1][2] is None}
        deleted = set(now) - set(catalogue) if complete else set()
        changed = {key for key in catalogue if key in now and now[key] != catalogue[key]}
        for key in deleted | changed:
            state, start, _ = intervals[key][-1]
            intervals[key][-1] = state, start, turn
        for key in changed | (set(catalogue) - set(now)):
            intervals.setdefault(key, []).append((catalogue[key], turn, None))
        inserted = len(set(catalogue) - set(now))
        assert counts(result) == (inserted, len(changed), len(catalogue) - inserted - len(changed), len(deleted))
        assert result["duplicates"] == sum(map(len, pages)) - len(catalogue)
        if not intervals:
            continue
        loads = [in_utc(row["finished_at"]) for row in warehouse.loads() if row["table_name"] == table]  # type: ignore[misc]
        assert loads == sorted(set(loads))
        found: dict[str, list[tuple[Any, int, int | None]]] = {}
        for row in warehouse.read(table, meta=True):
            start, end = in_utc(row["_m2p_valid_from"]), in_utc(row["_m2p_valid_to"])
            assert start is not None
            interval = number(row.get("fee")), loads.index(start), None if end is None else loads.index(end)
            found.setdefault(row["id"], []).append(interval)
        assert {key: sorted(states, key=lambda s: s[1]) for key, states in found.items()} == intervals
    if intervals:
        warehouse.execute(f"DROP TABLE {table}")


@effort(12)
@given(SEQUENCES)
def test_upsert_marks_what_disappeared_and_keeps_it(
    warehouse: Warehouse, sequence: list[tuple[Catalogue, list[list[dict[str, Any]]], bool]]
) -> None:
    table = next(TABLES)
    rows: Catalogue = {}
    marked: set[str] = set()
    writer: dict[str, int] = {}
    for turn, (catalogue, pages, complete) in enumerate(sequence):
        result = warehouse.load(*pages, table=table, complete=complete, max_delete_ratio=1, load_id=f"{turn}")
        inserted = set(catalogue) - set(rows)
        updated = {key for key in set(catalogue) & set(rows) if catalogue[key] != rows[key] or key in marked}
        deleted = set(rows) - marked - set(catalogue) if complete else set()
        rows |= catalogue
        marked = (marked - set(catalogue)) | deleted
        writer |= dict.fromkeys(inserted | updated, turn)
        assert counts(result) == (len(inserted), len(updated), len(catalogue) - len(inserted) - len(updated), len(deleted))
        if rows:
            found = warehouse.read(table, meta=True)
            assert {row["id"]: number(row.get("fee")) for row in found} == rows
            assert {row["id"] for row in found if row["_m2p_deleted_at"] is not None} == marked
            assert {row["id"]: int(row["_m2p_load_id"]) for row in found} == writer  # unchanged rows are not rewritten
    if rows:
        warehouse.execute(f"DROP TABLE {table}")


@effort(12)
@given(SEQUENCES)
def test_replace_leaves_exactly_what_the_last_complete_read_had(
    warehouse: Warehouse, sequence: list[tuple[Catalogue, list[list[dict[str, Any]]], bool]]
) -> None:
    table = next(TABLES)
    rows: Catalogue = {}
    for catalogue, pages, complete in sequence:
        result = warehouse.load(*pages, table=table, write_mode="replace", complete=complete, max_delete_ratio=1)
        gone = set(rows) - set(catalogue) if complete else set()
        changed = {key for key in set(catalogue) & set(rows) if catalogue[key] != rows[key]}
        inserted = len(set(catalogue) - set(rows))
        assert counts(result) == (inserted, len(changed), len(catalogue) - inserted - len(changed), len(gone))
        rows = {key: fee for key, fee in rows.items() if key not in gone} | catalogue
        if warehouse.loads()[-1]["table_name"] in warehouse.tables():
            assert {row["id"]: number(row.get("fee")) for row in warehouse.read(table)} == rows
    if table in warehouse.tables():
        warehouse.execute(f"DROP TABLE {table}")


@effort(12)
@given(SEQUENCES, st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_append_holds_what_each_load_id_wrote_last(
    warehouse: Warehouse, sequence: list[tuple[Catalogue, list[list[dict[str, Any]]], bool]], ids: list[int]
) -> None:
    table = next(TABLES)
    written: dict[str, Catalogue] = {}
    for attempt, ((catalogue, pages, complete), load) in enumerate(zip(sequence, ids, strict=False)):
        result = warehouse.load(
            *pages,
            table=table,
            write_mode="append",
            complete=complete,
            load_id=f"load-{load}",
            attempt=attempt,
            max_delete_ratio=1,
        )
        before = written.get(f"load-{load}", {})
        lacking = {key: fee for key, fee in before.items() if key not in catalogue}
        assert counts(result) == (len(catalogue), 0, 0, len(lacking) if complete else 0)
        written[f"load-{load}"] = catalogue if complete else lacking | catalogue
        if table in warehouse.tables():
            found = [(row["_m2p_load_id"], row["id"], number(row.get("fee"))) for row in warehouse.read(table, meta=True)]
            assert sorted(found, key=str) == sorted(
                ((load_id, key, fee) for load_id, rows in written.items() for key, fee in rows.items()), key=str
            )
    if table in warehouse.tables():
        warehouse.execute(f"DROP TABLE {table}")


CATALOGUE = [{"id": key, "fee": 1} for key in "abcd"]


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_a_load_that_would_delete_too_much_is_refused(first_class: Warehouse, mode: str) -> None:
    first_class.load(CATALOGUE, write_mode=mode)
    before = first_class.read(meta=True)
    with pytest.raises(M2PLoadError, match=r"has 1 rows and lacks 3 of the 4 rows .*'ACME_CORP'.*max_delete_ratio=0\.5.*Nothing was written"):
        first_class.load(CATALOGUE[:1], write_mode=mode)
    with pytest.raises(M2PLoadError, match=r"has 0 rows and lacks 4 of the 4 rows"):
        first_class.load([], write_mode=mode)
    with pytest.raises(M2PLoadError, match="max_delete_ratio"):
        first_class.load([], write_mode=mode, max_delete_ratio=0.99)
    with pytest.raises(M2PLoadError, match="max_delete_ratio"):
        first_class.load(CATALOGUE[:3], write_mode=mode, max_delete_ratio=0)
    assert first_class.read(meta=True) == before
    assert len(first_class.loads()) == 1
    assert counts(first_class.load(CATALOGUE[:2], write_mode=mode)) == (0, 0, 2, 2)
    assert counts(first_class.load([], write_mode=mode, max_delete_ratio=1)) == (0, 0, 0, 2)


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
@pytest.mark.parametrize("pages", [[CATALOGUE[:3]], [[]], []])
def test_a_partial_read_never_deletes(first_class: Warehouse, mode: str, pages: list[Rows]) -> None:
    first_class.load(CATALOGUE, write_mode=mode)
    before = first_class.read(meta=True)
    result = first_class.load(*pages, write_mode=mode, complete=False, max_delete_ratio=1)
    assert result["deleted"] == 0
    assert first_class.read(meta=True) == before


#: Four rows as announced, but one of them twice: "d" may have slipped through.
DOUBTFUL = (CATALOGUE[:2], CATALOGUE[1:3])
Loading = Callable[..., dict[str, Any]]


@pytest.fixture(params=["direct", "reviewed"])
def loading(request: pytest.FixtureRequest) -> Loading:
    """Load at once, or in two steps."""

    def load(warehouse: Warehouse, pages: Pages, **spec: Any) -> dict[str, Any]:
        loader = warehouse.loader(max_delete_ratio=1, **spec)
        try:
            if request.param == "direct":
                return loader.run(pages).as_dict()
            loader.stage(pages)
            return loader.publish().as_dict()
        finally:
            assert pages.closed
            assert pages.read_again is None or pages.read_again.closed
            assert not any(name.startswith("_m2p_stage_") for name in warehouse.tables())

    return load


@pytest.mark.parametrize("mode", MODES)
def test_a_list_that_moved_once_is_read_again(
    first_class: Warehouse, loading: Loading, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    first_class.load(CATALOGUE, write_mode=mode)
    whole = [{"id": "b", "fee": 1}, {"id": "c", "fee": 7}], [{"id": "d", "fee": 1, "name": "SECRET"}, {"id": "e", "fee": 1}]
    pages = Pages(DOUBTFUL, total_rows=4, second=whole)
    result = loading(first_class, pages, write_mode=mode, exclude_columns=("name",))
    assert (result["rows_read"], result["duplicates"]) == (4, 0)
    assert counts(result) == {"append": (4, 0, 0, 0)}.get(mode, (1, 1, 2, 1))
    assert "SECRET" not in str(first_class.read())
    assert "so 1 of the 4 that the platform reports are missing" in caplog.text
    assert caplog.text.count("Reading it once more.") == 1


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("first", [True, False])
def test_a_list_that_moves_each_time_is_refused(
    first_class: Warehouse, loading: Loading, mode: str, first: bool
) -> None:
    if not first:
        first_class.load(CATALOGUE, write_mode=mode)
    before = None if first else first_class.read(meta=True)
    again = (CATALOGUE[1:3], CATALOGUE[2:])
    with pytest.raises(M2PPaginationError, match=r"1 of the 4 rows came twice on 2 pages, so 1 of the 4 .* the list moves"):
        loading(first_class, Pages(DOUBTFUL, total_rows=4, second=again), write_mode=mode)
    assert before is None or first_class.read(meta=True) == before
    assert first or len(first_class.loads()) == 1
    assert first is ("products" not in first_class.tables())


@pytest.mark.parametrize("mode", MODES)
def test_a_list_that_has_rows_twice_every_time_is_loaded(
    first_class: Warehouse, loading: Loading, mode: str, caplog: pytest.LogCaptureFixture
) -> None:
    first_class.load(CATALOGUE, write_mode=mode)
    result = loading(first_class, Pages(DOUBTFUL, total_rows=4), write_mode=mode)
    assert (result["rows_read"], result["duplicates"], result["deleted"]) == (4, 1, 0)
    assert counts(result) == {"append": (3, 0, 0, 0)}.get(mode, (0, 0, 3, 0))
    assert ("1 rows came twice, so as many may have been missed" in caplog.text) == (mode != "append")


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("total", [3, None])
def test_rows_that_came_twice_but_lack_none_are_dropped(
    first_class: Warehouse, loading: Loading, mode: str, total: int | None, caplog: pytest.LogCaptureFixture
) -> None:
    first_class.load(CATALOGUE, write_mode=mode)
    pages = Pages(DOUBTFUL, total_rows=total)
    result = loading(first_class, pages, write_mode=mode)
    assert result["duplicates"] == 1
    # Without a total nobody knows what the row that came twice pushed over the edge of a page.
    assert counts(result) == {"append": (3, 0, 0, 0)}.get(mode, (0, 0, 3, 1 if total else 0))
    assert ("the platform tells no total" in caplog.text) == (total is None and mode != "append")
    assert pages.read_again is None


def test_more_products_than_the_total_delete_nothing(first_class: Warehouse, caplog: pytest.LogCaptureFixture) -> None:
    first_class.load(CATALOGUE)
    result = first_class.load(*DOUBTFUL, total_rows=2, max_delete_ratio=1)
    assert (result["deleted"], result["duplicates"], result["unchanged"]) == (0, 1, 3)
    assert "The list has 3 different rows, but the platform reports 2" in caplog.text


def test_a_partial_read_in_which_rows_came_twice_is_not_read_again(first_class: Warehouse) -> None:
    first_class.load(CATALOGUE)
    pages = Pages(DOUBTFUL, total_rows=4, complete=False)
    assert counts(first_class.loader().run(pages).as_dict()) == (0, 0, 3, 0)
    assert pages.read_again is None


@pytest.mark.parametrize("total", [3, None])
def test_a_list_in_one_answer_cannot_have_moved(first_class: Warehouse, total: int | None) -> None:
    first_class.load(CATALOGUE)
    result = first_class.load([*CATALOGUE[:2], CATALOGUE[1]], total_rows=total)
    assert (result["deleted"], result["duplicates"], result["unchanged"]) == (2, 1, 2)


@pytest.mark.parametrize("mode", MODES)
def test_tenants_do_not_touch_each_other(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(CATALOGUE, write_mode=mode, tenant_id="GLOBEX")
    globex = warehouse.read(meta=True)
    assert counts(warehouse.load(CATALOGUE[:2], write_mode=mode, load_id="same"))[0] == 2
    warehouse.load([{"id": "a", "fee": 2}], write_mode=mode, load_id="same", max_delete_ratio=1)
    warehouse.load([], write_mode=mode, load_id="same", max_delete_ratio=1)
    assert warehouse.read(meta=True, _m2p_tenant_id="GLOBEX") == globex
    acme = warehouse.read(meta=True, _m2p_tenant_id="ACME_CORP")
    assert len(acme) == {"append": 0, "replace": 0, "upsert": 2, "history": 3}[mode]
    assert all(row.get("_m2p_deleted_at") or row.get("_m2p_valid_to") for row in acme)


def test_a_load_id_of_another_tenant_is_another_load(first_class: Warehouse) -> None:
    first_class.load(CATALOGUE, write_mode="append", tenant_id="GLOBEX", load_id="same")
    first_class.load(CATALOGUE, write_mode="append", load_id="same")
    first_class.load(CATALOGUE, write_mode="append", load_id="same", attempt=2)
    assert len(first_class.read()) == 8


@pytest.mark.parametrize("mode", MODES)
def test_the_last_of_rows_that_came_twice_counts(warehouse: Warehouse, mode: str) -> None:
    for _ in range(2):
        result = warehouse.load(
            [{"id": "a", "fee": 1}, {"id": "b", "fee": 1}], [{"id": "a", "fee": 2}, {"id": "a", "fee": 3}], write_mode=mode, load_id="x"
        )
        assert (result["rows_read"], result["duplicates"]) == (4, 2)
    assert [(row["id"], row["fee"]) for row in warehouse.read()] == [("a", 3), ("b", 1)]


def test_thousands_of_duplicates(first_class: Warehouse) -> None:
    pages = [[{"id": n, "fee": turn} for n in range(1500)] for turn in range(3)]
    assert first_class.load(*pages)["duplicates"] == 3000
    assert {row["fee"] for row in first_class.read()} == {2}


@pytest.mark.parametrize("mode", MODES)
def test_an_empty_list_before_there_is_a_table(warehouse: Warehouse, mode: str) -> None:
    assert counts(warehouse.load([], write_mode=mode)) == (0, 0, 0, 0)
    assert warehouse.tables() == {"_m2p_loads", "_m2p_columns", "_m2p_staged"}
    assert counts(warehouse.load(CATALOGUE, write_mode=mode))[0] == 4


def test_the_books_have_a_row_for_every_applied_load(warehouse: Warehouse) -> None:
    where = {"dag_id": "d", "run_id": "manual__2025", "task_id": "t", "map_index": 3}
    first = warehouse.load(CATALOGUE, load_id="x", attempt=1, **where)
    second = warehouse.load([*CATALOGUE[:3], {"id": "e", "new": True}], load_id="x", attempt=2, **where)
    books = warehouse.loads()
    assert [(row["load_id"], row["attempt"], row["status"]) for row in books] == [("x", 1, "applied"), ("x", 2, "applied")]
    for row, result in zip(books, (first, second), strict=True):
        same = ("load_id", "tenant_id", "write_mode", "pages", "rows_read", "inserted", "updated", "unchanged", "deleted", "duplicates")
        assert {name: row[name] for name in same} == {name: result[name] for name in same}
        assert {name: row[name] for name in where} == where
        assert row["table_name"] == "products"
        assert row["started_at"] <= row["finished_at"]
    assert [change["column"] for change in first["schema_changes"]] == ["id", "fee"]
    assert second["schema_changes"] == [{"change": "add", "column": "new", "field": "new", "type": "bool"}]
    assert '"new"' in books[1]["schema_changes"]


@pytest.mark.parametrize("mode", MODES)
def test_no_stage_is_left_behind(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(CATALOGUE, write_mode=mode)
    with pytest.raises(Exception, match="key"):
        warehouse.load([{"fee": 1}], write_mode=mode)
    assert not [name for name in warehouse.tables() if "stage_" in name]


@pytest.mark.parametrize("policy", ["evolve", "ignore"])
def test_rows_that_did_not_change_do_not_travel_again(first_class: Warehouse, policy: str) -> None:
    rows = [{"id": f"p{n}", "name": f"name {n}", "fee": n} for n in range(6)]
    for _ in range(2):  # a row that was read under another policy is read once more
        first_class.load(rows, schema_policy=policy)
    pages = [rows[:2], [rows[2], {"fee": 3, "name": "name 3", "id": "p3"}], [rows[4], rows[5] | {"fee": 0}]]
    first_class.loader(schema_policy=policy).stage(Pages(pages))
    (stage,) = (name for name in first_class.tables() if name.startswith("_m2p_stage_"))
    names = ("_m2p_ord", "raw_hash", "_m2p_c0", "_m2p_c1", "_m2p_c2")
    staged = sorted(tuple(row[name] for name in names) for row in first_class.read(stage, meta=True))
    assert [(order, raw is None, *cells) for order, raw, *cells in staged] == [
        *((n, True, f"p{n}", None, None) for n in range(5)),
        (5, False, "p5", "name 5", staged[-1][-1]),
    ]
    assert int(staged[-1][-1]) == 0


def test_a_composite_key(warehouse: Warehouse) -> None:
    rows = [{"ref": {"no": n}, "currency": c, "fee": 1} for n in (1, 2) for c in ("EUR", "USD")]
    keys = ("ref.no", "currency")
    assert counts(warehouse.load(rows, key_columns=keys)) == (4, 0, 0, 0)
    rows[0]["fee"] = 2
    assert counts(warehouse.load(rows, key_columns=keys)) == (0, 1, 3, 0)
    assert counts(warehouse.load(rows[1:], key_columns=("ref__no", "currency"))) == (0, 0, 3, 1)
    assert sorted((row["ref__no"], row["currency"], row["fee"]) for row in warehouse.read()) == [
        (1, "EUR", 2),
        (1, "USD", 1),
        (2, "EUR", 1),
        (2, "USD", 1),
    ]


def test_keys_may_be_called_what_the_look_up_calls_its_own(first_class: Warehouse) -> None:
    keys = ("n", "is_same", "key0")
    rows = [dict.fromkeys(keys, n) | {"fee": n} for n in range(3)]
    assert counts(first_class.load(rows, key_columns=keys)) == (3, 0, 0, 0)
    rows[0]["fee"] = 9
    assert counts(first_class.load(rows, key_columns=keys)) == (0, 1, 2, 0)


@pytest.mark.parametrize("mode", ["replace", "upsert", "history"])
def test_a_table_that_somebody_emptied_is_filled_again(warehouse: Warehouse, mode: str) -> None:
    warehouse.load(CATALOGUE, write_mode=mode)
    warehouse.execute("DELETE FROM products")
    assert counts(warehouse.load(CATALOGUE, write_mode=mode)) == (4, 0, 0, 0)
    warehouse.execute("DROP TABLE products")
    assert counts(warehouse.load(CATALOGUE, write_mode=mode)) == (4, 0, 0, 0)
    assert len(warehouse.read()) == 4

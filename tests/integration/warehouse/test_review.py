"""Loads that wait for consent do exactly what their plan says, or nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError, M2PSchemaError
from airflow_provider_m2p.warehouse import review
from airflow_provider_m2p.warehouse import staged as stages
from tests.integration.warehouse.proxy import Proxy
from tests.integration.warehouse.streams import Pages, Warehouse, counts
from tests.integration.warehouse.test_concurrency import Gated, in_thread
from tests.integration.warehouse.test_lost_connections import is_commit

OLD = b'[{"id":"a","n":1,"name":"SECRET"},{"id":"b","n":2},{"id":"c","n":3}]'
NEW = b'[{"id":"a","n":1.5,"name":"HIDDEN"},{"id":"b","n":2},{"id":"d","n":4,"extra":true}]'


def waiting(warehouse: Warehouse) -> set[str]:
    return {name for name in warehouse.tables() if name.startswith("_m2p_stage_")}


@pytest.mark.parametrize("mode", ["upsert", "replace", "history"])
def test_the_plan_is_what_happens(first_class: Warehouse, mode: str) -> None:
    first_class.load(OLD, write_mode=mode)
    before = first_class.read(meta=True)

    loader = first_class.loader(load_id="reviewed", write_mode=mode)
    plan = loader.stage(Pages([NEW])).as_dict()

    assert counts(plan) == (1, 1, 1, 1)
    assert plan["changed_columns"] == {"n": 1, "name": 1}
    assert {change["change"] for change in plan["schema_changes"]} == {"add", "widen"}
    assert "SECRET" not in str(plan)
    assert "HIDDEN" not in str(plan)
    assert first_class.read(meta=True) == before
    assert len(waiting(first_class)) == 1

    result = first_class.loader(load_id="reviewed").publish().as_dict()

    assert {k: v for k, v in result.items() if k != "seconds"} == {
        k: v for k, v in plan.items() if k not in ("seconds", "changed_columns", "plan_id")
    }
    assert not waiting(first_class)
    assert first_class.loads()[-1]["load_id"] == "reviewed"


@pytest.mark.parametrize("change", ["ALTER n TYPE text", "ADD extra json", "ALTER at TYPE text", "ALTER yes TYPE text"])
def test_columns_of_types_that_somebody_chose(postgres: Warehouse, change: str) -> None:
    row = '{"id":"%s","n":%s,"at":"2024-01-0%sT00:00:00Z","yes":%s'
    postgres.load(f"[{row % ('a', 1, 1, 'true')}}}]".encode())
    postgres.execute(f"ALTER TABLE products {change}")
    same = row % ("a", 1, 1, "true") + ',"extra":{}}'
    postgres.load(f"[{same},{row % ('b', 1, 1, 'true')}}}]".encode())
    loader = postgres.loader(load_id="x")
    changed = row % ("b", 2, 2, "false") + ',"extra":{}}'
    plan = loader.stage(Pages([f"[{same},{changed}]".encode()]))
    assert plan.changed_columns == {"n": 1, "at": 1, "yes": 1, "extra": 1}
    assert loader.publish().updated == 1


@pytest.mark.parametrize("rows", [[{"id": "a", "tags": []}], []], ids=["empty arrays", "no rows"])
def test_a_load_without_a_single_element(first_class: Warehouse, rows: list[Any]) -> None:
    loader = first_class.loader(load_id="first", child_tables=True)
    loader.stage(Pages([rows]))
    assert loader.publish().inserted == len(rows)
    assert not waiting(first_class)
    first_class.load([{"id": "a", "tags": ["x"]}], child_tables=True)
    assert first_class.read("products__tags")[0]["value"] == "x"


def test_the_plan_counts_the_rows_that_are_updated_and_no_others(first_class: Warehouse) -> None:
    for version in range(3):
        first_class.load([{"id": "a", "v": version}], write_mode="append", table="log")
    plan = first_class.loader(table="log", write_mode="append").stage(Pages([[{"id": "a", "v": 9}]]))
    assert (plan.result.inserted, plan.changed_columns) == (1, {})
    first_class.load([{"id": "a", "v": 1, "n": 1}, {"id": "b", "v": 1, "n": 1}])
    twice = [{"id": "a", "v": 2, "n": 2}, {"id": "a", "v": 1, "n": 1}, {"id": "b", "v": 1, "n": 1}]
    plan = first_class.loader().stage(Pages([twice]))
    assert (plan.result.updated, plan.result.duplicates, plan.changed_columns) == (0, 1, {})
    first_class.load([{"id": "a", "v": 1, "n": 1}])
    returned = [{"id": "a", "v": 1, "n": 1}, {"id": "b", "v": 5, "n": 1}]
    plan = first_class.loader().stage(Pages([returned]))
    assert (plan.result.updated, plan.changed_columns) == (1, {"v": 1})


def test_the_plan_of_a_history_counts_no_interval_that_was_closed(first_class: Warehouse) -> None:
    for version in range(3):
        first_class.load([{"id": "a", "v": version, "n": version}], write_mode="history")
    plan = first_class.loader(write_mode="history").stage(Pages([[{"id": "a", "v": 9, "n": 2}]]))
    assert (plan.result.updated, plan.changed_columns) == (1, {"v": 1})


def test_the_plan_counts_no_row_that_stays_as_somebody_changed_it(first_class: Warehouse) -> None:
    first_class.load([{"id": "a", "v": 1, "tags": ["x"]}], child_tables=True)
    first_class.execute("UPDATE products SET v = 2")
    plan = first_class.loader(child_tables=True).stage(Pages([[{"v": 1, "id": "a", "tags": ["x"]}]]))
    assert (plan.result.unchanged, plan.changed_columns) == (1, {})


def test_a_plan_is_old_even_if_the_books_were_pruned(first_class: Warehouse) -> None:
    for version in range(2):
        first_class.load([{"id": "a", "v": version}])
    first_class.loader(load_id="x").stage(Pages([[{"id": "a", "v": 10}]]))
    first_class.load([{"id": "a", "v": 11}])
    oldest = min(row["finished_at"] for row in first_class.loads())
    first_class.execute("DELETE FROM _m2p_loads WHERE finished_at = :oldest", oldest=oldest)
    with pytest.raises(M2PLoadError, match="was loaded for tenant"):
        first_class.loader(load_id="x").publish()
    assert first_class.read()[0]["v"] == 11


def test_a_load_that_makes_the_table(first_class: Warehouse) -> None:
    loader = first_class.loader(load_id="first", child_tables=True)
    plan = loader.stage(Pages([b'[{"id":"a","tags":["x"]}]'])).as_dict()
    assert counts(plan) == (1, 0, 0, 0)
    assert "products" not in first_class.tables()
    loader.publish()
    assert first_class.read("products__tags", meta=True)[0]["value"] == "x"
    assert not waiting(first_class)


@pytest.mark.parametrize(
    ("value", "child_tables"),
    [('"2024-01-01T00:00:00Z"', False), ("[1,2]", False), ('"2024-01-01T00:00:00Z"', True), ("{}", True)],
)
def test_what_was_read_again_for_its_texts_is_published(first_class: Warehouse, value: str, child_tables: bool) -> None:
    row = '{"id":"%s","a":%s,"b":%s,"fees":[{"n":1,"x":%s,"y":%s}]}'
    pages = [("[" + row % (n, a, value, a, value) + "]").encode() for n, a in (("1", value), ("2", '"zzz"'))]
    loader = first_class.loader(load_id="x", child_tables=child_tables)
    assert loader.stage(Pages(pages)).result.inserted == loader.publish().inserted == 2
    assert [row["a"] == "zzz" for row in first_class.read()] == [False, True]
    assert not waiting(first_class)


@pytest.mark.parametrize("statement", ["DROP TABLE", "DELETE FROM"])
def test_a_stage_whose_rows_are_gone(first_class: Warehouse, statement: str) -> None:
    first_class.load(OLD)
    loader = first_class.loader(load_id="x")
    loader.stage(Pages([OLD]))
    first_class.execute(f"{statement} {waiting(first_class).pop()}")  # as PostgreSQL does when it starts after a crash
    with pytest.raises(M2PLoadError, match=r"rows of staged load 'x' are gone.*Stage the load again"):
        loader.publish()
    assert loader.discard()


def test_a_table_that_moved_on_is_left_alone(first_class: Warehouse) -> None:
    first_class.load(OLD)
    loader = first_class.loader(load_id="slow")
    loader.stage(Pages([NEW]))
    first_class.load(OLD.replace(b'"n":2', b'"n":20'))
    before = first_class.read(meta=True)

    with pytest.raises(M2PLoadError, match=r"was loaded for tenant 'ACME_CORP' since load 'slow' was staged"):
        loader.publish()
    assert first_class.read(meta=True) == before
    assert loader.discard()
    assert not waiting(first_class)


def test_a_row_that_somebody_changed_by_hand_is_noticed(first_class: Warehouse) -> None:
    first_class.load(OLD)
    loader = first_class.loader(load_id="slow")
    loader.stage(Pages([NEW]))
    first_class.execute("DELETE FROM products WHERE id = 'b'")
    with pytest.raises(M2PLoadError, match="changed products while this one read"):
        loader.publish()
    assert {row["id"] for row in first_class.read()} == {"a", "c"}


@pytest.mark.parametrize("other", [{"tenant_id": "GLOBEX"}, {"table": "others"}])
def test_loads_of_other_tenants_and_tables_do_not_matter(first_class: Warehouse, other: dict[str, str]) -> None:
    first_class.load(OLD)
    loader = first_class.loader(load_id="slow")
    loader.stage(Pages([NEW]))
    first_class.load(OLD, **other)
    assert counts(loader.publish().as_dict()) == (1, 1, 1, 1)


@pytest.mark.parametrize("child_tables", [False, True])
def test_columns_that_another_tenants_load_made_meanwhile(first_class: Warehouse, child_tables: bool) -> None:
    old, new = b'[{"id":"a","n":1,"fees":[{"x":1}]}]', b'[{"id":"a","n":1.5,"extra":true,"fees":[{"x":1,"y":"z"}]}]'
    first_class.load(old, child_tables=child_tables)
    loader = first_class.loader(load_id="x", child_tables=child_tables)
    plan = loader.stage(Pages([new])).as_dict()
    assert [change["change"] for change in plan["schema_changes"]] == ["widen", "add", "add"][: 2 + child_tables]
    theirs = first_class.load(new, tenant_id="GLOBEX", child_tables=child_tables)
    assert theirs["schema_changes"] == plan["schema_changes"]
    result = loader.publish()
    assert result.schema_changes == []
    assert counts(result.as_dict()) == counts(plan) == (0, 1, 0, 0)
    for table in ("products", "products__fees")[: 1 + child_tables]:
        ours, other = (first_class.read(table, _m2p_tenant_id=tenant) for tenant in ("ACME_CORP", "GLOBEX"))
        assert ours == other
    assert counts(first_class.load(new.replace(b"z", b"y"), child_tables=child_tables)) == (0, 1, 0, 0)


@pytest.mark.parametrize("mode", ["append", "replace", "upsert", "history"])
def test_tenants_whose_first_loads_wait_side_by_side(first_class: Warehouse, mode: str) -> None:
    tenants = [f"T{n}" for n in range(3)]
    loaders = [first_class.loader(load_id=tenant, tenant_id=tenant, write_mode=mode) for tenant in tenants]
    for loader in loaders:
        loader.stage(Pages([OLD]))
    assert [loader.publish().inserted for loader in loaders] == [3, 3, 3]
    for tenant in tenants:
        again = first_class.load(OLD, tenant_id=tenant, write_mode=mode)
        assert counts(again) == ((3, 0, 0, 0) if mode == "append" else (0, 0, 3, 0))


@pytest.mark.parametrize(
    ("new", "theirs"),
    [
        ('"at":"2024-01-01T00:00:00Z"', '"at":"soon"'),  # the stage has no text
        ('"n":1.5', '"n":"x"'),  # wider than planned
        ('"extra":1', '"extra":true'),
        ('"extra":1', '"another":1,"extra":1'),  # at another place in the row hash
        ('"extra":1', '"another":1'),
        ('"extra":1,"another":1', '"another":1'),
    ],
)
def test_columns_that_another_tenants_load_made_otherwise(first_class: Warehouse, new: str, theirs: str) -> None:
    row = '[{"id":"a","n":1,"at":"2024-01-01T00:00:00Z"}]'
    first_class.load(row.encode())
    loader = first_class.loader(load_id="x")
    loader.stage(Pages([f'[{{"id":"a",{new}}},{{"id":"b",{new}}}]'.encode()]))
    first_class.load(f'[{{"id":"a",{theirs}}}]'.encode(), tenant_id="GLOBEX")
    before = first_class.read(meta=True)
    if first_class.way == "sqlite" and "soon" in theirs:
        assert loader.publish().inserted == 1  # there every stage has the texts
        return
    with pytest.raises(M2PLoadError, match=r"would not do what its plan says: .*Stage the load again and review"):
        loader.publish()
    assert first_class.read(meta=True) == before


def test_what_was_decided_is_decided(first_class: Warehouse) -> None:
    loader = first_class.loader(load_id="once")
    first = loader.stage(Pages([OLD]))
    published = loader.publish()
    assert not loader.discard()
    before = first_class.read(meta=True)
    for plan_id in (None, first.plan_id):
        again = loader.publish(plan_id)
        assert again.as_dict() == {**published.as_dict(), "seconds": again.seconds}
    with pytest.raises(M2PLoadError, match=rf"plan other was made: what was published is plan {first.plan_id}\. Nothing"):
        loader.publish("other")
    assert first_class.read(meta=True) == before
    assert [load["load_id"] for load in first_class.loads()] == ["once"]

    second = loader.stage(Pages([NEW]))
    with pytest.raises(M2PLoadError, match=rf"what waits now is plan {second.plan_id}\. Nothing was written"):
        loader.publish(first.plan_id)
    assert loader.discard()
    for plan_id in (None, first.plan_id, second.plan_id):
        with pytest.raises(M2PLoadError, match="No staged load 'once'"):
            loader.publish(plan_id)
    assert not loader.discard()
    assert first_class.read(meta=True) == before


@pytest.mark.parametrize("knows_plan", [False, True])
def test_a_load_that_was_published_by_a_connection_that_was_lost(postgres: Warehouse, knows_plan: bool) -> None:
    """After the last COMMIT it is published, and nobody was told; the next try is."""
    applied = 0
    for cut in range(1, 20):
        loader = postgres.loader(load_id=f"x{cut}", write_mode="append")
        plan = loader.stage(Pages([OLD]))
        plan_id = plan.plan_id if knows_plan else None
        with Proxy(postgres.url.port or 0, cut, delivered=True, counts=is_commit) as proxy:
            broken = Warehouse(postgres.way, postgres.url.set(port=proxy.port), poolclass=sa.pool.NullPool)
            try:
                broken.loader(load_id=f"x{cut}").publish(plan_id)
            except M2PLoadError as error:
                assert "Run the task again: that does no harm." in str(error)
                applied += f"x{cut}" in {load["load_id"] for load in postgres.loads()}
        assert counts(loader.publish(plan_id).as_dict()) == counts(plan.result.as_dict()) == (3, 0, 0, 0)
        if not proxy.fired:
            break
    assert applied == 1
    assert [load["load_id"] for load in postgres.loads()] == [f"x{n}" for n in range(1, cut + 1)]
    assert len(postgres.read()) == 3 * cut


#: Who publishes or discards from another task knows the load id alone.
ANYONE = [{}, {"table": "_m2p_staged", "tenant_id": "-"}]


@pytest.mark.parametrize("who", ANYONE)
def test_what_was_published_a_moment_ago_is_not_discarded(first_class: Warehouse, who: dict[str, str]) -> None:
    staged = first_class.loader(load_id="x")
    staged.stage(Pages([OLD]))
    steps: list[Any] = []

    @sa.event.listens_for(first_class.engine, "after_cursor_execute")
    def look(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("SELECT _m2p_staged") and not steps:
            steps.append("looked")

    @sa.event.listens_for(first_class.engine, "commit")
    def meanwhile(_: Any) -> None:
        if steps == ["looked"]:
            steps.append("publishes")
            steps.append(in_thread(staged.publish).result(60).inserted)

    assert not first_class.loader(load_id="x", **who).discard()
    assert steps == ["looked", "publishes", 3]
    assert len(first_class.read()) == 3


@pytest.mark.parametrize("who", ANYONE)
def test_who_discards_waits_for_who_publishes(postgres: Warehouse, who: dict[str, str]) -> None:
    staged = postgres.loader(load_id="x")
    staged.stage(Pages([OLD]))
    errors = []

    @sa.event.listens_for(postgres.engine, "after_cursor_execute")
    def meanwhile(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO _m2p_loads"):
            discard = postgres.loader(load_id="x", lock_seconds=0.1, **who).discard
            errors.append(in_thread(discard).exception(60))

    staged.publish()
    assert [str(error).startswith("Another load held public.products for more than 0 s.") for error in errors] == [True]


def test_staged_again_the_first_stage_is_gone(first_class: Warehouse) -> None:
    loader = first_class.loader(load_id="again")
    loader.stage(Pages([OLD]))
    loader.stage(Pages([NEW]))
    assert len(waiting(first_class)) == 1
    assert loader.publish().rows_read == 3
    assert {row["id"] for row in first_class.read()} == {"a", "b", "d"}


@pytest.mark.parametrize("other", [{"table": "others"}, {"tenant_id": "GLOBEX"}])
def test_a_load_id_is_of_one_table_and_tenant(first_class: Warehouse, other: dict[str, str]) -> None:
    loader, another = first_class.loader(load_id="x"), first_class.loader(load_id="x", **other)
    plan = loader.stage(Pages([OLD]))
    pages = Pages([NEW])
    for step in (lambda: another.stage(pages), another.publish, lambda: another.publish(plan.plan_id), another.discard):
        with pytest.raises(M2PConfigError, match="'x' was staged for table products, tenant 'ACME_CORP', not for "):
            step()
    assert not pages.pages
    assert len(waiting(first_class)) == 1
    assert loader.publish().inserted == 3
    assert another.stage(Pages([NEW])).result.inserted == 3
    assert another.publish().tenant_id == other.get("tenant_id", "ACME_CORP")


def test_who_knows_the_load_id_alone_may_publish_and_discard(first_class: Warehouse) -> None:
    anyone = first_class.loader(load_id="x", **ANYONE[1])
    for loader in (first_class.loader(load_id="x"), first_class.loader(load_id="x", tenant_id="GLOBEX", table="others")):
        loader.stage(Pages([OLD]))
        assert anyone.discard()
        plan = loader.stage(Pages([OLD]))
        assert anyone.publish(plan.plan_id).table == plan.result.table


@pytest.mark.parametrize("then", ["stage", "discard"])
@pytest.mark.parametrize("table_exists", [False, True])
def test_a_stage_whose_connection_was_lost_is_found(postgres: Warehouse, table_exists: bool, then: str) -> None:
    if table_exists:
        postgres.load(OLD)
    with Proxy(postgres.url.port or 0, 1, delivered=True, counts=lambda statement: b"COPY" in statement) as proxy:
        broken = Warehouse(postgres.way, postgres.url.set(port=proxy.port), poolclass=sa.pool.NullPool)
        with pytest.raises(M2PLoadError, match="connection was lost"):
            broken.loader(load_id="x").stage(Pages([NEW]))
    assert len(waiting(postgres)) == 1
    loader = postgres.loader(load_id="x")
    with pytest.raises(M2PLoadError, match="No staged load 'x' waits in the default schema: it was not staged to the end"):
        loader.publish()
    if then == "stage":
        loader.stage(Pages([NEW]))
        assert len(waiting(postgres)) == 1
        assert loader.publish().rows_read == 3
    else:
        assert not loader.discard()  # nobody could have published it
    assert not waiting(postgres)


def test_a_load_that_failed_does_not_bind_its_id(first_class: Warehouse) -> None:
    first_class.load(OLD)
    with pytest.raises(M2PSchemaError, match="freeze"):
        first_class.loader(load_id="x", schema_policy="freeze").stage(Pages([NEW]))
    loader = first_class.loader(load_id="x", table="others")
    loader.stage(Pages([NEW]))
    assert loader.publish().inserted == 3


def test_of_two_that_stage_the_same_load_the_later_one_counts(first_class: Warehouse) -> None:
    first_class.load(OLD)
    slow = Gated(OLD)
    future = in_thread(lambda: first_class.loader(load_id="x").stage(slow))
    assert slow.read.wait(60)
    plan = first_class.loader(load_id="x").stage(Pages([NEW]))
    slow.gate.set()
    with pytest.raises(M2PLoadError, match="'x' was staged again, or discarded, while this task read"):
        future.result(60)
    assert first_class.loader(load_id="x").publish(plan.plan_id).updated == 1
    assert not waiting(first_class)


def test_a_load_that_is_staged_again_after_its_rehearsal_is_not_entered(first_class: Warehouse) -> None:
    first_class.load(OLD)
    plans = []
    steps: list[str] = []

    @sa.event.listens_for(first_class.engine, "before_cursor_execute")
    def rehearsed(_c: Any, _cursor: Any, statement: str, *_: Any) -> None:
        if statement.startswith("INSERT INTO _m2p_loads") and "VALUES" in statement:
            steps.append("rehearsed")

    @sa.event.listens_for(first_class.engine, "begin")
    def meanwhile(_c: Any) -> None:
        if steps == ["rehearsed"]:
            steps.append("again")
            later = first_class.loader(load_id="x")
            plans.append(in_thread(lambda: later.stage(Pages([NEW]))).result(60))

    with pytest.raises(M2PLoadError, match="'x' was staged again, or discarded, while this task read"):
        first_class.loader(load_id="x").stage(Pages([OLD]))
    assert first_class.loader(load_id="x").publish(plans[0].plan_id).updated == 1
    assert not waiting(first_class)


def test_a_plan_is_published_under_its_own_id_alone(first_class: Warehouse) -> None:
    loader = first_class.loader(load_id="again")
    agreed = loader.stage(Pages([OLD])).plan_id
    waiting = loader.stage(Pages([OLD])).plan_id
    with pytest.raises(M2PLoadError, match=rf"'again' was staged again after plan {agreed} was made.* plan {waiting}\."):
        loader.publish(agreed)
    assert "products" not in first_class.tables()
    assert loader.publish(waiting).inserted == 3


@pytest.mark.parametrize("then", ["stage", "discard"])
def test_a_load_that_another_version_staged(first_class: Warehouse, then: str, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = first_class.loader(load_id="old")
    loader.stage(Pages([OLD]))
    with first_class.engine.connect() as connection:
        record = json.loads(connection.exec_driver_sql("SELECT record FROM _m2p_staged").scalar_one())
    for part, name in ((record, "version"), (record["spec"], "hash_columns"), (record["read"], "before")):
        part.pop(name, None)
        part["since_then_gone"] = True
    first_class.execute("UPDATE _m2p_staged SET record = :record", record=json.dumps(record))
    with pytest.raises(M2PLoadError, match="'old' was staged by another version of airflow-provider-m2p .*Stage the load again"):
        loader.publish()
    assert "products" not in first_class.tables()
    if then == "discard":
        assert loader.discard()
        assert not waiting(first_class)
    else:
        loader.stage(Pages([OLD]))
        assert loader.publish().inserted == 3
        monkeypatch.setattr(review, "__version__", "later")
        assert loader.publish().inserted == 3


def test_a_load_that_cannot_be_rehearsed_leaves_no_stage(first_class: Warehouse) -> None:
    first_class.load(OLD)
    with pytest.raises(M2PSchemaError, match="freeze"):
        first_class.loader(schema_policy="freeze").stage(Pages([NEW]))
    assert not waiting(first_class)


def test_a_stage_that_nobody_decides_on_is_swept(first_class: Warehouse, monkeypatch: pytest.MonkeyPatch) -> None:
    loader = first_class.loader(load_id="forgotten")
    loader.stage(Pages([OLD]))
    now = stages.time.time()
    monkeypatch.setattr(stages.time, "time", lambda: now + 6 * 86400)
    first_class.load(OLD)
    assert waiting(first_class)
    monkeypatch.setattr(stages.time, "time", lambda: now + 8 * 86400)
    first_class.load(OLD)
    assert not waiting(first_class)
    with pytest.raises(M2PLoadError, match="swept after a week"):
        loader.publish()


def test_what_was_published_is_remembered_for_a_week(first_class: Warehouse) -> None:
    loaders = [first_class.loader(load_id=f"x{n}", table=f"t{n}") for n in range(2)]
    for loader in loaders:
        loader.stage(Pages([OLD]))
        loader.publish()
    week_ago = datetime.now(UTC) - timedelta(days=7, minutes=1)
    update = sa.text("UPDATE _m2p_staged SET staged_at = :at WHERE load_id = 'x0'")
    with first_class.engine.begin() as connection:
        connection.execute(update.bindparams(sa.bindparam("at", week_ago, sa.TIMESTAMP(timezone=True))))
    assert loaders[0].publish().inserted == 3
    first_class.loader(load_id="x2", table="t2").stage(Pages([OLD]))
    assert loaders[1].publish().inserted == 3
    with pytest.raises(M2PLoadError, match="No staged load 'x0'"):
        loaders[0].publish()


def test_a_database_that_cannot_rehearse_says_so(mariadb: Warehouse) -> None:
    with pytest.raises(M2PConfigError, match="cannot be rehearsed"):
        mariadb.loader().stage(Pages([OLD]))
    assert not waiting(mariadb)


def test_stages_live_in_the_schema_of_the_table(postgres: Warehouse) -> None:
    postgres.execute("CREATE SCHEMA products_of_m2p")
    loader = postgres.loader(schema="products_of_m2p", load_id="there")
    loader.stage(Pages([OLD]))
    assert not waiting(postgres)
    loader.publish()
    assert sa.inspect(postgres.engine).has_table("products", schema="products_of_m2p")

"""
Loads that wait for somebody's consent.

:func:`stage` reads the platform and keeps the rows in a stage of their own, beside a plan of what they would do to
    the table. The plan is no estimate: the load is applied and rolled back. :func:`publish` applies exactly that
    plan or refuses; :func:`discard` throws the stage away. Stages that nobody decides on for a week are swept by
    the next load, and what was published is remembered for a week, too.
"""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import msgspec
import sqlalchemy as sa

from airflow_provider_m2p import __version__
from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.columns.names import show
from airflow_provider_m2p.columns.shape import Field
from airflow_provider_m2p.exceptions import M2PConfigError, M2PLoadError
from airflow_provider_m2p.warehouse.apply import Apply
from airflow_provider_m2p.warehouse.books import STAGED, Books
from airflow_provider_m2p.warehouse.dialect import Dialect
from airflow_provider_m2p.warehouse.load import Load
from airflow_provider_m2p.warehouse.reading import Read, ReadAgain
from airflow_provider_m2p.warehouse.spec import LoadResult, LoadSpec
from airflow_provider_m2p.warehouse.staged import Staged

if TYPE_CHECKING:
    from airflow_provider_m2p.client.page import PageStream

log = logging.getLogger(__name__)


@dataclass(kw_only=True, slots=True)
class LoadPlan:
    """
    What a staged load will do when it is published.

    :param result: the counts and schema changes, as the load will report them.
    :param changed_columns: how many of the updated rows change in each column; no values.
    :param plan_id: another one each time the load is staged, which leaves its load id the same.
    """

    result: LoadResult
    changed_columns: dict[str, int] = field(default_factory=dict)
    plan_id: str = field(default_factory=lambda: secrets.token_hex(8))

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as plain JSON types."""
        return {**self.result.as_dict(), "changed_columns": self.changed_columns, "plan_id": self.plan_id}


class _Rehearsed(Exception):
    """The load was applied; now undo it."""


def stage(
    books: Books, spec: LoadSpec, pages: PageStream, lock_seconds: float, before: str | None = None
) -> LoadPlan:
    """
    Stage a load and return its plan. If it waits already, as it was staged before, that is thrown away first.

    :param before: the digest of the reading before, if that was doubtful.
    :raises M2PConfigError: the database cannot undo a change of the schema, so that it cannot be rehearsed; or a load
        of another table or tenant waits under the same id.
    """
    dialect = books.dialect
    if not dialect.transactional_ddl:
        raise M2PConfigError(
            f"{dialect.connection.dialect.name} commits every change of a schema at once, so a load cannot be "
            "rehearsed there. Load without review, or into PostgreSQL or SQLite."
        )
    load = Load(books, spec, for_review=True)
    try:
        _begin(books, spec, load.stage.table.name, lock_seconds)
        read = load.read(pages, before)
        staged = load.stage.staged()
        plan = _rehearse(books, spec, read, staged, lock_seconds)
        with dialect.transaction(books.full_name(spec.table), lock_seconds):
            if _is_overtaken(books, spec, staged.table):
                raise _overtaken(spec)
            books.enter_staged(spec, _record(spec, read, staged, plan), read.started_at)
    except BaseException:
        try:
            load.discard()
        except sa.exc.DBAPIError as error:  # above all, if the stage is gone
            if error.connection_invalidated:
                raise
            with dialect.connection.begin():
                if not _is_overtaken(books, spec, load.stage.table):
                    raise
            raise _overtaken(spec) from None
        raise
    return plan


def publish(books: Books, spec: LoadSpec, lock_seconds: float, plan_id: str | None = None) -> LoadResult:
    """
    Apply a staged load, or if that was done already, return its result again.

    :param spec: its schema and load id; its table and tenant, or :data:`~airflow_provider_m2p.warehouse.books.STAGED`
        for any. All else stands in the books.
    :param plan_id: of the plan that was agreed to; ``None`` for whatever plan there is.
    :raises M2PConfigError: the load that waits is for another table or tenant.
    :raises M2PLoadError: no such load waits, it has another plan or is another version's, or the table is no longer
        what that was made for.
    """
    dialect = books.dialect
    with _entry(books, spec, lock_seconds) as entry:
        if entry is None or "plan" not in entry[1]:
            raise M2PLoadError(
                f"No staged load {spec.load_id!r} waits in {spec.schema or 'the default schema'}: it was not staged to "
                "the end, was discarded, or swept after a week. Stage it again."
            )
        kept, record = entry
        published, newest = record.get("published"), record["plan"]["plan_id"]
        if plan_id is not None and plan_id != newest:
            raise M2PLoadError(
                f"Load {kept.load_id!r} was staged again after plan {plan_id} was made: what "
                f"{'was published' if published else 'waits now'} is plan {newest}. Nothing was written. "
                "Review the new plan."
            )
        if published:
            log.info("Load %s was published before, as plan %s. It is not applied again.", kept.load_id, newest)
            return LoadResult(**published)
        if record.get("version") != __version__:
            raise M2PLoadError(
                f"Load {kept.load_id!r} was staged by another version of airflow-provider-m2p than this one "
                f"({__version__}). Nothing was written. Stage the load again and review the new plan."
            )
        read = Read(**{**record["read"], "started_at": datetime.fromisoformat(record["read"]["started_at"])})
        if books.version(kept.table, kept.tenant_id) != read.version:
            raise M2PLoadError(
                f"{kept.full_name} was loaded for tenant {kept.tenant_id!r} since load {kept.load_id!r} was staged. "
                "Nothing was written. Stage the load again and review the new plan."
            )
        # Time has passed: rows that were skipped must be looked at, too.
        staged = _staged(dialect, kept, record["staged"])
        try:
            result = Apply(books, kept).run(replace(read, version=None), staged)
            done, planned = _outcome(result.as_dict()), _outcome(record["plan"])
            as_planned = _is_as_planned(books, kept, done, planned)
        except ReadAgain:  # a column has become text meanwhile, and the stage has none; or columns are in another order
            as_planned = False
        if not as_planned:
            raise M2PLoadError(
                f"Publishing load {kept.load_id!r} would not do what its plan says: {kept.full_name} was changed by "
                "something else. Nothing was written. Stage the load again and review the new plan."
            )
        _drop(dialect, kept.schema, record["staged"])
        # Whoever asks for it may be gone, or the connection, before they know: let them ask again.
        remembered = {"spec": record["spec"], "plan": record["plan"], "published": result.as_dict()}
        books.enter_staged(kept, remembered, datetime.now(UTC))
    return result


def discard(books: Books, spec: LoadSpec, lock_seconds: float) -> bool:
    """Throw away a load that waits, and tell whether there was one."""
    with _entry(books, spec, lock_seconds) as entry:
        if entry is None or "staged" not in entry[1]:
            return False
        kept, record = entry
        _drop(books.dialect, kept.schema, record["staged"])
        books.remove_staged(kept.load_id)
        return "plan" in record


def _begin(books: Books, spec: LoadSpec, stage: str, lock_seconds: float) -> None:
    """Enter the stage before its rows, so that it is found whatever ends this; throw away what was staged before."""
    with books.dialect.transaction(books.full_name(spec.table), lock_seconds):
        record = books.staged(spec.load_id)
        if record is not None and "staged" in record:
            if "plan" in record:
                _refuse_other(spec, _spec(record))
            _drop(books.dialect, spec.schema, record["staged"])
        record = {"spec": asdict(spec), "staged": {"table": stage, "children": []}}
        books.enter_staged(spec, record, datetime.now(UTC))


def _is_overtaken(books: Books, spec: LoadSpec, stage: sa.Table) -> bool:
    """Tell whether a stage is no longer that of its load: who stages the load again, or discards it, drops it."""
    record = books.staged(spec.load_id) or {}
    return bool(record.get("staged", {}).get("table") != stage.name)


def _overtaken(spec: LoadSpec) -> M2PLoadError:
    return M2PLoadError(
        f"Load {spec.load_id!r} was staged again, or discarded, while this task read the platform. What it read is "
        "thrown away. Look for the newer plan; if there is none, run the task again."
    )


@contextmanager
def _entry(books: Books, spec: LoadSpec, lock_seconds: float) -> Iterator[tuple[LoadSpec, dict[str, Any]] | None]:
    """Lock the table that a load was staged for, and give what the books then have of the load."""
    dialect = books.dialect
    with dialect.connection.begin():
        record = None if books.missing() else books.staged(spec.load_id)
    if record is None:
        yield None
        return
    kept = _spec(record)
    _refuse_other(spec, kept)
    with dialect.transaction(books.full_name(kept.table), lock_seconds):
        # Somebody else may have decided on it before the lock was free.
        record = books.staged(spec.load_id)
        yield None if record is None or _target(_spec(record)) != _target(kept) else (_spec(record), record)


def _target(spec: LoadSpec) -> tuple[str, str]:
    return spec.table, spec.tenant_id


def _refuse_other(spec: LoadSpec, kept: LoadSpec) -> None:
    """Refuse what is meant for another load than the one that waits under its load id."""
    if spec.table != STAGED and _target(spec) != _target(kept):
        raise M2PConfigError(
            f"Load {kept.load_id!r} was staged for table {kept.full_name}, tenant {kept.tenant_id!r}, not for "
            f"{spec.full_name}, tenant {spec.tenant_id!r}. It was left as it is. Publish or discard it with its own "
            "table and tenant, or give the other load an id of its own."
        )


def _rehearse(books: Books, spec: LoadSpec, read: Read, staged: Staged, lock_seconds: float) -> LoadPlan:
    changed: dict[str, int] = {}
    result: LoadResult | None = None
    try:
        with books.dialect.transaction(books.full_name(spec.table), lock_seconds):
            apply = Apply(books, spec, before_merge=lambda merge: changed.update(merge.changed_columns()))
            result = apply.run(read, staged)
            raise _Rehearsed
    except _Rehearsed:
        assert result is not None
        return LoadPlan(result=result, changed_columns=changed)


def _record(spec: LoadSpec, read: Read, staged: Staged, plan: LoadPlan) -> dict[str, Any]:
    """Return all that publishing needs, as plain JSON types."""
    return {
        "version": __version__,
        "spec": asdict(spec),
        "read": {**asdict(read), "started_at": read.started_at.isoformat()},
        "staged": _staged_as_dict(staged),
        "plan": plan.as_dict(),
    }


def _spec(record: dict[str, Any]) -> LoadSpec:
    """Return the load that a record is of, as far as this version knows what another one wrote."""
    return msgspec.convert(record["spec"], LoadSpec)


def _staged_as_dict(staged: Staged) -> dict[str, Any]:
    return {
        "table": staged.table.name,
        "columns": [[list(column.path), column.tokens] for column in staged.columns],
        "kinds": [kind.value for kind in staged.kinds],
        "key": [list(path) for path in staged.key],
        "ignored": [[list(path), count] for path, count in staged.ignored.items()],
        "rows": staged.rows,
        "children": [[list(path), _staged_as_dict(child)] for path, child in staged.children.items()],
    }


def _staged(dialect: Dialect, spec: LoadSpec, record: dict[str, Any]) -> Staged:
    """Return a stage from what :func:`_staged_as_dict` made of it, with the types that its columns have."""
    # Where no row has a field, as of arrays that are all empty, there is no table.
    there = dialect.connection if record["columns"] else None
    gone = M2PLoadError(
        f"The rows of staged load {spec.load_id!r} are gone: somebody dropped the table {record['table']}, or changed "
        "it, or the database crashed, which empties it. Nothing was written. Stage the load again and review the new "
        "plan."
    )
    try:
        table = sa.Table(record["table"], sa.MetaData(), schema=spec.schema, autoload_with=there)
    except sa.exc.NoSuchTableError:
        raise gone from None
    if there is not None and there.scalar(sa.select(sa.func.count()).select_from(table)) != record["rows"]:
        raise gone
    columns = [Field(tuple(path), tokens) for path, tokens in record["columns"]]
    kinds = [Kind(kind) for kind in record["kinds"]]
    key = tuple(tuple(path) for path in record["key"])
    ignored = {tuple(path): count for path, count in record["ignored"]}
    children = {tuple(path): _staged(dialect, spec, child) for path, child in record["children"]}
    return Staged(table, columns, kinds, key, ignored, record["rows"], children)


def _drop(dialect: Dialect, schema: str | None, record: dict[str, Any]) -> None:
    for _, child in record["children"]:
        _drop(dialect, schema, child)
    sa.Table(record["table"], sa.MetaData(), schema=schema).drop(dialect.connection, checkfirst=True)


def _outcome(result: dict[str, Any]) -> dict[str, Any]:
    """Return what a result and its plan have in common."""
    return {name: value for name, value in result.items() if name not in ("seconds", "changed_columns", "plan_id")}


def _is_as_planned(books: Books, spec: LoadSpec, done: dict[str, Any], planned: dict[str, Any]) -> bool:
    """Tell whether what was planned and not done was done before: another tenant's load may need the same columns."""
    made = done["schema_changes"]
    there = {
        (table, column.name, show(column.path), column.kind.value)
        for table in {change.get("table", spec.table) for change in planned["schema_changes"]}
        for column in books.columns(table)
    }
    left = [
        change
        for change in planned["schema_changes"]
        if change in made
        or (change.get("table", spec.table), change.get("column"), change["field"], change.get("type")) not in there
    ]
    return {**planned, "schema_changes": left} == done


"""What the tasks that load have in common: the warehouse's connection, the log of the counts, the outlets' events."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from airflow.sdk import Asset, BaseHook

from airflow_provider_m2p.exceptions import M2PConfigError

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping, Sequence

    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from sqlalchemy import Engine

    from airflow_provider_m2p.warehouse.spec import LoadResult


def warehouse_hook(sql_conn_id: str) -> DbApiHook:
    """
    Return the hook of a connection to a SQL database.

    :param sql_conn_id: id of a connection whose hook is a ``DbApiHook``.
    """
    from airflow.providers.common.sql.hooks.sql import DbApiHook
    from airflow.sdk.exceptions import AirflowException

    connection = BaseHook.get_connection(sql_conn_id)
    try:
        hook = connection.get_hook()  # type: ignore[no-untyped-call]
    except AirflowException:  # Airflow's answer for a type that no installed provider knows
        hook = None
    if not isinstance(hook, DbApiHook):
        raise M2PConfigError(
            f"Connection {sql_conn_id!r} (sql_conn_id) is of type {connection.conn_type!r}, not a SQL database. "
            "Check the type, and that the provider package of the database is installed."
        )
    return hook


@contextmanager
def warehouse_engine(hook: DbApiHook) -> Iterator[Engine]:
    """
    Yield the engine of a SQL database, and close its connections afterwards.

    :param hook: the database's hook.
    :raises M2PConfigError: what SQLAlchemy needs for this database is not installed, or does not exist, or the database
        would go with the task.
    """
    from sqlalchemy.exc import ArgumentError

    conn_id = hook.get_conn_id()
    try:
        engine = hook.get_sqlalchemy_engine(_engine_options(hook))
    except ImportError as error:
        raise M2PConfigError(
            f"The driver for connection {conn_id!r} (sql_conn_id) is not installed: {error}. Install the database's "
            "Airflow provider and its driver; for PostgreSQL, airflow-provider-m2p[postgres]."
        ) from error
    except (ArgumentError, NotImplementedError) as error:
        raise M2PConfigError(
            f"Connection {conn_id!r} (sql_conn_id) leads to no database that SQLAlchemy knows: {error}. Install the "
            "SQLAlchemy dialect of the database, or choose a connection to one that has a dialect."
        ) from error
    if engine.dialect.name == "sqlite" and engine.url.database in (None, "", ":memory:"):
        raise M2PConfigError(
            f"Connection {conn_id!r} (sql_conn_id) names no file, so SQLite would lose all rows with the task. Give "
            "the database's path as its host."
        )
    try:
        yield engine
    finally:
        engine.dispose()


def _engine_options(hook: DbApiHook) -> dict[str, Any] | None:
    """Return what SQLAlchemy must give to the driver, such as ``sslmode`` or ``options``."""
    # PostgreSQL's hook gives all its extras but these to the driver, and none of them to SQLAlchemy.
    not_the_drivers = getattr(hook, "ignored_extra_options", None)
    if not_the_drivers is None:
        return None
    extras = hook.connection.extra_dejson
    return {"connect_args": {name: value for name, value in extras.items() if name not in not_the_drivers}}


def log_counts(log: Any, did: str, result: LoadResult) -> None:
    """
    Log what a load did, on one line.

    :param log: the task's log.
    :param did: what was done, as the first word.
    :param result: the counts.
    """
    log.info(
        "%s %s rows from %s pages in %.1f s: %s inserted, %s updated, %s unchanged, %s deleted, %s duplicates, "
        "%s schema changes",
        did,
        result.rows_read,
        result.pages,
        result.seconds,
        result.inserted,
        result.updated,
        result.unchanged,
        result.deleted,
        result.duplicates,
        len(result.schema_changes),
    )


def report_to_outlets(context: Mapping[str, Any], outlets: Iterable[Any], extra: dict[str, Any]) -> None:
    """
    Add to the events that a task's outlets will get.

    :param context: the execution context.
    :param outlets: the task's outlets.
    :param extra: what to add.
    """
    from airflow.sdk.definitions.asset import AssetRef

    events = context.get("outlet_events")
    if events is None:
        return
    for outlet in outlets:
        if isinstance(outlet, (Asset, AssetRef)):
            events[outlet].extra.update(extra)


def names_of(names: Sequence[str] | None) -> tuple[str, ...]:
    """Return names as a tuple; one is often written as plain text, none as ``None``."""
    return (names,) if isinstance(names, str) else tuple(names or ())

"""What a database's error means: a message without the values that the database quotes, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PConfigError, M2PError, M2PLoadError, M2PWarehouseAccessError

_QUOTED: Final = re.compile(
    r"((?:column|[Tt]able|Check constraint) '[^']*')|'.*'|(?:(?<=: )|(?<=value ))\".*\"", re.DOTALL
)

#: SQLSTATEs, MySQL's numbers or SQLite's names; the text where a driver gives none of them; what to do.
_KINDS: Final[list[tuple[str, str, type[M2PLoadError], str]]] = [
    (
        r"55P03|1205|SQLITE_(BUSY|LOCKED)\w*",
        "lock timeout|is locked",
        M2PLoadError,
        "Another session holds the table for long: find it in the database's list of sessions, and run the task again.",
    ),
    (
        r"40001|40P01|1020|1213",
        "deadlock|could not serialize",
        M2PLoadError,
        "Another session was in the way, and the database gave way to it. Run the task again.",
    ),
    (
        r"57014|1969|3024",
        "statement timeout",
        M2PLoadError,
        "The database limits how long a statement may run: raise its limit for this user.",
    ),
    (
        r"53100|1021|1114|SQLITE_FULL",
        "No space left|File too large",
        M2PLoadError,
        "The database has no disk space left: free some, and run the task again.",
    ),
    (
        r"1406|22001",
        "",
        M2PLoadError,
        "Keys, tenant and load ids may have 255 characters in databases other than PostgreSQL and SQLite. Change back "
        "what somebody else made shorter.",
    ),
    (
        r"1071",
        "",
        M2PLoadError,
        "A key may have two fields of texts there, one in a history with child tables: choose other key_columns.",
    ),
    (
        r"1118",
        "",
        M2PLoadError,
        "A row may have 8 kB there, 40 bytes of each text among them: flatten less (max_depth), or exclude fields.",
    ),
    (
        r"1054|1072|1553|18(29|3[234])|3108|3837|3959",
        "",
        M2PLoadError,
        "Somebody else's index, check, foreign key or generated column has a column that must change: drop it, and "
        "make it anew after the load.",
    ),
    (
        r"54000",
        "",
        M2PLoadError,
        "A row may have 8 kB there: flatten less (max_depth), or exclude fields. Of these a key, or an entry of an "
        "index, may have 2.6 kB: choose other key_columns.",
    ),
    (
        r"22003",
        "",
        M2PLoadError,
        "A number has more digits than its column can hold: change back what somebody else made smaller, or exclude "
        "the field (exclude_columns).",
    ),
    (
        r"23...|P0001|1062|1451|1452|1644|4025|SQLITE_CONSTRAINT\w*",
        "",
        M2PLoadError,
        "Somebody else's constraint, index or trigger does not take these rows: change or drop it.",
    ),
    (
        r"42P01",
        "",
        M2PLoadError,
        "Somebody dropped it meanwhile. Or a pooler changes sessions between transactions, as PgBouncer does in its "
        "transaction mode: let loads connect directly, or in session mode.",
    ),
    (
        r"55000",
        "",
        M2PLoadError,
        "A replicated table without a key takes no changes of its rows: have its owner set REPLICA IDENTITY FULL.",
    ),
    (
        r"1173|3750",
        "",
        M2PLoadError,
        "Loads need tables without a primary key: let this user make some (innodb_force_primary_key off; in MySQL "
        "sql_require_primary_key off, or sql_generate_invisible_primary_key on).",
    ),
    (
        r"53300|1040|1203|1226",
        "[Tt]oo many (clients|connections)|remaining connection slots",
        M2PLoadError,
        "Let fewer tasks run at once (an Airflow pool), or let the database take more connections.",
    ),
    (
        r"25006|1290|1792|1836",
        "read-only transaction",
        M2PLoadError,
        "The database, or this user, may only read: check that the connection does not lead to a replica.",
    ),
    (
        r"57P03|2003",
        "Connection refused|could not translate|[Ff]ailed to resolve|starting up|shutting down",
        M2PLoadError,
        "Check that the database runs, and the connection's host and port.",
    ),
    (
        r"42501|1044|1142|1143|1227|1370|SQLITE_(PERM|AUTH)",
        "permission denied for",
        M2PWarehouseAccessError,
        "Have the privilege granted to this user, or let the table's owner do it once.",
    ),
    (
        r"28...|1045|1698",
        "password authentication failed|no password supplied|role .* does not exist",
        M2PWarehouseAccessError,
        "Check the connection's login and password.",
    ),
    (r"3D000|3F000|1049", "database .* does not exist", M2PWarehouseAccessError, "Check the connection's database."),
    (
        r"SQLITE_(READONLY|NOTADB|CANTOPEN)\w*",
        "readonly database",
        M2PWarehouseAccessError,
        "Check the path, and who may write to the file and its directory.",
    ),
]
#: Errors that people's own triggers raise, in words that may hold a value; in PostgreSQL under any other code, too.
_RAISED: Final = ("P0001", "1644", "SQLITE_CONSTRAINT_TRIGGER")
#: What PostgreSQL calls what it has no other code for.
_INTERNAL: Final = "XX000"


@contextmanager
def as_ours(engine: sa.Engine, table: str) -> Iterator[None]:
    """
    Turn errors of the database and its driver into ours.

    :param engine: the database.
    :param table: the table that is loaded, for the message.
    """
    try:
        yield
    except M2PError:
        raise
    except ModuleNotFoundError as error:
        raise M2PConfigError(f"The driver of the warehouse is not installed: {error}.") from error
    except Exception as error:
        if isinstance(error, sa.exc.SQLAlchemyError):
            is_lost = getattr(error, "connection_invalidated", False)
        elif isinstance(error, engine.dialect.loaded_dbapi.Error):  # COPY, for one, goes to the driver directly
            is_lost = engine.dialect.is_disconnect(error, None, None)
        else:
            raise
        raise _ours(error, table, is_lost=is_lost) from None


def lock_timed_out(error: sa.exc.DBAPIError) -> bool:
    """Tell whether PostgreSQL gave up to wait for a lock."""
    return _code(error.orig) == "55P03"


def _ours(error: Exception, table: str, *, is_lost: bool) -> M2PLoadError:
    original = getattr(error, "orig", None) or error
    code = _code(original)
    said = "raised by a trigger" if code in _RAISED or _is_raised(original) else _text(original)
    what = f"{type(original).__name__}{f' ({code})' if code else ''}: {said}"
    if is_lost:
        return M2PLoadError(
            f"The connection was lost during the load into {table}: {what}. If it broke while the load was committed, "
            "the load may be applied. Run the task again: that does no harm."
        )
    refusal = f"The warehouse refused the load into {table}: {what}. Nothing was written."
    for codes, texts, error_class, advice in _KINDS:
        if re.fullmatch(codes, code) or (texts and code in ("", _INTERNAL) and re.search(texts, said)):
            return error_class(f"{refusal} {advice}")
    return M2PLoadError(refusal)


def _is_raised(error: BaseException) -> bool:
    """Tell whether a function of PostgreSQL's own language raised an error."""
    return getattr(getattr(error, "diag", None), "source_function", None) == "exec_stmt_raise"


def _code(error: BaseException | None) -> str:
    """Return what the driver knows an error by, if anything."""
    for name in ("errno", "sqlstate", "pgcode", "sqlite_errorname"):
        if code := getattr(error, name, None):
            return str(code)
    number = error.args[0] if error is not None and error.args else None
    return str(number) if isinstance(number, int) else ""


def _text(error: BaseException) -> str:
    """Say what the database said, without what it quoted: that may be a customer's value."""
    # MySQL's errors are a number and a text, perhaps with an SQLSTATE behind.
    text = next((part for part in error.args if isinstance(part, str)), None) or str(error)
    # The quoted goes first: a value may have lines and quotes of its own.
    return _QUOTED.sub(lambda quoted: quoted[1] or "'...'", text.strip()).split("\n", 1)[0][:300].rstrip(".")

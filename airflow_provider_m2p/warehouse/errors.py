"""What a database's error means: a message without the values that the database quotes, and what to do about it."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import sqlalchemy as sa

from airflow_provider_m2p.exceptions import M2PConfigError, M2PError, M2PLoadError, M2PWarehouseAccessError

_BY_TRIGGER: Final = "raised by a trigger"
_QUOTED: Final = re.compile(
    r"((?:column|[Tt]able|Check constraint) '[^']*')|'.*'|(?:(?<=: )|(?<=value ))\".*\"", re.DOTALL
)


class _Known(NamedTuple):
    """
    What we know of some errors.

    :param codes: their SQLSTATEs, MySQL's numbers or SQLite's names.
    :param advice: what to do about them.
    :param said: what databases say, for drivers that give none of those.
    :param only: what they must say, because a code alone may mean many things.
    :param error: what they become.
    """

    codes: str
    advice: str
    said: str = ""
    only: str = ""
    error: type[M2PLoadError] = M2PLoadError

    def fits(self, code: str, said: str) -> bool:
        """Tell whether an error is one of them."""
        if re.fullmatch(self.codes, code):
            return re.search(self.only, said) is not None
        return bool(self.said) and code in ("", _INTERNAL) and re.search(self.said, said) is not None


_KNOWN: Final = [
    _Known(
        r"55P03|1205|SQLITE_(BUSY|LOCKED)\w*",
        "Another session holds the table for long: find it in the database's list of sessions, and run the task again.",
        said="lock timeout|is locked",
    ),
    _Known(
        r"40001|40P01|1020|1213",
        "Another session was in the way, and the database gave way to it. Run the task again.",
        said="deadlock|could not serialize",
    ),
    _Known(
        r"57014|1969|3024",
        "The database limits how long a statement may run: raise its limit for this user.",
        said="statement timeout",
    ),
    _Known(
        r"53100|1021|1114|SQLITE_FULL",
        "The database has no disk space left: free some, and run the task again.",
        said="No space left|File too large",
    ),
    _Known(
        r"1406|22001",
        "Tenant and load ids may have 255 characters in databases other than PostgreSQL and SQLite. If it is something "
        "else, change back what somebody made shorter.",
    ),
    _Known(
        r"1071",
        "A key may have two fields of texts there, one in a history with child tables: choose other key_columns.",
    ),
    _Known(
        r"1118",
        "A row may have 8 kB there, 40 bytes of each text among them: flatten less (max_depth), or exclude fields.",
    ),
    _Known(
        r"1054|1072|1553|18(29|3[234])|3108|3837|3959",
        "Somebody else's index, check, foreign key or generated column has a column that must change: drop it, and "
        "make it anew after the load.",
    ),
    _Known(
        r"54000",
        "A row may have 8 kB there: flatten less (max_depth), or exclude fields. Of these a key, or an entry of an "
        "index, may have 2.6 kB: choose other key_columns.",
    ),
    _Known(
        r"22003|1264",
        "A number has more digits than its column can hold: change back what somebody else made smaller, or exclude "
        "the field (exclude_columns).",
    ),
    _Known(
        r"23...|P000[14]|1062|1451|1452|164[34]|4025|SQLITE_CONSTRAINT\w*",
        "Somebody else's constraint, index or trigger does not take these rows: change or drop it.",
    ),
    _Known(
        r"42P01",
        "Somebody dropped it meanwhile. Or a pooler changes sessions between transactions, as PgBouncer does in its "
        "transaction mode: let loads connect directly, or in session mode.",
        only="_m2p_stage",
    ),
    _Known(r"42P01", "Somebody dropped it meanwhile, or somebody else's trigger looks for it in vain."),
    _Known(
        r"55000",
        "A replicated table without a key takes no changes of its rows: have its owner set REPLICA IDENTITY FULL.",
        only="replica identity",
    ),
    _Known(
        r"42P10",
        "The table is replicated in parts: have the publication's columns and conditions fit its REPLICA IDENTITY.",
        only="^cannot (update|delete)",
    ),
    _Known(
        r"1173|3750",
        "Loads need tables without a primary key: let this user make some (innodb_force_primary_key off; in MySQL "
        "sql_require_primary_key off, or sql_generate_invisible_primary_key on).",
    ),
    _Known(
        r"53300|1040|1203|1226",
        "Let fewer tasks run at once (an Airflow pool), or let the database take more connections.",
        said="[Tt]oo many (clients|connections)|remaining connection slots",
    ),
    _Known(
        r"25006|1290|1792|1836",
        "The database, or this user, may only read: check that the connection does not lead to a replica.",
        said="read-only transaction",
    ),
    _Known(
        r"57P03|2003",
        "Check that the database runs, and the connection's host and port.",
        said="Connection refused|could not translate|[Ff]ailed to resolve|starting up|shutting down",
    ),
    _Known(
        r"42501|1044|1142|1143|1227|1370|SQLITE_(PERM|AUTH)",
        "Have the privilege granted to this user, or let the table's owner do it once.",
        said="permission denied for",
        error=M2PWarehouseAccessError,
    ),
    _Known(
        r"28...|1045|1698",
        "Check the connection's login and password.",
        said="password authentication failed|no password supplied|role .* does not exist",
        error=M2PWarehouseAccessError,
    ),
    _Known(
        r"3D000|3F000|1049",
        "Check the connection's database.",
        said="database .* does not exist",
        error=M2PWarehouseAccessError,
    ),
    _Known(
        r"SQLITE_(READONLY|NOTADB|CANTOPEN)\w*",
        "Check the path, and who may write to the file and its directory.",
        said="readonly database",
        error=M2PWarehouseAccessError,
    ),
    _Known(r".*", "Somebody else's trigger does not take these rows: change or drop it.", only=f"^{_BY_TRIGGER}$"),
]
#: Errors that people's own triggers raise, in words that may hold a value. But they may give them any other code, too.
_RAISED: Final = ("P0001", "1643", "1644", "SQLITE_CONSTRAINT_TRIGGER")
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
    said = _BY_TRIGGER if code in _RAISED or _is_raised(original) else _text(original)
    what = f"{type(original).__name__}{f' ({code})' if code else ''}: {said}"
    if is_lost:
        return M2PLoadError(
            f"The connection was lost during the load into {table}: {what}. If it broke while the load was committed, "
            "the load may be applied. Run the task again: that does no harm."
        )
    refusal = f"The warehouse refused the load into {table}: {what}. Nothing was written."
    for known in _KNOWN:
        if known.fits(code, said):
            return known.error(f"{refusal} {known.advice}")
    return M2PLoadError(refusal)


def note_trigger(error: sa.exc.DBAPIError) -> None:
    """Note that a trigger raised an error, which its driver does not tell."""
    if error.orig is not None:
        error.orig.add_note(_BY_TRIGGER)


def _is_raised(error: BaseException) -> bool:
    """Tell whether that is noted, or a function of PostgreSQL's own language raised an error."""
    function = getattr(getattr(error, "diag", None), "source_function", None)
    return function in ("exec_stmt_raise", "exec_stmt_assert") or _BY_TRIGGER in getattr(error, "__notes__", ())


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

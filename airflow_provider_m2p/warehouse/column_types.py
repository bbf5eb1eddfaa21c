"""What the columns of a table can hold, which somebody may have made, or changed since a load made them."""

from __future__ import annotations

from typing import Any, Final

import sqlalchemy as sa
from sqlalchemy.dialects import mysql, postgresql

from airflow_provider_m2p.columns.kinds import Kind
from airflow_provider_m2p.warehouse.dialect import Dialect

_MYSQL: Final = ("mysql", "mariadb")
#: Databases in which a type with a length pads texts, or cuts spaces at their end.
_PAD_OR_CUT: Final = ("postgresql", *_MYSQL)
_DOMAIN_HAS_LIMIT: Final = sa.text("""
    SELECT typtypmod >= 0 FROM pg_catalog.pg_type AS t JOIN pg_catalog.pg_namespace AS n ON n.oid = t.typnamespace
    WHERE typname = :name AND (nspname = :schema OR (CAST(:schema AS text) IS NULL AND pg_type_is_visible(t.oid)))
""")


def wider_by_now(column_type: sa.types.TypeEngine[Any], kind: Kind, dialect: Dialect, *, key: bool) -> Kind:
    """Return the kind of a column as its table has it: that of the books, or a wider one."""
    if kind is Kind.TEXT or kind_of_type(dialect.column_type(kind), dialect) is Kind.TEXT:
        return kind
    now = kind_of_type(column_type, dialect, key=key)
    return now if now is Kind.TEXT or (now is Kind.NUMBER and kind is Kind.INT) else kind


def base_type(column_type: sa.types.TypeEngine[Any], connection: sa.Connection) -> sa.types.TypeEngine[Any]:
    """Return the type that a PostgreSQL domain is made of, or the type itself."""
    if not isinstance(column_type, postgresql.DOMAIN):
        return column_type
    # Of a domain SQLAlchemy does not tell the length or precision.
    asked = {"name": column_type.name, "schema": column_type.schema}
    has_limit = connection.scalar(_DOMAIN_HAS_LIMIT, asked)
    return column_type if has_limit else base_type(column_type.data_type, connection)


def keeps(column_type: sa.types.TypeEngine[Any], kind: Kind, dialect: Dialect, *, key: bool) -> bool:
    """Tell whether a column, of whatever type it is by now, keeps values of its kind as they are, or refuses them."""
    database = dialect.connection.dialect.name
    if isinstance(column_type, sa.types.NullType):  # SQLite has columns without a type, which change nothing
        return database == "sqlite"
    if getattr(column_type, "zerofill", False):  # MySQL's numbers, which have zeros in front once they are texts
        return False
    own = dialect.column_type(kind)
    if isinstance(own, sa.String):
        if key and _is_text_of_key(column_type, dialect):
            return True
        if database in _PAD_OR_CUT:
            return _is_text(column_type, dialect)
        return isinstance(column_type, sa.String) and not isinstance(column_type, sa.Enum)
    if kind is Kind.INSTANT:
        return _keeps_instants(column_type, own, dialect)
    if kind is Kind.BOOL and (isinstance(column_type, sa.Boolean) or database == "postgresql"):
        return isinstance(column_type, sa.Boolean)
    if kind in (Kind.INT, Kind.BOOL):
        # With decimals a whole number has zeros behind a point once it is a text.
        decimal = isinstance(column_type, sa.Numeric) and not isinstance(column_type, sa.Float)
        return isinstance(column_type, sa.Integer) or (decimal and not column_type.scale)  # type: ignore[attr-defined]
    if kind is Kind.JSON:
        return isinstance(column_type, sa.JSON)
    # Oracle's DATE, of which SQLAlchemy says that it has a time, is what a date's column is there.
    oracle_date = kind is Kind.DATE and type(column_type).__name__ == "DATE"
    return oracle_date or kind_of_type(column_type, dialect) is kind


def _keeps_instants(
    column_type: sa.types.TypeEngine[Any], own: sa.types.TypeEngine[Any], dialect: Dialect
) -> bool:
    """Tell whether a column keeps instants to the microsecond, or refuses them."""
    database = dialect.connection.dialect
    # PostgreSQL's timestamps have a precision, those of MySQL say fsp, and without one have whole seconds.
    digits = [getattr(column_type, "precision", None), getattr(column_type, "fsp", 6) or 0]
    if any(count is not None and count < 6 for count in digits):
        return False
    if isinstance(column_type, mysql.TIMESTAMP):  # ends in 2038, and may have the present instead of null
        return False
    if database.name == "sqlite":  # keeps them as texts
        return isinstance(column_type, sa.DateTime | sa.String)
    if database.name not in _PAD_OR_CUT:  # may have types of its own, of which SQLAlchemy knows nothing
        return not isinstance(column_type, sa.Date | sa.Time | sa.String | sa.Numeric | sa.Integer)
    zone = "WITH TIME ZONE"
    loses_zone = zone in own.compile(database) and zone not in column_type.compile(database)
    return isinstance(column_type, sa.DateTime) and not loses_zone


def _is_text(column_type: sa.types.TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether a type holds texts of any length, and nothing but texts."""
    if not isinstance(column_type, sa.String) or isinstance(column_type, sa.Enum):
        return False
    if dialect.connection.dialect.name in _MYSQL:
        # Of a stage's longer texts MariaDB copies a part into shorter ones, without a word.
        return isinstance(column_type, mysql.LONGTEXT)
    # As a plain string PostgreSQL's "char" and name are reflected, which cut what is longer.
    cuts = type(column_type) is sa.String and dialect.connection.dialect.name == "postgresql"
    return isinstance(column_type, sa.Text) or (column_type.length is None and not cuts)


def _is_text_of_key(column_type: sa.types.TypeEngine[Any], dialect: Dialect) -> bool:
    """Tell whether a type is that of a key's texts, which are bounded in some databases, as others' never are."""
    return isinstance(column_type, sa.VARCHAR) and column_type.length == dialect.key_length


def kind_of_type(column_type: sa.types.TypeEngine[Any], dialect: Dialect, *, key: bool = False) -> Kind | None:
    """Return the kind that a column made by somebody else can hold exactly, if any."""
    number, json = dialect.column_type(Kind.NUMBER), dialect.column_type(Kind.JSON)
    if getattr(column_type, "zerofill", False):
        return None
    if isinstance(column_type, mysql.TINYINT) and column_type.display_width == 1:
        return Kind.BOOL
    if isinstance(column_type, sa.Boolean):
        return Kind.BOOL
    if isinstance(column_type, sa.BigInteger):
        return Kind.INT
    if isinstance(column_type, sa.Numeric) and not isinstance(column_type, sa.Float):
        if not isinstance(number, sa.Numeric):
            return None
        same = (column_type.precision, column_type.scale) == (number.precision, number.scale)
        return Kind.NUMBER if same else None
    if isinstance(column_type, sa.Date):
        return Kind.DATE
    if isinstance(column_type, sa.DateTime):
        own = dialect.column_type(Kind.INSTANT)
        return Kind.INSTANT if _keeps_instants(column_type, own, dialect) else None
    if isinstance(column_type, sa.JSON):
        return Kind.JSON if isinstance(json, sa.JSON) else None
    return Kind.TEXT if _is_text(column_type, dialect) or (key and _is_text_of_key(column_type, dialect)) else None

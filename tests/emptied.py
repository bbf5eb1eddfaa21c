"""A PostgreSQL database that tests use one after the other, which takes a third of the time that one of their own takes."""

from __future__ import annotations

from typing import Any

import psycopg

# pg_terminate_backend() waits until they are gone.
DISCONNECT = """
    SELECT pg_terminate_backend(pid, 60000) FROM pg_stat_activity
    WHERE datname = current_database() AND pid <> pg_backend_pid()
"""
SCHEMAS = r"SELECT quote_ident(nspname) FROM pg_namespace WHERE nspname !~ '^pg_' AND nspname <> 'information_schema'"
#: As a new database has it.
PUBLIC = """
    CREATE SCHEMA public AUTHORIZATION pg_database_owner;
    GRANT USAGE ON SCHEMA public TO PUBLIC
"""
#: What is in no schema, and was not there in the beginning.
LEFT = " UNION ALL ".join(
    [
        "SELECT 'pg_database' FROM pg_database WHERE datname = current_database() AND datacl IS NOT NULL",
        "SELECT 'pg_db_role_setting' FROM pg_db_role_setting",
        *(
            f"SELECT '{catalog}' FROM {catalog} WHERE oid >= 16384"
            for catalog in (
                "pg_cast",
                "pg_default_acl",
                "pg_event_trigger",
                "pg_extension",
                "pg_foreign_data_wrapper",
                "pg_language",
                "pg_largeobject_metadata",
                "pg_publication",
                "pg_roles",
            )
        ),
    ]
)


def emptied(connection: psycopg.Connection[Any]) -> bool:
    """Disconnect everybody else, drop all that is there, and tell whether the database is as good as new."""
    connection.execute("SET client_min_messages = error")
    connection.execute(DISCONNECT)
    schemas = ", ".join(name for (name,) in connection.execute(SCHEMAS))
    if schemas:
        connection.execute(f"DROP SCHEMA {schemas} CASCADE")
    is_new = not connection.execute(LEFT).fetchall()
    connection.execute(PUBLIC)
    return is_new

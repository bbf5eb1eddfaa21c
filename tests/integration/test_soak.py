"""The short form of ``make soak``: two dozen loads, some of them killed."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest
import sqlalchemy as sa

from tools.soak import Soak


@pytest.mark.timeout(400)
def test_tables_are_what_was_served_and_nothing_grows(postgres_url: sa.URL, tmp_path: Path) -> None:
    soak = Soak(loads=24, seed=1, postgres=postgres_url.render_as_string(False), home=tmp_path)
    assert soak.run() == []
    assert sum(soak.ends.values()) == 24
    assert soak.ends["applied"]
    assert any(end.startswith("killed") for end in soak.ends)

    with closing(sqlite3.connect(tmp_path / "warehouse" / "soak.db")) as connection:
        connection.execute("UPDATE products_history SET product_name = 'another' WHERE _m2p_valid_to IS NULL")
        connection.execute("DELETE FROM products_parts__fees WHERE _m2p_deleted_at IS NULL")
        connection.commit()
    differences = "\n".join(soak.differences())
    assert "product_name (text) is 'another', not " in differences
    assert "fees: product " in differences

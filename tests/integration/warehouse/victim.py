"""
A process that loads and is killed.

It imports once; for each line ``start WAY URL MODE TURN LOADS`` on its standard input it forks a child that loads so many turns,
and prints the child's pid. For each line ``wait`` it waits for that child and prints how it ended: ``-9`` if it was killed.
"""

from __future__ import annotations

import os
import sys
import traceback

import sqlalchemy as sa

from tests.integration.warehouse.catalogues import load
from tests.integration.warehouse.streams import Warehouse

DRIVERS = ("sqlite", "postgresql+psycopg", "postgresql+psycopg2", "mysql+pymysql")


def loads(way: str, url: str, mode: str, turn: str, count: str) -> None:
    warehouse = Warehouse(way, sa.make_url(url))
    for number in range(int(count)):
        load(warehouse, mode, int(turn) + number)


def main() -> None:
    for driver in DRIVERS:
        sa.create_engine(f"{driver}://")  # imports it
    child = 0
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "start":
            child = os.fork()
            if not child:
                try:
                    loads(*arguments)
                except BaseException:
                    traceback.print_exc()
                    os._exit(1)
                os._exit(0)
            print(child, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main()

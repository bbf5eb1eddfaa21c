"""
A process that loads without end and is killed.

It imports once; for each line ``start TURN`` on its standard input it forks a child that loads turn after turn, and prints the
child's pid. For each line ``wait`` it waits for that child and prints how it ended: ``-9`` if it was killed.
"""

from __future__ import annotations

import os
import sys
import traceback

import sqlalchemy as sa

from tests.integration.warehouse.catalogues import load
from tests.integration.warehouse.streams import Warehouse


def loads(way: str, url: str, mode: str, turn: int) -> None:
    warehouse = Warehouse(way, sa.make_url(url))
    while True:
        load(warehouse, mode, turn)
        turn += 1


def main(way: str, url: str) -> None:
    child = 0
    for line in sys.stdin:
        command, *arguments = line.split()
        if command == "start":
            child = os.fork()
            if not child:
                try:
                    loads(way, url, arguments[0], int(arguments[1]))
                except BaseException:
                    traceback.print_exc()
                os._exit(1)
            print(child, flush=True)
        else:
            print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])

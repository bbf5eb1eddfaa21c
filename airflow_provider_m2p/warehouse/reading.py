"""How a list was read, whether that is all of it, and why it may have to be read again."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import datetime

from airflow_provider_m2p.exceptions import M2PLoadError, M2PPaginationError
from airflow_provider_m2p.warehouse.spec import LoadResult

log = logging.getLogger(__name__)


class ReadAgain(M2PLoadError):
    """What is staged is not what is wanted now. It will be, once the list was read again."""


class Doubtful(Exception):
    """Rows came twice and others are missing: the list moved while it was read, or has rows twice. Read it again."""


@dataclass(frozen=True, slots=True)
class Read:
    """
    How the list was read.

    :param version: which loads the table had seen when the reading began; ``None`` if that was too long ago to tell.
    :param pages: pages read.
    :param complete: whether the list was read to its end, as it stood.
    :param total_rows: how many rows the platform says there are, if it does.
    :param started_at: when the reading began.
    :param digest: alike for readings whose pages came alike.
    :param before: the digest of the reading before, if that was doubtful.
    """

    version: int | None
    pages: int
    complete: bool
    total_rows: int | None
    started_at: datetime
    digest: str = ""
    before: str | None = None

    def is_whole(self, result: LoadResult) -> bool:
        """Tell whether the rows read are the whole list, beyond doubt."""
        distinct = result.rows_read - result.duplicates
        if not self.complete:
            why = "The list was not read to its end as it stood"
        elif self._missed(result):
            why = f"{result.duplicates} rows came twice, so as many may have been missed"
        elif self.total_rows is None and self.pages > 1 and result.duplicates:
            why = f"{result.duplicates} rows came twice, so others may have been missed: the platform tells no total"
        elif self.total_rows is not None and distinct > self.total_rows:
            why = f"The list has {distinct} different rows, but the platform reports {self.total_rows}"
        else:
            return True
        log.warning("%s. Rows that the list lacks are left as they are.", why)
        return False

    def refuse_moved(self, result: LoadResult) -> None:
        """
        Refuse rows of which some came twice while others never did, unless the list is like that every time.

        :raises Doubtful: it may not be.
        :raises M2PPaginationError: it is not, and was read a second time already.
        """
        missed = self._missed(result)
        if not missed or self.before == self.digest:
            return
        what = (
            f"{result.duplicates} of the {result.rows_read} rows came twice on {self.pages} pages, so {missed} of the "
            f"{self.total_rows} that the platform reports are missing"
        )
        if self.before is None:
            raise Doubtful(what)
        raise M2PPaginationError(
            f"{what}, and the reading before was no better: the list moves while it is read. Nothing was written; run "
            "the task again. If it is always so, ask for the whole list at once (extra 'paging' = none)."
        )

    def _missed(self, result: LoadResult) -> int:
        """Return how many rows never came where others came twice: a row that moves between pages does that."""
        if not self.complete or self.total_rows is None or self.pages < 2 or not result.duplicates:
            return 0
        return max(0, self.total_rows - (result.rows_read - result.duplicates))

"""Watch the M2P Prepaid Platform from the triggerer, and start DAGs when its catalogue changes."""

from __future__ import annotations

import asyncio
import hashlib
import logging
from collections.abc import AsyncIterator, Hashable
from contextlib import closing
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from airflow.sdk.exceptions import AirflowException, AirflowRuntimeError
from airflow.triggers.base import BaseEventTrigger, TriggerEvent

from airflow_provider_m2p.exceptions import M2PError
from airflow_provider_m2p.hooks.m2p import M2PHook

if TYPE_CHECKING:
    from airflow_provider_m2p.client import M2PClient
    from airflow_provider_m2p.client.page import PageStream

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Snapshot:
    """
    What one look at a list saw.

    :param tenant_id: whose list it is.
    :param rows: how many rows it has.
    :param content_hash: alike for lists with the same rows, in whatever order.
    """

    tenant_id: str
    rows: int
    content_hash: str


class M2PCatalogueTrigger(BaseEventTrigger):
    """
    Fires when the content of a list changes, whatever its order.

    It is made for an asset's watcher::

        products = Asset(
            "m2p_products", watchers=[AssetWatcher(name="m2p", trigger=M2PCatalogueTrigger("m2p_default"))]
        )
        with DAG("load", schedule=[products]):
            M2PToSqlOperator(...)

    The first look sets the mark; from then on every difference fires once. On Airflow 3.3 all watchers of a
    connection share one poll, and the mark outlives a restart of the triggerer in the asset's state store. On 3.2
    a restart sets a new mark: it fires nothing by itself, and misses what changed in between.

    A poll that fails is logged and tried again at the next turn, with the connection as it is then.

    :param m2p_conn_id: id of a connection of type ``m2p``.
    :param endpoint: path of the list; the connection's products by default.
    :param poll_interval: seconds from one look to the next.
    """

    def __init__(
        self,
        m2p_conn_id: str = M2PHook.default_conn_name,
        endpoint: str | None = None,
        poll_interval: float = 300.0,
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        if poll_interval <= 0:
            raise ValueError(f"poll_interval must be a positive number of seconds, not {poll_interval}")
        self.m2p_conn_id = m2p_conn_id
        self.endpoint = endpoint
        self.poll_interval = poll_interval

    def serialize(self) -> tuple[str, dict[str, Any]]:
        """Return the class path and the arguments."""
        return (
            f"{type(self).__module__}.{type(self).__qualname__}",
            {
                "m2p_conn_id": self.m2p_conn_id,
                "endpoint": self.endpoint,
                "poll_interval": self.poll_interval,
            },
        )

    async def run(self) -> AsyncIterator[TriggerEvent]:
        """Poll for this watcher alone, as Airflow 3.2 does."""
        async for event in self.filter_shared_stream(self.open_shared_stream(self.serialize()[1])):
            yield event

    def shared_stream_key(self) -> Hashable | None:
        """Watchers of the same list, connection and interval share one poll."""
        return ("m2p", self.m2p_conn_id, self.endpoint, self.poll_interval)

    @classmethod
    async def open_shared_stream(cls, kwargs: dict[str, Any]) -> AsyncIterator[Snapshot]:
        """Look at the list again and again, and yield what is there each time it could be read whole."""
        while True:
            try:
                snapshot = await _look(kwargs["m2p_conn_id"], kwargs["endpoint"])
            except (M2PError, AirflowException, AirflowRuntimeError) as error:
                log.warning("Connection %s: no look at the list this time: %s", kwargs["m2p_conn_id"], error)
            else:
                if snapshot:
                    yield snapshot
            await asyncio.sleep(kwargs["poll_interval"])

    async def filter_shared_stream(self, shared_stream: AsyncIterator[Snapshot]) -> AsyncIterator[TriggerEvent]:
        """Fire when the content differs from the last that was seen."""
        store = await self._store()
        mark = await store.aget(self._mark_key) if store else None
        async for snapshot in shared_stream:
            if snapshot.content_hash == mark:
                continue
            if mark is not None:
                yield self._event(snapshot, mark)
            # Only now: an event that could not be handed over is due again.
            mark = snapshot.content_hash
            if store:
                await store.aset(self._mark_key, mark)

    def _event(self, snapshot: Snapshot, previous_hash: str) -> TriggerEvent:
        where = {"m2p_conn_id": self.m2p_conn_id, "endpoint": self.endpoint}
        payload = {**where, **asdict(snapshot), "previous_hash": previous_hash}
        return TriggerEvent(payload)  # type: ignore[no-untyped-call]

    @property
    def _mark_key(self) -> str:
        name = f"{self.m2p_conn_id}\n{self.endpoint}"
        return f"m2p_content_{hashlib.sha256(name.encode()).hexdigest()[:16]}"

    async def _store(self) -> Any:
        """Return where the mark outlives the triggerer: the watched asset's state store, from Airflow 3.3 on."""
        store = getattr(self, "asset_state_store", None)
        try:
            if store:
                await store.aget(self._mark_key)
        except ValueError:
            log.warning(
                "Connection %s: several assets have the same watcher, so a restart of the triggerer sets a new "
                "mark. Give each asset a watcher of its own.",
                self.m2p_conn_id,
            )
            return None
        return store


async def _look(m2p_conn_id: str, endpoint: str | None) -> Snapshot | None:
    # Reading a connection and a list blocks: not in the triggerer's event loop.
    client = await asyncio.to_thread(M2PHook(m2p_conn_id).get_conn)
    try:
        return await asyncio.to_thread(_read, client, endpoint)
    finally:
        client.close()


def _read(client: M2PClient, endpoint: str | None) -> Snapshot | None:
    """Read the list; ``None`` if it moved while it was read."""
    with closing(client.pages(endpoint)) as pages:
        digests = _digests(pages)
        if not pages.complete:
            return None
        if pages.pages > 1 and len(set(digests)) < len(digests):
            # A row that moved from page to page, or a list that always has it twice.
            with closing(pages.again()) as once_more:
                if _digests(once_more) != digests:
                    return None
    return Snapshot(
        tenant_id=client.settings.tenant_id,
        rows=len(digests),
        content_hash=hashlib.sha256(b"".join(digests)).hexdigest(),
    )


def _digests(pages: PageStream) -> list[bytes]:
    """Return the digests of a list's rows, in an order that is not the list's."""
    import msgspec

    return sorted(
        hashlib.sha256(msgspec.json.encode(record, order="sorted")).digest()
        for page in pages
        for record in page.records()
    )

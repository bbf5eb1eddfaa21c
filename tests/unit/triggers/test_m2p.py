from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, Any

import pytest
from airflow.triggers.base import BaseEventTrigger

from airflow_provider_m2p.triggers.m2p import M2PCatalogueTrigger
from tests.connections import connect, m2p_connection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable

    from airflow.triggers.base import TriggerEvent

    from airflow_provider_m2p.sandbox.server import SandboxServer


class Store:
    """An asset's state store, as Airflow 3.3 hands it to event triggers."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}

    async def aget(self, key: str, default: Any = None) -> Any:
        return self.values.get(key, default)

    async def aset(self, key: str, value: Any) -> None:
        self.values[key] = json.loads(json.dumps(value))


@pytest.fixture(autouse=True)
def connection(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url))


def trigger(store: Store | None = None, **arguments: Any) -> M2PCatalogueTrigger:
    watcher = M2PCatalogueTrigger(**{"poll_interval": 0.01, **arguments})
    if store is not None:
        watcher.asset_state_store = store
    return watcher


def looks(sandbox: SandboxServer) -> int:
    return sum("pageNo=0" in record.query for record in sandbox.requests)


def refusals(sandbox: SandboxServer) -> int:
    return sum(record.path == "/auth/token" and record.status == 401 for record in sandbox.requests)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.005)


async def collect(events: AsyncIterator[TriggerEvent], into: list[dict[str, Any]]) -> None:
    async for event in events:
        into.append(event.payload)  # noqa: PERF401 - somebody else looks at it meanwhile


def run(watcher: M2PCatalogueTrigger, sandbox: SandboxServer, *steps: Callable[[], Any]) -> list[dict[str, Any]]:
    """Let the trigger look twice, then after each step twice more, and return what it fired."""

    async def main() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        task = asyncio.create_task(collect(watcher.run(), events))
        for step in (lambda: None, *steps):
            await asyncio.to_thread(step)
            start = looks(sandbox)
            await asyncio.wait_for(until(lambda start=start: task.done() or looks(sandbox) >= start + 3), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return events

    return asyncio.run(main())


def test_serializes_to_what_builds_it_again() -> None:
    watcher = M2PCatalogueTrigger("m2p_x", "/configs/v1/products/", poll_interval=60)
    path, arguments = watcher.serialize()
    assert path == "airflow_provider_m2p.triggers.m2p.M2PCatalogueTrigger"
    assert json.loads(json.dumps(arguments)) == arguments
    assert M2PCatalogueTrigger(**arguments).serialize() == (path, arguments)
    assert isinstance(watcher, BaseEventTrigger)


def test_an_interval_that_would_hammer_the_platform_is_refused() -> None:
    with pytest.raises(ValueError, match="poll_interval"):
        M2PCatalogueTrigger(poll_interval=0)


def test_fires_once_for_every_change_and_for_nothing_else(sandbox: SandboxServer) -> None:
    events = run(
        trigger(),
        sandbox,
        lambda: sandbox.evolve(add=1, change=0, remove=0),
        lambda: None,
        lambda: sandbox.evolve(add=0, change=1, remove=0),
        lambda: sandbox.evolve(add=0, change=0, remove=1),
    )
    assert [event["rows"] for event in events] == [251, 251, 250]
    assert events[0]["tenant_id"] == "ACME_CORP"
    assert len({event["content_hash"] for event in events}) == 3
    assert [event["previous_hash"] for event in events[1:]] == [event["content_hash"] for event in events[:-1]]
    assert json.loads(json.dumps(events)) == events


def test_rows_that_move_from_page_to_page_are_no_change(
    sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    connect(monkeypatch, m2p_default=m2p_connection(sandbox.url, page_size=20))
    events = run(
        trigger(),
        sandbox,
        lambda: sandbox.set_faults("row-moves"),
        lambda: sandbox.set_faults("repeated-row@page1"),  # each look reads such a list twice
        lambda: None,
        lambda: sandbox.set_faults(),
    )
    assert [event["rows"] - len(sandbox.catalogue()) for event in events] == [1, 0]


def test_another_order_is_no_change(sandbox: SandboxServer) -> None:
    def reorder() -> None:
        first = sandbox.catalogue()[0]
        sandbox.remove(first["productId"])
        sandbox.put(first)

    store = Store()
    assert run(trigger(store), sandbox) == []
    reorder()
    assert run(trigger(store), sandbox) == []


def test_a_restart_fires_nothing_by_itself_and_misses_nothing(sandbox: SandboxServer) -> None:
    store = Store()
    assert run(trigger(store), sandbox) == []
    assert run(trigger(store), sandbox) == []
    sandbox.evolve(add=1, change=0, remove=0)
    (event,) = run(trigger(store), sandbox)
    assert event["rows"] == 251
    assert run(trigger(store), sandbox) == []


def test_without_a_store_a_restart_sets_a_new_mark(sandbox: SandboxServer) -> None:
    assert run(trigger(), sandbox) == []
    sandbox.evolve(add=1, change=0, remove=0)
    assert run(trigger(), sandbox) == []


def test_watchers_of_different_lists_keep_different_marks(sandbox: SandboxServer) -> None:
    store = Store()
    run(trigger(store), sandbox)
    run(trigger(store, endpoint="/configs/v1/products/"), sandbox)
    assert len(store.values) == 2


def test_failed_looks_are_survived(sandbox: SandboxServer, monkeypatch: pytest.MonkeyPatch) -> None:
    good, bad = m2p_connection(sandbox.url), m2p_connection(sandbox.url, password="not-the-secret")

    async def main() -> list[dict[str, Any]]:
        events: list[dict[str, Any]] = []
        task = asyncio.create_task(collect(trigger().run(), events))
        await asyncio.wait_for(until(lambda: looks(sandbox) >= 2), 30)
        connect(monkeypatch, m2p_default=bad)
        await asyncio.wait_for(until(lambda: refusals(sandbox) >= 1), 30)
        # The look that was under way has ended: the change is behind the refusals.
        sandbox.evolve(add=1, change=0, remove=0)
        await asyncio.wait_for(until(lambda: refusals(sandbox) >= 4), 30)
        assert events == []
        connect(monkeypatch, m2p_default=good)
        await asyncio.wait_for(until(lambda: bool(events)), 30)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return events

    assert [event["rows"] for event in asyncio.run(main())] == [251]


def test_watchers_of_one_list_share_a_poll() -> None:
    key = M2PCatalogueTrigger("a").shared_stream_key()
    assert key == M2PCatalogueTrigger("a").shared_stream_key()
    assert (
        len({key, *(w.shared_stream_key() for w in (M2PCatalogueTrigger("b"), M2PCatalogueTrigger("a", "/x/")))}) == 3
    )

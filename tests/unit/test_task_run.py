from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

from airflow_provider_m2p.task_run import TaskRun, random_load_id

RUN = TaskRun(dag_id="sync", run_id="scheduled__2026-11-23T00:00:00+00:00", task_id="load", try_number=2)


def test_of_reads_the_task_instance() -> None:
    ti = SimpleNamespace(dag_id="d", run_id="r", task_id="t", map_index=3, try_number=4)
    assert TaskRun.of({"ti": ti}) == TaskRun(dag_id="d", run_id="r", task_id="t", map_index=3, try_number=4)
    assert TaskRun.of({"ti": SimpleNamespace(**{**vars(ti), "map_index": None})}) == TaskRun(
        dag_id="d", run_id="r", task_id="t", map_index=-1, try_number=4
    )


def test_outside_a_task_there_is_none() -> None:
    assert TaskRun.of({}) is None
    assert TaskRun.current() is None


def test_all_tries_share_the_load_id_and_nothing_else_does() -> None:
    assert RUN.load_id == replace(RUN, try_number=9).load_id
    others = [
        replace(RUN, dag_id="sync2"),
        replace(RUN, run_id="manual__2026"),
        replace(RUN, task_id="load2"),
        replace(RUN, map_index=0),
        replace(RUN, map_index=1),
    ]
    assert len({RUN.load_id, *(other.load_id for other in others)}) == 6


def test_the_load_id_never_changes_between_releases() -> None:
    assert RUN.load_id == "6d4eda24-1a8d-5989-8d9a-e07b2a8076c2"


def test_outside_a_task_load_ids_are_random() -> None:
    assert random_load_id() != random_load_id()


def test_request_ids_tell_where_they_come_from() -> None:
    assert RUN.request_id_prefix == "sync/scheduled__2026-11-23T00:00:00+00:00/load/try=2"
    mapped = replace(RUN, run_id="manual", map_index=7)
    assert mapped.request_id_prefix == "sync/manual/load/map=7/try=2"

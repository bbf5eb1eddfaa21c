from __future__ import annotations

import logging
import os
import stat
from pathlib import Path
from typing import Any

import pytest

from airflow_provider_m2p.client import token_cache
from airflow_provider_m2p.exceptions import M2PAuthError

from .conftest import SECRET, TOKEN, FakeTime, MakeClient, Platform, Reply


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "cache" / "airflow-provider-m2p"


@pytest.fixture
def next_task(make_client: MakeClient) -> MakeClient:
    """A client of another process, as far as memory goes."""

    def make(*arguments: Any, **extra: Any) -> Any:
        token_cache.clear()
        return make_client(*arguments, **{"token_cache": "disk", **extra})

    return make


@pytest.fixture(autouse=True)
def numbered_tokens(platform: Platform) -> None:
    platform.token = lambda _: {"access_token": f"{TOKEN}-{len(platform.tokens)}", "expires_in": 3600}


def token_files(directory: Path) -> list[Path]:
    return sorted(directory.glob("*.token"))


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_tasks_share_a_token(platform: Platform, next_task: MakeClient) -> None:
    assert [next_task().get_token() for _ in range(5)] == [f"{TOKEN}-1"] * 5
    assert len(platform.tokens) == 1


def test_process_cache_writes_nothing(
    platform: Platform, next_task: MakeClient, make_client: MakeClient, directory: Path
) -> None:
    next_task(token_cache="process").get_token()
    make_client(token_cache="process").get_token()
    assert len(platform.tokens) == 1
    next_task(token_cache="process").get_token()
    assert len(platform.tokens) == 2
    assert not directory.exists()


def test_no_cache(platform: Platform, make_client: MakeClient, directory: Path) -> None:
    client = make_client(token_cache="off")
    assert client.get_token() == client.get_token()
    make_client(token_cache="off").get_token()
    assert len(platform.tokens) == 2
    assert not directory.exists()


def test_only_the_owner_may_read_and_only_the_secret_helps(next_task: MakeClient, directory: Path) -> None:
    next_task().get_token()
    assert mode(directory) == 0o700
    (file,) = token_files(directory)
    assert {mode(path) for path in directory.iterdir()} == {0o600}
    content = file.read_bytes()
    assert TOKEN.encode() not in content
    assert SECRET.encode() not in content
    assert b"acme" not in content


def test_a_wide_umask_changes_nothing(next_task: MakeClient, directory: Path) -> None:
    before = os.umask(0)
    try:
        next_task().get_token()
    finally:
        os.umask(before)
    assert mode(directory) == 0o700
    assert {mode(path) for path in directory.iterdir()} == {0o600}


def test_a_directory_open_to_others_is_closed(next_task: MakeClient, directory: Path) -> None:
    directory.mkdir(parents=True, mode=0o755)
    next_task().get_token()
    assert mode(directory) == 0o700


@pytest.mark.parametrize("other", [{"login": "another"}, {"token_path": "/auth/token?x=1"}, {"password": "another"}])
def test_another_credential_has_another_token(platform: Platform, next_task: MakeClient, other: dict[str, str]) -> None:
    next_task().get_token()
    next_task(**other).get_token()
    assert len(platform.tokens) == 2


def test_tenants_of_one_credential_share_its_token(platform: Platform, next_task: MakeClient) -> None:
    next_task().get_token()
    next_task(tenant_id="GLOBEX").get_token()
    assert len(platform.tokens) == 1


def test_a_rotated_secret_takes_effect_at_once(platform: Platform, next_task: MakeClient, directory: Path) -> None:
    next_task().get_token()
    platform.token = lambda _: Reply(status=401)
    with pytest.raises(M2PAuthError):
        next_task(password="wrong").get_token()
    platform.token = lambda _: {"access_token": "rotated", "expires_in": 3600}
    assert next_task(password="rotated secret").get_token() == "rotated"
    assert len(token_files(directory)) == 1


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"x",
        b"\0" * 12,
        b"x" * 200,
        b"x" * 200_000,
        b"{}",
        b'{"value": "x", "lifetime": 9, "wall": 0, "steady": 0}',
    ],
)
def test_a_damaged_file_is_replaced(platform: Platform, next_task: MakeClient, directory: Path, content: bytes) -> None:
    next_task().get_token()
    (file,) = token_files(directory)
    file.write_bytes(content)
    assert next_task().get_token() == f"{TOKEN}-2"
    assert next_task().get_token() == f"{TOKEN}-2"


def test_a_changed_byte_is_noticed(platform: Platform, next_task: MakeClient, directory: Path) -> None:
    next_task().get_token()
    (file,) = token_files(directory)
    content = bytearray(file.read_bytes())
    content[-20] ^= 1
    file.write_bytes(content)
    next_task().get_token()
    assert len(platform.tokens) == 2


def test_a_file_of_another_credential_is_of_no_use(platform: Platform, next_task: MakeClient, directory: Path) -> None:
    next_task().get_token()
    (file,) = token_files(directory)
    next_task(login="another").get_token()
    (other,) = set(token_files(directory)) - {file}
    other.write_bytes(file.read_bytes())
    next_task(login="another").get_token()
    assert len(platform.tokens) == 3


def test_a_link_is_not_followed(platform: Platform, next_task: MakeClient, directory: Path, tmp_path: Path) -> None:
    next_task().get_token()
    (file,) = token_files(directory)
    elsewhere = file.rename(tmp_path / "elsewhere")
    file.symlink_to(elsewhere)
    before = elsewhere.read_bytes()
    assert next_task().get_token() == f"{TOKEN}-2"
    assert elsewhere.read_bytes() == before
    assert not file.is_symlink()


def test_a_file_others_may_read_is_not_trusted(platform: Platform, next_task: MakeClient, directory: Path) -> None:
    next_task().get_token()
    (file,) = token_files(directory)
    file.chmod(0o644)
    next_task().get_token()
    assert len(platform.tokens) == 2
    assert mode(file) == 0o600


def test_a_file_of_somebody_else_is_not_trusted(
    platform: Platform, next_task: MakeClient, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    next_task().get_token()
    monkeypatch.setattr(os, "geteuid", lambda: 4242)
    next_task().get_token()
    assert len(platform.tokens) == 2


@pytest.mark.parametrize("kind", ["directory", "pipe"])
def test_what_is_no_file_at_all(platform: Platform, next_task: MakeClient, directory: Path, kind: str) -> None:
    next_task().get_token()
    (file,) = token_files(directory)
    file.unlink()
    if kind == "directory":
        file.mkdir()
    else:
        os.mkfifo(file, 0o600)
    next_task().get_token()
    assert len(platform.tokens) == 2


def test_a_directory_that_is_a_link_is_not_used(
    platform: Platform, next_task: MakeClient, directory: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    target = tmp_path / "target"
    target.mkdir()
    directory.parent.mkdir()
    directory.symlink_to(target)
    next_task().get_token()
    assert list(target.iterdir()) == []
    assert "not a directory of user" in caplog.text


def test_without_a_directory_the_process_keeps_the_token(
    platform: Platform, next_task: MakeClient, make_client: MakeClient, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "cache").write_text("in the way")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            make_client(token_cache="disk").get_token()
        next_task().get_token()
    assert len(platform.tokens) == 2
    (record,) = caplog.records
    assert "tokens are not shared between tasks" in record.getMessage()


def test_a_full_disk(
    platform: Platform,
    next_task: MakeClient,
    make_client: MakeClient,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: Any,
) -> None:
    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with caplog.at_level(logging.WARNING):
        client = next_task()
        client.get_token()
        client.get_token()
        make_client(token_cache="disk").get_token()
    assert len(platform.tokens) == 1
    (record,) = caplog.records
    assert "cannot be written: No space left on device" in record.getMessage()


def test_the_temporary_directory_is_the_last_resort(
    next_task: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home, temporary = tmp_path / "home", tmp_path / "temporary"
    home.write_text("in the way")
    temporary.mkdir()
    monkeypatch.delenv("M2P_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    next_task().get_token()
    (directory,) = temporary.iterdir()
    assert directory.name == f"airflow-provider-m2p-{os.geteuid()}"
    assert mode(directory) == 0o700


@pytest.mark.parametrize("variable", ["XDG_CACHE_HOME", "HOME"])
def test_the_users_cache_directory(
    next_task: MakeClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str
) -> None:
    monkeypatch.delenv("M2P_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv(variable, str(tmp_path / "user"))
    next_task().get_token()
    cache = tmp_path / "user" / (".cache" if variable == "HOME" else "")
    assert len(token_files(cache / "airflow-provider-m2p")) == 1


def test_a_token_near_its_end_is_replaced_for_all(
    platform: Platform, next_task: MakeClient, fake_time: FakeTime
) -> None:
    next_task().get_token()
    fake_time.now += 3301
    assert next_task().get_token() == next_task().get_token() == f"{TOKEN}-2"
    assert len(platform.tokens) == 2


@pytest.mark.parametrize("step", [-7200, 7200, -10, 86_400 * 365])
def test_a_clock_that_is_set_costs_one_token(
    platform: Platform, next_task: MakeClient, fake_time: FakeTime, step: float
) -> None:
    next_task().get_token()
    fake_time.wall_offset += step
    assert next_task().get_token() == next_task().get_token() == f"{TOKEN}-2"
    assert len(platform.tokens) == 2


def test_a_restarted_machine_costs_one_token(platform: Platform, next_task: MakeClient, fake_time: FakeTime) -> None:
    next_task().get_token()
    fake_time.wall_offset = fake_time.now
    fake_time.now = 5.0
    assert next_task().get_token() == next_task().get_token() == f"{TOKEN}-2"
    assert len(platform.tokens) == 2


def test_a_refused_token_is_forgotten_on_disk(platform: Platform, next_task: MakeClient) -> None:
    next_task().get_token()
    platform.answer = lambda asked: Reply(status=401) if asked.header("Authorization") == f"Bearer {TOKEN}-1" else []
    next_task().request("GET", "/v1/products/")
    next_task().request("GET", "/v1/products/")
    assert len(platform.tokens) == 2


def test_a_refused_token_is_not_forgotten_for_its_successor(platform: Platform, next_task: MakeClient) -> None:
    slow = next_task()
    slow.get_token()
    platform.answer = lambda asked: Reply(status=401) if asked.header("Authorization") == f"Bearer {TOKEN}-1" else []
    next_task().request("GET", "/v1/products/")
    slow.request("GET", "/v1/products/")
    assert len(platform.tokens) == 2


def test_files_of_old_credentials_go(next_task: MakeClient, directory: Path) -> None:
    next_task(login="left").get_token()
    (old,) = token_files(directory)
    os.utime(old, (0, 0))
    next_task().get_token()
    assert old not in token_files(directory)
    assert len(token_files(directory)) == 1


def test_nothing_grows(next_task: MakeClient, directory: Path, fake_time: FakeTime) -> None:
    for _ in range(5):
        next_task().get_token()
        fake_time.now += 4000
    assert len(list(directory.iterdir())) == 2
    assert len(token_cache._slots) == 1


def test_the_process_forgets_credentials_that_are_not_used(make_client: MakeClient, fake_time: FakeTime) -> None:
    for number in range(20):
        make_client(login=f"client-{number}").get_token()
        fake_time.now += 4000
    assert len(token_cache._slots) <= 2

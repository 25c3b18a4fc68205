from __future__ import annotations

import json
import os
import socket
import stat
import threading
from functools import partial
from pathlib import Path
from urllib.parse import unquote

import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from s3fsx.errors import ConfigError, S3fsxError
from s3fsx.service import status
from s3fsx.service.status import read_status, serve_status, socket_path


async def ask(path: str) -> dict[str, object]:
    return await trio.to_thread.run_sync(read_status, path, 5.0)


@pytest.fixture
def path(tmp_path: Path) -> str:
    return socket_path(str(tmp_path / "run"), "/mnt/a b")


async def test_each_connection_gets_the_state_of_now(path: str) -> None:
    asked = 0

    def snapshot() -> dict[str, object]:
        nonlocal asked
        asked += 1
        return {"asked": asked, "path": Path("/x")}

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, snapshot)
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o600
        assert stat.S_IMODE(os.stat(os.path.dirname(path)).st_mode) == 0o700
        assert await ask(path) == {"asked": 1, "path": "/x"}
        assert await ask(path) == {"asked": 2, "path": "/x"}
        nursery.cancel_scope.cancel()
    assert os.listdir(os.path.dirname(path)) == []


async def test_a_stale_socket_is_replaced_and_a_living_one_is_not(path: str) -> None:
    os.mkdir(os.path.dirname(path), 0o700)
    dead = socket.socket(socket.AF_UNIX)
    dead.bind(path)
    dead.close()
    with pytest.raises(S3fsxError, match="no daemon answers"):
        await ask(path)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, dict)
        with pytest.raises(S3fsxError, match="another s3fsx answers there"):
            await serve_status(path, dict)
        assert await ask(path) == {}
        nursery.cancel_scope.cancel()


async def test_the_end_removes_only_its_own_socket(path: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, dict)
        os.unlink(path)
        os.symlink("somebody else's", path)
        nursery.cancel_scope.cancel()
    assert os.readlink(path) == "somebody else's"


async def test_clients_that_never_read_hold_up_nobody(path: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "CLIENT_DEADLINE", 0.2)
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, lambda: {"x": "y" * 900_000})  # more than a socket buffers
        silent = [socket.socket(socket.AF_UNIX) for _ in range(status.MAX_CLIENTS)]
        for client in silent:
            client.connect(path)
        assert len(str((await ask(path))["x"])) == 900_000
        for client in silent:
            client.close()
        nursery.cancel_scope.cancel()


@pytest.mark.expect_log("ERROR s3fsx.status: the state cannot be told")
async def test_a_state_that_cannot_be_told_ends_nothing(path: str) -> None:
    def snapshot() -> dict[str, object]:
        raise RuntimeError("changed while it was read")

    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, snapshot)
        for _ in range(2):
            assert await ask(path) == {"error": "RuntimeError: changed while it was read"}
        nursery.cancel_scope.cancel()


@pytest.mark.expect_log("WARNING s3fsx.status: status socket: Too many open files")
async def test_a_failing_accept_ends_nothing(autojump_clock: trio.testing.MockClock) -> None:
    class Server:
        failures = 3

        async def accept(self) -> tuple[str, str]:
            await trio.lowlevel.checkpoint()
            if self.failures:
                self.failures -= 1
                raise OSError(24, "Too many open files")
            return "client", ""

    assert await status._accepted(Server()) == "client"  # type: ignore[arg-type, comparison-overlap]
    assert trio.current_time() >= 3 * status.ACCEPT_PAUSE


async def test_a_document_has_a_limit(path: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, lambda: {"x": "y" * status.MAX_DOCUMENT})
        assert "too long" in str((await ask(path))["error"])
        nursery.cancel_scope.cancel()


async def test_a_directory_that_others_can_write_is_refused_and_left_as_it_is(path: str) -> None:
    directory = os.path.dirname(path)
    os.mkdir(directory)
    os.chmod(directory, 0o777)
    with pytest.raises(S3fsxError, match="others can write"):
        await serve_status(path, dict)
    assert stat.S_IMODE(os.stat(directory).st_mode) == 0o777


def served_once(path: str, reply: bytes | None) -> threading.Thread:
    """A server that sends ``reply`` to its first client, or (None) only looks at it."""
    server = socket.socket(socket.AF_UNIX)
    os.makedirs(os.path.dirname(path), exist_ok=True)
    server.bind(path)
    server.listen()

    def serve() -> None:
        with server, server.accept()[0] as client:
            if reply is None:
                client.recv(1)  # until the client gives up
            else:
                client.sendall(reply)

    thread = threading.Thread(target=serve)
    thread.start()
    return thread


@pytest.mark.parametrize(
    ("reply", "words"),
    [
        (None, "no answer within 0.2 s"),
        (b"", "no JSON"),
        (b"{", "no JSON"),
        (b"\xff", "no JSON"),
        (b"[1]", "no status"),
    ],
)
def test_answers_of_a_daemon_in_trouble(path: str, reply: bytes | None, words: str) -> None:
    thread = served_once(path, reply)
    with pytest.raises(S3fsxError, match=words):
        read_status(path, 0.2)
    thread.join()


def test_an_answer_is_read_to_its_end(path: str) -> None:
    thread = served_once(path, json.dumps({"x": "y" * 300_000}).encode())
    assert len(str(read_status(path)["x"])) == 300_000
    thread.join()


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1, max_size=20))
def test_a_socket_tells_its_mountpoint(name: str) -> None:
    path = socket_path("/run/s3fsx", "/" + name)
    assert os.path.dirname(path) == "/run/s3fsx"
    assert len(os.fsencode(path)) <= status.MAX_PATH
    base = os.path.basename(path)
    if not base.startswith(status.HASHED):
        assert unquote(base.removesuffix(status.SUFFIX)) == "/" + name


def test_long_mountpoints_have_sockets_of_their_own(tmp_path: Path) -> None:
    one, two = (socket_path("/run/s3fsx", f"/mnt/{'x' * 200}/{i}") for i in (1, 2))
    assert one != two
    with pytest.raises(ConfigError, match="too long"):
        socket_path("/" + "x" * 100, "/mnt")
    run = tmp_path / "run"
    assert status.mounts(str(run)) == {}
    run.mkdir()
    for made in (socket_path(str(run), "/a b"), str(run / os.path.basename(one)), str(run / "other")):
        Path(made).touch()
    assert status.mounts(str(run)) == {"/a b": socket_path(str(run), "/a b")}
    assert status.sockets(str(run)) == sorted([socket_path(str(run), "/a b"), str(run / os.path.basename(one))])


async def test_the_limit_on_clients_is_given_back(path: str) -> None:
    async with trio.open_nursery() as nursery:
        await nursery.start(serve_status, path, dict)
        for _ in range(3 * status.MAX_CLIENTS):
            assert await ask(path) == {}
        async with trio.open_nursery() as many:
            for _ in range(2 * status.MAX_CLIENTS):
                many.start_soon(partial(ask, path))
        nursery.cancel_scope.cancel()

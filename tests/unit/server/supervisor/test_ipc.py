"""Both ends of an IPC channel in one process, over a real socket pair."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from multiprocessing.connection import Connection

import pytest

from latentserve_server.errors import ModelNotFound
from latentserve_server.supervisor.ipc import IpcChannel, IpcClosed, IpcRequest

TIMEOUT_S = 10.0


@pytest.fixture
def connections() -> Iterator[tuple[Connection, Connection]]:
    one, other = (Connection(end.detach()) for end in socket.socketpair())
    yield one, other
    for connection in (one, other):
        connection.close()


@pytest.fixture
def ends(connections: tuple[Connection, Connection]) -> tuple[IpcChannel, IpcChannel]:
    return IpcChannel(connections[0]), IpcChannel(connections[1])


def test_messages_arrive_in_order(ends: tuple[IpcChannel, IpcChannel]) -> None:
    one, other = ends
    for message in ("first", "second"):
        one.send(message)
    assert [other.receive(), other.receive()] == ["first", "second"]


def test_replies_arrive_between_other_messages(ends: tuple[IpcChannel, IpcChannel]) -> None:
    one, other = ends
    first, second = one.request("a"), one.request("b")
    requests = [other.receive(), other.receive()]
    assert all(isinstance(request, IpcRequest) for request in requests)
    for request in reversed(requests):
        assert isinstance(request, IpcRequest)
        other.reply(request, f"reply to {request.body}")
    other.send("message")
    assert one.receive() == "message"
    assert (first.result(TIMEOUT_S), second.result(TIMEOUT_S)) == ("reply to a", "reply to b")


def test_an_error_reply_is_raised_with_its_message_and_metadata(
    ends: tuple[IpcChannel, IpcChannel],
) -> None:
    one, other = ends
    pending = one.request("a")
    request = other.receive()
    assert isinstance(request, IpcRequest)
    other.reply(request, ModelNotFound("no model 'x'", metadata={"models": "a, b"}))
    other.send("message")
    one.receive()
    with pytest.raises(ModelNotFound, match="no model 'x'") as raised:
        pending.result(TIMEOUT_S)
    assert raised.value.metadata == {"models": "a, b"}


def test_closing_the_other_end_fails_receives_and_requests(
    ends: tuple[IpcChannel, IpcChannel], connections: tuple[Connection, Connection]
) -> None:
    one, _ = ends
    pending = one.request("a")
    connections[1].close()
    with pytest.raises(IpcClosed):
        one.receive()
    with pytest.raises(IpcClosed):
        pending.result(TIMEOUT_S)
    with pytest.raises(IpcClosed):
        one.request("b").result(TIMEOUT_S)
    one.send("lost without an error")


def test_many_threads_may_send(ends: tuple[IpcChannel, IpcChannel]) -> None:
    one, other = ends
    threads = [
        threading.Thread(target=lambda n=n: [one.send((n, k, b"x" * 3000)) for k in range(50)])
        for n in range(4)
    ]
    for thread in threads:
        thread.start()
    received = [other.receive() for _ in range(200)]
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert {message[:2] for message in received} == {  # type: ignore[index]
        (n, k) for n in range(4) for k in range(50)
    }


def test_a_queued_channel_does_not_wait_for_a_process_that_does_not_read(
    connections: tuple[Connection, Connection],
) -> None:
    one, other = IpcChannel(connections[0], queued=True), IpcChannel(connections[1])
    for number in range(100):
        one.send((number, bytes(100_000)))  # much more than a socket pair buffers
    assert [other.receive() for _ in range(100)] == [(n, bytes(100_000)) for n in range(100)]
    connections[1].close()
    with pytest.raises(IpcClosed):
        one.receive()


def test_the_sender_of_a_queued_channel_ends_with_the_other_process(
    connections: tuple[Connection, Connection],
) -> None:
    one = IpcChannel(connections[0], queued=True)
    one.send(bytes(10_000_000))
    connections[1].close()
    with pytest.raises(IpcClosed):
        one.receive()
    assert "ipc-sender" not in {thread.name for thread in threading.enumerate()}

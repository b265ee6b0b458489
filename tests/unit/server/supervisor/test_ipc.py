"""Two ends in one process, over a real socket pair."""

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
        one.tell(message)
    assert [other.receive(), other.receive()] == ["first", "second"]


def test_a_question_is_answered_between_other_messages(ends: tuple[IpcChannel, IpcChannel]) -> None:
    one, other = ends
    first, second = one.ask("what?"), one.ask("and what?")
    questions = [other.receive(), other.receive()]
    assert all(isinstance(request, IpcRequest) for request in questions)
    for request in reversed(questions):
        assert isinstance(request, IpcRequest)
        other.answer(request, f"{request.body} that")
    other.tell("news")
    assert one.receive() == "news"
    assert (first.result(TIMEOUT_S), second.result(TIMEOUT_S)) == ("what? that", "and what? that")


def test_an_error_is_an_answer_and_keeps_what_it_says(ends: tuple[IpcChannel, IpcChannel]) -> None:
    one, other = ends
    asked = one.ask("what?")
    request = other.receive()
    assert isinstance(request, IpcRequest)
    other.answer(request, ModelNotFound("no model 'x'", metadata={"models": "a, b"}))
    other.tell("news")
    one.receive()
    with pytest.raises(ModelNotFound, match="no model 'x'") as raised:
        asked.result(TIMEOUT_S)
    assert raised.value.metadata == {"models": "a, b"}


def test_the_end_of_the_other_side_ends_everything(
    ends: tuple[IpcChannel, IpcChannel], connections: tuple[Connection, Connection]
) -> None:
    one, _ = ends
    asked = one.ask("what?")
    connections[1].close()
    with pytest.raises(IpcClosed):
        one.receive()
    with pytest.raises(IpcClosed):
        asked.result(TIMEOUT_S)
    with pytest.raises(IpcClosed):
        one.ask("anyone?").result(TIMEOUT_S)
    one.tell("nobody hears it, and nothing happens")


def test_many_threads_may_tell(ends: tuple[IpcChannel, IpcChannel]) -> None:
    one, other = ends
    threads = [
        threading.Thread(target=lambda n=n: [one.tell((n, k, b"x" * 3000)) for k in range(50)])
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

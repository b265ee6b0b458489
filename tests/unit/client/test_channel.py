import socket
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from unit.client.fake_server import Failure

from latentserve_client import Client, QueueFull, Unavailable, _channel


def test_tries_again_when_unavailable(client, server):
    server.failures += [Failure("UNAVAILABLE")] * 2
    assert client.sample().seed == 4711
    assert len(server.seen) == 3
    assert server.seen[-1].metadata["grpc-previous-rpc-attempts"] == "2"


def test_gives_up_after_some_attempts(client, server):
    server.failures += [Failure("UNAVAILABLE", pushback_ms=1)] * 10
    with pytest.raises(Unavailable):
        client.models()
    assert len(server.seen) == _channel.MAX_ATTEMPTS


def test_waits_as_long_as_the_server_says(client, server):
    server.failures.append(Failure("RESOURCE_EXHAUSTED", reason="QUEUE_FULL", pushback_ms=400))
    start_s = time.monotonic()
    client.sample()
    # The default backoff is 0.12 s at most.
    assert 0.4 <= time.monotonic() - start_s < 2
    assert len(server.seen) == 2


def test_does_not_try_again_when_the_server_says_so(client, server):
    server.failures.append(Failure("RESOURCE_EXHAUSTED", reason="QUEUE_FULL", pushback_ms=-1))
    with pytest.raises(QueueFull):
        client.sample()
    assert len(server.seen) == 1


@pytest.mark.parametrize("code", ["INTERNAL", "DEADLINE_EXCEEDED", "INVALID_ARGUMENT"])
def test_does_not_try_again_what_would_fail_again(client, server, code):
    server.failures.append(Failure(code))
    with pytest.raises(Exception, match=code):
        client.sample()
    assert len(server.seen) == 1


def test_tries_again_what_a_closing_server_cancelled(client, server):
    server.failures += [Failure("CANCELLED")]
    assert client.sample().seed == 4711
    assert len(server.seen) == 2


def test_leaves_a_server_in_trouble_alone(client, server):
    server.failures += [Failure("UNAVAILABLE", pushback_ms=1)] * 1000
    for _ in range(100):
        with pytest.raises(Unavailable):
            client.sample()
    # 400 without the throttling.
    assert len(server.seen) <= 200


def test_tries_all_calls_again_that_fail_together(server):
    """As if the worker of all these calls died."""
    count = 64
    # Long enough that no second attempt takes a failure of a first attempt.
    server.failures += [Failure("UNAVAILABLE", pushback_ms=1000)] * count
    with Client(server.address, timeout_s=20) as client, ThreadPoolExecutor(count) as callers:
        replies = list(callers.map(lambda _: client.sample(), range(count)))
    assert len(replies) == count


def test_spreads_calls_over_the_addresses_of_a_name_only():
    assert "loadBalancingConfig" not in _channel.service_config("127.0.0.1:1")
    config = _channel.service_config("dns:///models:50051")
    assert config["loadBalancingConfig"] == [{"round_robin": {}}]


def test_a_name_can_be_used(connect, server):
    port = server.address.partition(":")[2]
    assert connect(f"dns:///localhost:{port}").sample().seed == 4711


def test_options_are_explicit():
    options = dict(_channel.channel_options("127.0.0.1:1", 123))
    assert options["grpc.max_receive_message_length"] == 123
    assert options["grpc.max_send_message_length"] == 123
    assert options["grpc.keepalive_time_ms"] == 30_000
    # A proxy cannot reach the loopback addresses of this machine.
    assert options["grpc.enable_http_proxy"] == 0
    assert "grpc.enable_http_proxy" not in dict(_channel.channel_options("example.org:1", 123))


@pytest.mark.parametrize(
    "target",
    [
        *("localhost:1", "LOCALHOST:1", "localhost.:1", "a.localhost:1", "localhost"),
        *("127.0.0.1:1", "127.8.9.1:1", "0.0.0.0:1", "[::1]:1", "::1", "[::]:1"),
        *("[::ffff:127.0.0.1]:1", "dns:localhost:1", "dns:///localhost:1", "dns:///LocalHost"),
        *("dns://8.8.8.8/localhost:1", "dns:///127.0.0.1:1", "ipv4:127.0.0.1:1", "IPV4:127.0.0.1"),
        *("ipv4:127.0.0.1:1,127.0.0.2:2", "ipv6:[::1]:1", "ipv6:%5B::1%5D:1", "unix:/a", "unix:a"),
    ],
)
def test_calls_to_this_machine_use_no_proxy(target):
    assert dict(_channel.channel_options(target, 123))["grpc.enable_http_proxy"] == 0


@pytest.mark.parametrize(
    "target",
    [
        *(
            "example.org:1",
            "10.0.0.1:1",
            "localhost.example.org:1",
            "notlocalhost:1",
            "[fe80::1]:1",
        ),
        *(
            "dns:///example.org:1",
            "dns://127.0.0.1/example.org:1",
            "ipv4:10.0.0.1:1",
            "127.evil.org:1",
        ),
        *("ipv4:127.0.0.1:1,10.0.0.1:1", "xds:///localhost", ""),
    ],
)
def test_calls_to_other_machines_use_the_proxy_of_the_environment(target):
    assert "grpc.enable_http_proxy" not in dict(_channel.channel_options(target, 123))


def test_a_real_call_to_this_machine_makes_no_connection_to_the_proxy(connect, server, monkeypatch):
    with socket.create_server(("127.0.0.1", 0)) as proxy:
        url = f"http://127.0.0.1:{proxy.getsockname()[1]}"
        for name in ("no_proxy", "NO_PROXY", "no_grpc_proxy", "grpc_proxy"):
            monkeypatch.delenv(name, raising=False)
        for name in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
            monkeypatch.setenv(name, url)
        port = server.address.rpartition(":")[2]
        for target in (f"ipv4:127.0.0.1:{port}", f"dns:///localhost:{port}"):
            connect(target).sample()
        proxy.setblocking(False)
        with pytest.raises(BlockingIOError):
            proxy.accept()


def test_a_secure_channel_can_be_asked_for(connect, server):
    import grpc

    client = connect(server.address, credentials=grpc.ssl_channel_credentials(), timeout_s=2)
    # The server does not use TLS.
    with pytest.raises(Unavailable):
        client.sample()

"""All CUDA graphs of a GPU run on one thread, one after another."""

from __future__ import annotations

import threading
import weakref

import pytest

from latentserve_server.engine.cuda_thread import CudaThread, device_thread


def test_calls_from_all_threads_run_on_one_separate_thread() -> None:
    thread = CudaThread("gpu-test")
    seen: list[threading.Thread] = []
    callers = [
        threading.Thread(target=lambda: seen.append(thread.call(threading.current_thread)))
        for _ in range(4)
    ]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join(10.0)
    assert len(seen) == 4
    (only,) = set(seen)
    assert only.name == "gpu-test"
    assert only.daemon
    assert only not in callers


def test_an_error_is_raised_in_the_caller_and_the_thread_continues() -> None:
    thread = CudaThread("gpu-test")

    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        thread.call(fail)
    assert thread.call(lambda: 5) == 5


def test_a_finished_call_holds_no_references() -> None:
    """An unloaded model must release its GPU memory before the next call."""

    class Model:
        def run(self) -> int:
            return 1

    thread, model = CudaThread("gpu-test"), Model()
    ended = threading.Event()
    weakref.finalize(model, ended.set)
    assert thread.call(model.run) == 1
    del model
    assert ended.wait(10.0)


def test_the_models_of_a_gpu_share_a_thread() -> None:
    assert device_thread(1001) is device_thread(1001)
    assert device_thread(1001) is not device_thread(1002)

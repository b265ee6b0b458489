import http.server
import threading

import pytest

from latentserve_client.load.measure.server_metrics import (
    MetricsUnavailable,
    changes,
    parse,
    scrape,
    server_measurements,
)

BEFORE = """\
# HELP process_cpu_seconds_total CPU
process_cpu_seconds_total 10.0
process_resident_memory_bytes 1.048576e+08
latentserve_batch_rows_sum{model="a",operation="encode"} 100
latentserve_batch_rows_count{model="a",operation="encode"} 50
latentserve_batch_rows_created{model="a",operation="encode"} 1.7e9
latentserve_rejected_total{model="a",reason="queue_full"} 1
odd{label="with } and, comma"} NaN
rubbish line here
"""
AFTER = (
    BEFORE.replace("10.0", "12.5")
    .replace("encode\"} 100", "encode\"} 900")
    .replace("encode\"} 50", "encode\"} 150")
    .replace("queue_full\"} 1", "queue_full\"} 4")
)  # fmt: skip


def test_reads_the_text_format():
    samples = parse(BEFORE)
    assert samples.total("process_cpu_seconds_total") == 10
    assert samples.total("latentserve_batch_rows_sum", model="a") == 100
    assert samples.total("latentserve_batch_rows_sum", model="b") == 0
    assert samples.has("odd")
    assert not samples.has("latentserve_batch_rows_created")


def test_measurements_of_the_server():
    found = server_measurements(parse(BEFORE), parse(AFTER), calls=1000)
    assert found["mean_batch_rows"] == 8
    assert found["batches"] == 100
    assert found["cpu_s"] == 2.5
    assert found["cpu_us_per_call"] == 2500
    assert found["memory_mib_after"] == 100
    assert found["rejected"] == 3
    assert "dropped" not in found


def test_the_call_counter_of_the_server_takes_precedence():
    before = parse('process_cpu_seconds_total 1\ngrpc_server_handled_total{c="OK"} 100\n')
    after = parse('process_cpu_seconds_total 3\ngrpc_server_handled_total{c="OK"} 600\n')
    assert server_measurements(before, after, calls=400)["cpu_us_per_call"] == 4000


def test_reads_the_metrics_of_triton():
    before = parse("nv_inference_count 0\nnv_inference_exec_count 0\n")
    after = parse(
        "nv_inference_count 64\nnv_inference_exec_count 8\nnv_inference_request_success 64\n"
        "nv_inference_queue_duration_us 128000\n"
    )
    found = server_measurements(before, after, 64)
    assert (found["mean_batch_rows"], found["mean_queue_ms"]) == (8, 2)


def test_lists_only_what_changed():
    changed = changes(parse(BEFORE), parse(AFTER))
    assert changed["process_cpu_seconds_total"] == 2.5
    assert "process_resident_memory_bytes" not in changed


@pytest.fixture
def url():
    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            status = 200 if self.path == "/metrics" else 404
            self.send_response(status)
            self.end_headers()
            self.wfile.write(BEFORE.encode() if status == 200 else b"no")

        def log_message(self, *_):
            pass

    server = http.server.HTTPServer(("127.0.0.1", 0), Page)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_address[1]}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_reads_them_from_an_address(url):
    assert scrape(url + "/metrics").total("process_cpu_seconds_total") == 10
    with pytest.raises(MetricsUnavailable, match="Not Found"):
        scrape(url + "/else")


def test_an_unreadable_address_is_reported():
    with pytest.raises(MetricsUnavailable, match=r"http://127\.0\.0\.1:1/m: .*refused"):
        scrape("http://127.0.0.1:1/m")


def test_reads_no_files(tmp_path):
    path = tmp_path / "metrics"
    path.write_text(BEFORE)
    for url in (path.as_uri(), "127.0.0.1:9464"):
        with pytest.raises(MetricsUnavailable, match="expected an address like"):
            scrape(url)

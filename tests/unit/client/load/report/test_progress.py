import io

from unit.client.load.measure.test_summary import call, rows, summary

from latentserve_client.load.drive.run import RunProgress
from latentserve_client.load.plan.run_spec import LoadSpec
from latentserve_client.load.plan.schedule import parse_profile
from latentserve_client.load.report.progress import ProgressLine, progress_text


def progress(*, warming_up=False, load=None):
    found = summary(start_s=2, end_s=12)
    found.add(rows(*(call(3 + 0.01 * n, 0.02) for n in range(50)), call(3.5, 1, code=14)))
    window = found.whole_windows(4_000_000_000)[1]
    return RunProgress(load or LoadSpec(concurrency=8), 4.2, 12.0, warming_up, found, window)


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_the_line_has_elapsed_time_load_rate_and_errors():
    assert progress_text(progress()) == (
        "4/12 s  closed loop, 8 calls in flight  51 calls  50/s  p99 20.00 ms  1 errors"
    )
    profile = parse_profile("5-10", 10)
    assert progress_text(progress(warming_up=True, load=LoadSpec(profile=profile))) == (
        "4/12 s  open loop, constant arrivals, 5 to 10/s  warming up"
    )


def test_the_line_is_overwritten_and_cleared():
    stream = Terminal()
    line = ProgressLine(stream)
    line.show(progress())
    line.show(progress(warming_up=True))
    longer, shorter = stream.getvalue().split("\r")[1:]
    assert len(shorter) == len(longer)  # the shorter text covers the longer one
    line.clear()
    assert stream.getvalue().endswith("\r")


def test_nothing_is_written_without_a_terminal():
    stream = io.StringIO()
    line = ProgressLine(stream)
    line.show(progress())
    line.clear()
    assert stream.getvalue() == ""

from unit.client.load.measure.test_summary import call, rows

from latentserve_client.load.drive.run import RunResult
from latentserve_client.load.drive.sweep import meets_objective, run_sweep
from latentserve_client.load.measure.confidence_intervals import confidence_interval
from latentserve_client.load.measure.summary import Summary
from latentserve_client.load.plan.run_spec import LoadSpec
from latentserve_client.load.plan.sweep_axis import parse_sweep


def result(p99_ms, *, rate=100.0, errors=0, ended="duration"):
    summary = Summary(1, 0, 1.0, 1.0)
    calls = [call(0.0, p99_ms / 1e3) for _ in range(100)]
    calls += [call(0.0, 0.001, code=14) for _ in range(errors)]
    summary.add(rows(*calls))
    nothing = confidence_interval([])
    return RunResult(LoadSpec(concurrency=1), summary, 100 / rate, ended, nothing, nothing, [])


class Server:
    """A server whose p99 in ms equals the load; records the loads."""

    def __init__(self, **options):
        self.loads, self.options = [], options

    def run(self, load):
        self.loads.append(load)
        return result(load, rate=load, **self.options)


def test_without_an_objective_all_loads_run():
    server = Server()
    sweep = run_sweep(parse_sweep("concurrency=1,2,4"), server.run)
    assert server.loads == [1, 2, 4]
    assert sweep.knee is None
    assert [point.kept for point in sweep.points] == [None] * 3


def test_finds_the_knee_between_the_last_load_within_the_objective_and_the_next():
    server = Server()
    sweep = run_sweep(parse_sweep("concurrency=1..64"), server.run, slo_p99_ms=21.5, refine=5)
    assert server.loads[:6] == [1, 2, 4, 8, 16, 32]  # 64 is not run: 32 violates the objective
    assert sweep.knee.load == 21
    assert [point.load for point in sweep.points] == sorted(server.loads)


def test_the_knee_of_a_rate_is_narrowed_to_a_few_percent():
    server = Server()
    sweep = run_sweep(parse_sweep("rate=10..1000"), server.run, slo_p99_ms=300, refine=10)
    assert 285 <= sweep.knee.load <= 300
    assert len(server.loads) < 15


def test_no_load_meets_the_objective():
    sweep = run_sweep(parse_sweep("concurrency=1,2"), Server().run, slo_p99_ms=0.5, refine=3)
    assert sweep.knee is None
    assert [point.load for point in sweep.points] == [1]


def test_errors_and_a_low_rate_violate_the_objective():
    assert meets_objective(result(10), 20, None)
    assert not meets_objective(result(10, errors=1), 20, None)
    assert meets_objective(result(10, rate=96), 20, 100)
    assert not meets_objective(result(10, rate=90), 20, 100)


def test_ctrl_c_ends_the_sweep():
    server = Server(ended="interrupted")
    sweep = run_sweep(parse_sweep("concurrency=1,2,4"), server.run, slo_p99_ms=100, refine=3)
    assert server.loads == [1]
    assert len(sweep.points) == 1

from unit.client.load.measure.test_summary import call, rows

from latentserve_client.load.measure.timeline import Timeline


def test_a_timeline_widens_and_loses_nothing():
    line = Timeline(0, 1.0)
    line.add(rows(*(call(float(at), 0.5) for at in range(2000))))
    assert len(line.buckets) <= 600
    assert line.width_s == 4.0
    assert sum(bucket.successes for bucket in line.buckets) == 2000
    assert [bucket.successes for bucket in line.buckets[:3]] == [4, 4, 4]

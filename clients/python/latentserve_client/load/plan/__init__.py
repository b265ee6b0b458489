"""What a load test sends, and when.

Comes in: the parsed command line. Goes out: a checked `LoadTestConfig`, a `Workload` of serialized
requests, and the arrival times of an open loop. Knows no other folder of the load tester.
"""

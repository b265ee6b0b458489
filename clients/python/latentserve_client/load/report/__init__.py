"""Report of a load test as text, JSON, CSV and HTML, and its baseline.

Comes in: the results of `drive` and the statistics of `measure`. Goes out: one object of plain
values (`data`), which is the JSON report, and the other forms made from it. Knows `drive`,
`measure` and `plan`.
"""

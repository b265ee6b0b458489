"""Reports: the end of a run, records of runs, tables and plots.

Models, metrics and records come in; tables, plots and pages go out. May import everything except
`__main__`.
"""

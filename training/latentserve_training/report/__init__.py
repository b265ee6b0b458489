"""Results for people: the end of a run, records of runs, tables and plots.

Models, metrics and records come in; files for people go out. May import everything but `__main__`.
"""

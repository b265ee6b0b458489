"""Log lines: their format, their rate limit, and one line for each failed call.

Log records and ended calls come in; lines on standard error go out. May import `status`.
"""

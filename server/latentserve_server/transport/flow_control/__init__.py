"""Limits that every transport applies to calls in flight.

Calls and the bytes of their replies come in; refusals, waits and ends of overdue calls go out. May
import `observability`, `services` and everything below them.
"""

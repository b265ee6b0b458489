"""`make conformance`: all languages against the fixture, one table."""

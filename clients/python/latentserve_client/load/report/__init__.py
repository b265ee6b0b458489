"""Reporting the load: report data and its text, HTML and CSV forms."""

"""Benchmarks: each one command, a table on stdout, JSON lines on request."""

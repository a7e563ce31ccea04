"""Servers of our own that play a queue service, for tests and benchmarks."""

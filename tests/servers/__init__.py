"""Real and emulated servers that tests start, each a context manager that yields where to reach it.

A server that cannot be started is an error, never a reason to skip.
"""

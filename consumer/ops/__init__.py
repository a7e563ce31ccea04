"""What a person who runs the worker sees: logs, metrics, probes."""

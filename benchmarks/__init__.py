"""What is measured, how, and against whom. Run it with `python -m benchmarks`."""

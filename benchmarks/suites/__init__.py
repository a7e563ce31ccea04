"""The measurements, one module for each subject; each has `run(plan) -> list[Result]`."""

"""Programs that empty a queue, each run as a process of its own until SIGTERM."""

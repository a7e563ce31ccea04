"""Programs that empty an SQS queue, each run as a process of its own until SIGTERM."""

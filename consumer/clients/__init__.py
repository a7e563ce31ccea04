"""REST clients of the platforms, for handlers and the command line."""

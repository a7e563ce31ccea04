"""Dead letters: keeping what could not be handled, durably and out of sight, and reading it again."""

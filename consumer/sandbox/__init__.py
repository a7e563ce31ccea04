"""Both platforms played locally: their REST APIs, their signed events and webhooks, and their faults.

For developing and testing before there are credentials. Everything in it is invented.
"""

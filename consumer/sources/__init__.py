"""Queues: one module an adapter, all behind the protocol in `base`."""

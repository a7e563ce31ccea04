"""How the sandbox is to behave."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from consumer.sandbox.credentials import Credentials

__all__ = ["LOOPBACK", "Contract", "SandboxOptions"]

Contract = Literal["inline", "basic", "mixed"]
"""Whether events carry their resource: always, never, or now and then."""

LOOPBACK: Final = frozenset({"127.0.0.1", "::1", "localhost"})


@dataclass(frozen=True, slots=True)
class SandboxOptions:
    """What can be chosen of a sandbox; the defaults are those of a quiet one, for tests.

    Durations are seconds. Those marked *sandbox time* pass `speed` times as fast as they say.
    """

    host: str = "127.0.0.1"
    port: int = 0
    """0: any free one."""
    expose: bool = False
    """Whether `host` may be another than this machine's own: the sandbox's keys are toys, and its data are open."""
    seed: int = 1
    """The same seed makes the same members with the same values."""
    start: int = 0
    """Which start of the same project this is: each makes other events, webhooks and ids, about the same members."""
    members: int = 5
    speed: float = 600.0
    """How much faster than life waiting passes: retries, processing, intervals, rotation. Times in bodies are real."""
    credentials: Credentials = field(default_factory=Credentials.new, repr=False)

    # Faults, to begin with.
    latency: float = 0.0
    """Added to every answer of the platforms' APIs."""
    error_rate: float = 0.0
    """Share of calls to the platforms' APIs that are answered 429, 500 or 503, 0 to 1."""

    # Thrive
    rate: float = 0.0
    """Events a second, made up and published by themselves."""
    burst: int = 0
    """Events published at once at the start."""
    contract: Contract = "mixed"
    duplicates: float = 0.0
    """Share of events that are published a second time, 0 to 1."""
    token_lifetime: int = 3600
    """Of a member token, in real seconds."""
    queues_file: Path | None = None
    """Where registered queues are kept for the next start, secrets and all; None: nowhere."""

    # Sahha
    webhook_url: str | None = None
    """Where webhooks are sent; None: nowhere, until a control call says where."""
    webhook_rate: float = 0.0
    """Webhooks a second, made up and sent by themselves."""
    webhook_interval: float = 0.0
    """Minutes of sandbox time in which only the last value of a metric is sent; 0: real-time."""
    webhook_retries: int = 3
    score_shape: Literal["score", "value"] = "score"
    """Which of the two score objects its API answers with."""
    page_base: Literal[0, 1] = 1
    """What the first page of a profile search is called."""
    no_data: Literal["alternate", "204", "empty"] = "alternate"
    """How nothing is said: 204, `[]`, or now one and now the other."""

"""What a source says whose SDK is not installed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
_WITHOUT = """
import sys

class NotInstalled:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"azure", "aioboto3", "aiobotocore", "boto3", "botocore"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)

sys.meta_path.insert(0, NotInstalled())
from consumer.cli import main
main()
"""
_AZURE = "DefaultEndpointsProtocol=http;AccountName=a;AccountKey=YWFh;"
_SOURCES = {
    "sqs": {"QUEUE_URL": "https://sqs.us-east-1.amazonaws.com/1/q"},
    "storage_queue": {"CONNECTION_STRING": f"{_AZURE}QueueEndpoint=http://127.0.0.1:1/a", "QUEUE": "labs"},
    "event_hubs": {
        "CONNECTION_STRING": "Endpoint=sb://127.0.0.1:1;SharedAccessKeyName=a;SharedAccessKey=YWFh",
        "EVENT_HUB": "labs",
        "CHECKPOINTS__CONNECTION_STRING": f"{_AZURE}BlobEndpoint=http://127.0.0.1:1/a",
        "CHECKPOINTS__CONTAINER": "places",
    },
}


@pytest.mark.parametrize("kind", _SOURCES)
def test_a_missing_extra_is_named(tmp_path: Path, kind: str) -> None:
    """Without any cloud's SDK the worker ends with 2 and one line that says what to install."""
    source = {f"CONSUMER_SOURCES__LABS__{name}": value for name, value in {"KIND": kind, **_SOURCES[kind]}.items()}
    clean = {name: value for name, value in os.environ.items() if not name.startswith("CONSUMER_")}
    run = subprocess.run(
        [sys.executable, "-c", _WITHOUT, "run"],
        env={
            **clean,
            **source,
            "CONSUMER_HANDLERS": "handlers",
            "CONSUMER_APP_DIR": str(ROOT),
            "CONSUMER_THRIVE__SIGNATURE__SECRETS": "a secret",
            "CONSUMER_HEALTH__ENABLED": "false",
            "PYTHONPATH": str(ROOT),
        },
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    extra = kind.replace("_", "-")
    assert run.stderr == f"Error: source labs is {kind}: pip install 'health-event-consumer[{extra}]'\n"
    assert run.returncode == 2

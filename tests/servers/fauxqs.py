"""The fauxqs server: an SQS in Node, fast, a second opinion. It calls deletions by a made-up receipt handle done."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator

from tests.servers.node import environment, install, node
from tests.servers.processes import free_port, serving

__all__ = ["fauxqs_server"]


@contextlib.contextmanager
def fauxqs_server() -> Iterator[str]:
    """Run fauxqs on a free port of 127.0.0.1 and yield its endpoint URL. Its own command would bind every address."""
    entrance = (install("fauxqs") / "dist" / "app.js").as_uri()
    port = free_port()
    script = (
        f"import {{ buildApp }} from {json.dumps(entrance)};"
        f"await buildApp({{ logger: false }}).listen({{ host: '127.0.0.1', port: {port} }});"
    )
    command = [node(), "--input-type=module", "--eval", script]
    with serving(command, f"http://127.0.0.1:{port}", env=environment()) as url:
        yield url

"""An ASGI application behind a real socket, for as long as a test needs it."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvicorn


@contextmanager
def serving(app: Any) -> Iterator[str]:
    """Serve `app`; gives its URL."""
    config = uvicorn.Config(app, log_level="warning", ws="none", lifespan="off")
    server = uvicorn.Server(config)
    with socket.socket() as mine:
        mine.bind(("127.0.0.1", 0))
        mine.listen()  # who calls before the server takes calls waits
        thread = threading.Thread(target=server.run, kwargs={"sockets": [mine]})
        thread.start()
        try:
            yield f"http://127.0.0.1:{mine.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()

"""A store that speaks S3 on loopback, which a test can stop and start without losing what it holds."""

import socket
from typing import Any
from urllib.request import Request, urlopen


class S3Server:
    """moto's server with one bucket.

    Attributes:
        files: an fsspec file system on it.
    """

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port: int = free.getsockname()[1]
        self.start()

    def start(self) -> None:
        from moto.server import ThreadedMotoServer

        self._server = ThreadedMotoServer("127.0.0.1", self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()

    def empty(self) -> None:
        """Servers of one process share what they hold."""
        urlopen(Request(f"http://127.0.0.1:{self.port}/moto-api/reset", method="POST")).close()

    @property
    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": f"http://127.0.0.1:{self.port}",
            "AWS_ACCESS_KEY_ID": "tests",
            "AWS_SECRET_ACCESS_KEY": "tests",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_MAX_ATTEMPTS": "1",  # a test need not wait for botocore's own pauses
        }

    @property
    def files(self) -> Any:
        from fsspec.core import url_to_fs

        return url_to_fs("s3://", use_listings_cache=False)[0]

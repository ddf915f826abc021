"""A page of growing stores, served to this machine alone.

What guards it: it listens on 127.0.0.1; its address holds a random token, without which every
request gets the same empty 404; the `Host` must be ours, so that no foreign name that resolves to
127.0.0.1 will do; a stop must come from our own page (`Origin`). Nothing on disk is named by a
request: there are three things to get and one to post.
"""

import hmac
import json
import secrets
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import TCPServer
from typing import Any

from .gallery import Entry
from .growing import GrowingStores
from .page import render

_HOST = "127.0.0.1"
_PATIENCE = 30.0
"""Seconds for a request to arrive: who sends none holds no thread for ever."""
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",  # the address is the key
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}


class PageServer(ThreadingHTTPServer):
    """Answers at `address` from when it is made; `serve_forever` begins, Ctrl-C ends it.

    **Arguments:**

    - `stores`: what is shown. `gallery`: of `read_gallery`. `port`: 0 for any that is free.

    **Raises:** `ValueError` for a port that is none, `OSError` for one that is taken.
    """

    def __init__(self, stores: GrowingStores, gallery: Sequence[Entry] = (), port: int = 0):
        if not 0 <= port < 2**16:
            raise ValueError(f"port = {port} must lie in 0 … 65535; 0 takes one that is free.")
        self.stores, self.gallery = stores, gallery
        self.token = secrets.token_urlsafe(24)
        try:
            ThreadingHTTPServer.__init__(self, (_HOST, port), _Handler)
        except OSError as error:
            raise OSError(
                f"Cannot listen on port {port} ({error.strerror}): name another --port, or none."
            ) from None

    def server_bind(self) -> None:
        # HTTPServer would ask the network for this machine's name.
        TCPServer.server_bind(self)
        self.server_name, self.server_port = _HOST, self.socket.getsockname()[1]

    @property
    def address(self) -> str:
        return f"http://{_HOST}:{self.server_port}/{self.token}/"

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Silence: a reader who goes away in the middle of an answer is no error."""


class _Handler(BaseHTTPRequestHandler):
    server: PageServer
    timeout = _PATIENCE

    def do_GET(self) -> None:
        name = self._asked()
        if name == "":
            data = self._of_stores(self.server.stores.document)
            if data is not None:
                html = render(data, self.server.gallery, served=True)
                self._answer(200, "text/html; charset=utf-8", html.encode())
        elif name == "progress":
            self._json(self._of_stores(self.server.stores.progress))
        elif name == "data":
            self._data()
        else:
            self._refuse()

    def do_POST(self) -> None:
        if self._asked() != "stop" or self.headers.get("Origin") != f"http://{self._host()}":
            self._refuse()
            return
        asked = self._of_stores(self.server.stores.stop)
        self._json(None if asked is None else {"asked": asked})

    def _asked(self) -> str | None:
        """What is asked for, below the token; None for whoever does not have it."""
        words = self.path.split("/")
        if len(words) != 3 or words[0] or not self._host():
            return None
        right = hmac.compare_digest(words[1].encode(), self.server.token.encode())
        return words[2] if right else None

    def _host(self) -> str | None:
        given = self.headers.get_all("Host", [])
        ours = [f"{name}:{self.server.server_port}" for name in (_HOST, "localhost")]
        return given[0] if len(given) == 1 and given[0] in ours else None

    def _data(self) -> None:
        data = self._of_stores(self.server.stores.document)
        if data is None:
            return
        tag = f'"{data["tag"]}"'
        if self.headers.get("If-None-Match") == tag:
            self._answer(304, "application/json", b"", {"ETag": tag})
        else:
            self._json(data, {"ETag": tag})

    def _of_stores(self, job: Any) -> Any:
        """A store may be moved away, or damaged, while it is looked at: that is told."""
        try:
            return job()
        except Exception as error:  # whatever a damaged file makes zarr raise
            text = json.dumps({"error": str(error) or type(error).__name__}).encode()
            self._answer(503, "application/json", text)
            return None

    def _json(self, data: Any, headers: dict[str, str] | None = None) -> None:
        if data is not None:
            text = json.dumps(data, allow_nan=False, separators=(",", ":"))
            self._answer(200, "application/json", text.encode(), headers or {})

    def _answer(
        self, code: int, kind: str, content: bytes, headers: dict[str, str] | None = None
    ) -> None:
        self.send_response(code)
        # The page's own policy is in it; a frame's cannot be.
        policy = "frame-ancestors 'none'" + ("" if "html" in kind else "; default-src 'none'")
        own = {"Content-Type": kind, "Content-Length": str(len(content))}
        for name, value in {
            **_HEADERS,
            "Content-Security-Policy": policy,
            **own,
            **(headers or {}),
        }.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    def _refuse(self) -> None:
        self._answer(404, "text/plain", b"")

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the library would explain, such as an unknown method."""
        del code, message, explain
        self._refuse()

    def version_string(self) -> str:
        return "ct-adam"

    def log_message(self, format: str, *args: Any) -> None:
        """The address, which is the key, goes into no log."""

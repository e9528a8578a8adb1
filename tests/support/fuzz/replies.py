"""Answers that no RedBrick sends, or sends only when something is wrong."""

from __future__ import annotations

from fuzz.values import KEY
from hypothesis import strategies as st
from tiny_server import Reply

REPLIES = st.sampled_from(
    [
        Reply(200),
        Reply(200, b"<html>Sign in</html>", {"Content-Type": "text/html"}),
        Reply(200, b"\x1f\x8b\x08", {"Content-Encoding": "gzip"}),
        Reply(200, b'{"data": {}}', {"Content-Encoding": "gzip"}),
        Reply(200, b'{"data": {}}'),
        Reply(200, b'{"data": null, "errors": [{"message": null, "path": [{}]}, 5, [[]]]}'),
        Reply(200, f'{{"errors": "{KEY}"}}'.encode()),
        Reply(204),
        Reply(302, b"", {"Location": "http://localhost:1/"}),
        Reply(401, KEY.encode()),
        Reply(413),
        Reply(429, KEY.encode(), {"Retry-After": "9" * 4000}),
        Reply(500, KEY.encode()),
        Reply(503, b"", {"Retry-After": "-1"}),
    ]
)

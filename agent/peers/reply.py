"""How answers and refusals are written on the wire."""

import email.utils
import http
import json

from agent.peers.answer import Answer, etag
from agent.peers.request import Refusal


def head_of(answer: Answer, *, ends: bool) -> bytes:
    """The head before a file's bytes; `ends` tells that the connection ends after them."""
    fields = {
        "Content-Type": "application/octet-stream",
        "Content-Length": str(answer.end - answer.start),
        "Accept-Ranges": "bytes",
        "ETag": etag(answer.sha256),
    }
    if answer.is_part:
        last, size = answer.end - 1, answer.readable.size
        fields["Content-Range"] = f"bytes {answer.start}-{last}/{size}"
    return _head(206 if answer.is_part else 200, fields, ends=ends)


def refusal_of(refusal: Refusal, *, ends: bool, bodiless: bool = False) -> bytes:
    """A refusal as a whole, in the shape of all errors of this project."""
    kind = "server_error" if refusal.status >= 500 else "invalid_request_error"
    error = {
        "message": refusal.message,
        "type": kind,
        "param": None,
        "code": refusal.code,
    }
    body = json.dumps({"error": error}).encode()
    fields = {
        "Content-Type": "application/json",
        "Content-Length": str(len(body)),
        **refusal.fields,
    }
    return _head(refusal.status, fields, ends=ends) + (b"" if bodiless else body)


def _head(status: int, fields: dict[str, str], *, ends: bool) -> bytes:
    lines = [f"HTTP/1.1 {status} {http.HTTPStatus(status).phrase}"]
    lines += [f"{name}: {value}" for name, value in fields.items()]
    lines.append(f"Date: {email.utils.formatdate(usegmt=True)}")
    if ends:
        lines.append("Connection: close")
    return "\r\n".join([*lines, "", ""]).encode("latin-1")

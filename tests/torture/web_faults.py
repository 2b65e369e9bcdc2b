"""What can go wrong between a reader and a server that speaks HTTP, by name.

A fault is met in place of the right answer: it asks the server itself, if it wants to know that,
and sends something else.
"""

import email.utils
import http.client
import random
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler
from typing import cast

from line import Connection, Line, reset, slowly

# Longer than a reader waits for a silent server here.
SILENCE = 1.0


BAD_DIGEST = b"<Error><Code>BadDigest</Code><Message>The checksum did not match.</Message></Error>"


@dataclass(frozen=True)
class Answer:
    """An answer of the server, as a whole."""

    status: int
    headers: dict[str, str]
    body: bytes
    length: int | None = None
    """Of the file, where only that is asked for."""

    def raw(self, says_length: bool = True) -> bytes:
        """It as bytes."""
        headers = self.without("content-length")
        if says_length:
            headers["Content-Length"] = str(len(self.body) if self.length is None else self.length)
        headers["Connection"] = "close"
        lines = [f"HTTP/1.1 {self.status} {http.client.responses.get(self.status, '')}"]
        lines += [f"{name}: {value}" for name, value in headers.items()]
        return "\r\n".join([*lines, "", ""]).encode("latin-1") + self.body

    def header(self, name: str) -> str:
        return next((v for k, v in self.headers.items() if k.lower() == name.lower()), "")

    def without(self, *names: str) -> dict[str, str]:
        return {k: v for k, v in self.headers.items() if k.lower() not in names}


@dataclass
class Asked:
    """A request, on its way through a bad line."""

    command: str
    path: str
    headers: dict[str, str]
    body: bytes
    near: Connection
    line: "Web"

    @property
    def has_range(self) -> bool:
        return any(name.lower() == "range" for name in self.headers)

    def answer(self) -> Answer:
        """What the server says."""
        far = http.client.HTTPConnection("127.0.0.1", self.line.to, timeout=30)
        try:
            far.putrequest(self.command, self.path, skip_host=True, skip_accept_encoding=True)
            for name, value in self.headers.items():
                if name.lower() not in ("connection", "expect", "content-length"):
                    far.putheader(name, value)
            if self.body or self.command in ("PUT", "POST"):
                far.putheader("Content-Length", str(len(self.body)))
            far.endheaders(self.body or None)
            found = far.getresponse()
            headers = dict(found.getheaders())
            body = found.read()
        finally:
            far.close()
        dropped = ("connection", "transfer-encoding", "date", "server")
        answer = Answer(found.status, headers, body)
        length = int(answer.header("content-length") or 0) if self.command == "HEAD" else None
        return replace(answer, headers=answer.without(*dropped), length=length)

    def send(self, answer: Answer) -> None:
        self.near.sendall(answer.raw())

    def elsewhere(self, path: str) -> "Asked":
        return replace(self, path=path)

    def whole(self) -> "Asked":
        """The request for all of the file."""
        kept = {k: v for k, v in self.headers.items() if k.lower() not in ("range", "if-range")}
        return replace(self, headers=kept)


class Web(Line):
    """A line that carries requests, of which some meet a fault."""

    def __init__(self) -> None:
        self.choose: Callable[[Asked], str] = lambda _: ""
        """The name of the fault of a request; none if it is empty."""
        self.rng = random.Random(0)
        self.seen: list[str] = []
        """Paths that were asked for."""
        super().__init__()

    def carry(self, near: Connection) -> None:
        Request(near, near.getpeername(), self)  # type: ignore[arg-type]

    def meet(self, asked: Asked, body: Callable[[int], bytes]) -> None:
        """Answer a request, or do what its fault does instead."""
        name = self.choose(asked)
        self.seen.append(asked.path)
        if name:
            self.met += 1
        if name == "reset while it is written":
            body(200)
            reset(asked.near)
            return
        asked.body = body(2**30)
        FAULTS.get(name, _as_it_is)(asked)


class Request(BaseHTTPRequestHandler):
    """One request; whoever sent it connects anew for the next."""

    protocol_version = "HTTP/1.1"  # it may wait to be asked for its body

    def do_GET(self) -> None:
        self.answer()

    do_HEAD = do_PUT = do_POST = do_DELETE = do_GET  # noqa: N815

    def answer(self) -> None:
        line = cast("Web", self.server)
        length = int(self.headers.get("Content-Length") or 0)
        asked = Asked(self.command, self.path, dict(self.headers), b"", self.connection, line)
        line.meet(asked, lambda most: self.rfile.read(min(length, most)))
        self.close_connection = True

    def log_message(self, *_: object) -> None:
        pass


def _as_it_is(asked: Asked) -> None:
    asked.send(asked.answer())


def _status(status: int, **headers: str) -> Callable[[Asked], None]:
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return lambda asked: asked.near.sendall(Answer(status, named, b"").raw())


def _reset_first(asked: Asked) -> None:
    reset(asked.near)


def _silent(asked: Asked) -> None:
    time.sleep(SILENCE)
    reset(asked.near)


def _reset_after_headers(asked: Asked) -> None:
    answer = asked.answer()
    asked.near.sendall(answer.raw()[: len(answer.raw()) - len(answer.body)])
    time.sleep(0.005)
    reset(asked.near)


def _drop(asked: Asked) -> None:
    """Half of the body arrives, slowly enough that it is taken, and then nothing."""
    answer = asked.answer()
    raw = answer.raw()
    asked.near.sendall(raw[: len(raw) - (len(answer.body) + 1) // 2])
    time.sleep(0.02)


def _cut_unseen(asked: Asked) -> None:
    answer = asked.answer()
    half = replace(answer, body=answer.body[: len(answer.body) // 2])
    asked.near.sendall(half.raw())


def _cut_without_length(asked: Asked) -> None:
    answer = asked.answer()
    half = replace(answer, body=answer.body[: len(answer.body) // 2])
    asked.near.sendall(half.raw(says_length=False))


def _changed(change: Callable[[bytes, random.Random], bytes]) -> Callable[[Asked], None]:
    def send(asked: Asked) -> None:
        answer = asked.answer()
        asked.send(replace(answer, body=change(answer.body, asked.line.rng)))

    return send


def _flip(body: bytes, rng: random.Random) -> bytes:
    changed = bytearray(body)
    if changed:
        changed[rng.randrange(len(changed))] ^= 1 << rng.randrange(8)
    return bytes(changed)


def _doubled(body: bytes, rng: random.Random) -> bytes:
    at = rng.randrange(len(body) + 1)
    return body[:at] + body[at // 2 :]


def _after_a_drop(then: Callable[[Asked], None]) -> Callable[[Asked], None]:
    """A fault of requests that go on with a file; the others are made to have to."""
    return lambda asked: then(asked) if asked.has_range else _drop(asked)


def _elsewhere(asked: Asked) -> None:
    """Other bytes than were asked for, and it is said."""
    answer = asked.answer()
    headers = answer.without("content-range")
    if answer.status == http.client.PARTIAL_CONTENT:
        headers["Content-Range"] = f"bytes 1-{len(answer.body)}/{len(answer.body) + 1}"
        answer = replace(answer, body=answer.body[1:] + b"x")
    asked.send(replace(answer, headers=headers))


def _whole(asked: Asked) -> None:
    asked.send(asked.whole().answer())


def _other(asked: Asked) -> None:
    """By now there is another file of that length, and it is said."""
    answer = asked.whole().answer()
    body = bytes(byte ^ 0x55 for byte in answer.body)
    asked.send(replace(answer, body=body, headers=answer.without("etag") | {"ETag": '"other"'}))


def _other_unsaid(asked: Asked) -> None:
    answer = asked.answer()
    asked.send(replace(answer, body=bytes(byte ^ 0x55 for byte in answer.body)))


def _other_tag(asked: Asked) -> None:
    answer = asked.answer()
    tag = f'"{asked.line.rng.randrange(10**9)}"'
    asked.send(replace(answer, headers=answer.without("etag") | {"ETag": tag}))


def _stale(asked: Asked) -> None:
    """The file as it was before the store grew."""
    asked.send(asked.elsewhere(asked.path.replace("/store", "/older")).answer())


def _of_another_file(asked: Asked) -> None:
    asked.send(asked.elsewhere(asked.line.rng.choice(asked.line.seen)).answer())


def _garbage(asked: Asked) -> None:
    asked.near.sendall(asked.line.rng.randbytes(200))


def _retry_at(asked: Asked) -> None:
    date = email.utils.formatdate(time.time() + 1, usegmt=True)
    asked.near.sendall(Answer(503, {"Retry-After": date}, b"").raw())


def _round(asked: Asked) -> None:
    asked.near.sendall(Answer(302, {"Location": asked.path}, b"").raw())


def _drip(asked: Asked) -> None:
    slowly(asked.near, asked.answer().raw(), 0.2)


def _unacknowledged(asked: Asked) -> None:
    asked.answer()
    reset(asked.near)


def _not_kept(asked: Asked) -> None:
    asked.near.sendall(Answer(200, {"ETag": '"0"'}, b"").raw())


def _damaged_on_the_way(asked: Asked) -> None:
    """S3 compares what arrives with the checksum that is sent along."""
    asked.send(Answer(400, {"Content-Type": "application/xml"}, BAD_DIGEST))


Fault = Callable[[Asked], None]

READING: dict[str, Fault] = {
    "reset before the headers": _reset_first,
    "reset after the headers": _reset_after_headers,
    "silence": _silent,
    "drop amid the body": _drop,
    "cut, and the length is that of the rest": _cut_unseen,
    "cut, without a length": _cut_without_length,
    "a flipped bit": _changed(_flip),
    "bytes sent twice": _changed(_doubled),
    "an empty body": _changed(lambda *_: b""),
    "the body of another file": _of_another_file,
    "206 with another range": _after_a_drop(_elsewhere),
    "200 for a range": _after_a_drop(_whole),
    "another object by now": _after_a_drop(_other),
    "another object by now, unsaid": _after_a_drop(_other_unsaid),
    "another ETag each time": _after_a_drop(_other_tag),
    "a stale object": _stale,
    "429": _status(429),
    "500": _status(500),
    "502": _status(502),
    "503": _status(503),
    "504": _status(504),
    "503, again in a second": _status(503, Retry_After="1"),
    "503, again at a date": _retry_at,
    "redirects without end": _round,
    "a slow drip": _drip,
    "garbage": _garbage,
    "404 though it is there": _status(404),
    "403 though it may be read": _status(403),
}

# Faults of requests that write; the others spoil these as well.
WRITING: dict[str, Fault] = {
    "reset while it is written": _reset_first,  # what of it was read says the line
    "written, and not acknowledged": _unacknowledged,
    "acknowledged, and not written": _not_kept,
    "a flipped bit in what is written": _damaged_on_the_way,
}

FAULTS = READING | WRITING

# They need a second request for the same file.
OF_A_RANGE = {
    "206 with another range",
    "200 for a range",
    "another object by now",
    "another object by now, unsaid",
    "another ETag each time",
}

# Nothing that a request to write could meet: it would write elsewhere.
OF_READING = {"the body of another file", "a stale object"}

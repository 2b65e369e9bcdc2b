"""A line to a server on loopback that can be bad: it carries connections, or spoils them."""

import random
import socket
import struct
import threading
import time
from collections.abc import Callable
from contextlib import suppress

Connection = socket.socket


class Line:
    """A port of its own that leads to another.

    A subclass carries each connection, in a thread.
    """

    def __init__(self) -> None:
        self.to = 0
        """The port of the server."""
        self.met = 0
        """How many faults there were."""
        self._listening = self._listen(0)
        self.port: int = self._listening.getsockname()[1]

    def carry(self, near: Connection) -> None:
        """Carry one connection; it is closed afterwards."""
        raise NotImplementedError

    def refuse(self, seconds: float) -> None:
        """Refuse every connection for so long."""
        self.close()
        self._opens = threading.Timer(seconds, self._open)
        self._opens.daemon = True
        self._opens.start()

    def mend(self) -> None:
        """Refuse no more."""
        self._opens.cancel()
        self._opens.join()
        if self._listening.fileno() < 0:
            self._open()

    def close(self) -> None:
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)  # it wakes whoever accepts
        self._listening.close()

    def _open(self) -> None:
        self._listening = self._listen(self.port)

    def _listen(self, port: int) -> Connection:
        listening = socket.create_server(("127.0.0.1", port), backlog=64)
        threading.Thread(target=self._serve, args=(listening,), daemon=True).start()
        return listening

    def _serve(self, listening: Connection) -> None:
        with suppress(OSError):
            while True:
                near, _ = listening.accept()
                threading.Thread(target=self._carry, args=(near,), daemon=True).start()

    def _carry(self, near: Connection) -> None:
        with suppress(OSError, ValueError), near:
            self.carry(near)


def reset(near: Connection) -> None:
    """End a connection as a machine that lost it does, and not as one that is done."""
    near.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    near.close()


Spoil = Callable[[bytes, Connection], bytes | None]
"""A fault of some bytes, and of the connection to which they go: what goes on, or None if nothing
ever does.
"""


class Bytes(Line):
    """A line that knows nothing of what it carries."""

    def __init__(self) -> None:
        self.fault: Spoil | None = None
        self.after = 0
        """Bytes in one direction of a connection that come before its fault."""
        self.left = 0
        """How many faults there still are."""
        super().__init__()

    def carry(self, near: Connection) -> None:
        with socket.create_connection(("127.0.0.1", self.to)) as far:
            there = threading.Thread(target=self._pass_on, args=(near, far), daemon=True)
            there.start()
            self._pass_on(far, near)

    def _pass_on(self, here: Connection, there: Connection) -> None:
        carried, spoilt = 0, False
        with suppress(OSError):
            while data := here.recv(2**14):
                carried += len(data)
                if self.fault and self.left > 0 and not spoilt and carried > self.after:
                    spoilt = True
                    self.left -= 1
                    self.met += 1
                    changed = self.fault(data, there)
                    if changed is None:
                        break
                    data = changed
                there.sendall(data)
        for end in (here, there):
            with suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)


def slowly(near: Connection, data: bytes, seconds: float) -> None:
    """Send some bytes in drips that take so long together."""
    step = max(1, len(data) // 20)
    for at in range(0, len(data), step):
        near.sendall(data[at : at + step])
        time.sleep(seconds * step / len(data))


def _garbage(data: bytes, _: Connection) -> bytes:
    return random.Random(len(data)).randbytes(len(data))


def _flip(data: bytes, _: Connection) -> bytes:
    middle = len(data) // 2
    return data[:middle] + bytes([data[middle] ^ 4]) + data[middle + 1 :]


def _drip(data: bytes, there: Connection) -> bytes:
    slowly(there, data, 0.2)
    return b""


# What can happen to bytes that nobody but the two ends can read.
OF_BYTES: dict[str, Spoil] = {
    "reset after the headers": lambda _, there: reset(there),
    "drop amid the body": lambda *_: None,
    "a flipped bit": _flip,
    "bytes sent twice": lambda data, _: data + data,
    "a slow drip": _drip,
    "garbage": _garbage,
}

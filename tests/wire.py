"""TCP proxies between clients and a server: one counts round trips, and can make the way long; one
breaks a connection.
"""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Literal


@dataclass
class Connection:
    """One client's connection: how often the server answered what the client had sent.

    What the client sends without an answer, as its farewell, is no round trip. A client that
    waits for each answer, as libpq's simple queries do, is counted exactly.
    """

    round_trips: int = 0
    client_spoke_last: bool = field(default=False, repr=False)

    def client_speaks(self) -> None:
        """The client sends a part of a message."""
        self.client_spoke_last = True

    def server_speaks(self) -> None:
        """The server sends a part of an answer."""
        self.round_trips += self.client_spoke_last
        self.client_spoke_last = False


@dataclass
class Wire:
    """A running proxy: where it listens, and the connections it has had, in order."""

    port: int
    connections: list[Connection] = field(default_factory=list)

    @property
    def round_trips(self) -> int:
        """The round trips of all connections."""
        return sum(connection.round_trips for connection in self.connections)


def outer_address() -> str | None:
    """An address of this machine by which others reach it; None where it has none."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing
        except OSError:
            return None
        address: str = probe.getsockname()[0]
    return None if address.startswith("127.") else address


@contextmanager
def counting_proxy(
    host: str, port: int, *, at: str = "127.0.0.1", way: float = 0
) -> Iterator[Wire]:
    """A proxy on a free port of the address `at`, before the server at `host` and `port`.

    `way` is how many seconds everything is under way longer, in each direction.
    """
    with socket.create_server((at, 0)) as listener:
        wire = Wire(listener.getsockname()[1])

        def count(client: socket.socket, server: tuple[str, int]) -> None:
            _connect(client, server, wire, way)

        accept = threading.Thread(
            target=_accept_each, args=(listener, (host, port), count), daemon=True
        )
        accept.start()
        yield wire
        with suppress(OSError):  # not every system wakes the thread that accepts
            listener.shutdown(socket.SHUT_RDWR)


def _accept_each(
    listener: socket.socket,
    server: tuple[str, int],
    serve: Callable[[socket.socket, tuple[str, int]], None],
) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the proxy is closed
        threading.Thread(target=serve, args=(client, server), daemon=True).start()


def _connect(client: socket.socket, address: tuple[str, int], wire: Wire, way: float) -> None:
    connection = Connection()
    wire.connections.append(connection)
    with client, socket.create_connection(address) as server:
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        with _sending(server, way) as there, _sending(client, way) as back:
            answers = threading.Thread(target=_pump, args=(server, back, connection.server_speaks))
            answers.start()
            _pump(client, there, connection.client_speaks)
            answers.join()


def _pump(source: socket.socket, send: _Send, note: Callable[[], None]) -> None:
    """Pass on what comes, and note it before the other side can answer; then the end."""
    try:
        while data := source.recv(65536):
            note()
            send(data)
        send(b"")
    except OSError:
        pass  # one of the two has hung up


#: Sends bytes on; no bytes are the end of what is sent.
_Send = Callable[[bytes], None]


@contextmanager
def _sending(sink: socket.socket, way: float) -> Iterator[_Send]:
    """What sends to a socket at once; or `way` seconds later, by a thread of its own."""

    def send(data: bytes) -> None:
        if data:
            sink.sendall(data)
        else:
            sink.shutdown(socket.SHUT_WR)

    if not way:
        yield send
        return
    under_way: queue.SimpleQueue[tuple[float, bytes]] = queue.SimpleQueue()

    def arrive() -> None:
        data = b"any"
        while data:
            due, data = under_way.get()
            time.sleep(max(0, due - time.monotonic()))
            with suppress(OSError):  # the other side has hung up
                send(data)

    arriving = threading.Thread(target=arrive)
    arriving.start()
    yield lambda data: under_way.put((time.monotonic() + way, data))
    under_way.put((0, b""))
    arriving.join()


# Breaking -----------------------------------------------------------------------------------

#: Where a connection breaks: the server never gets the message; it gets it, and its answer is
#: lost; or it gets it only when `Breaker.deliver` is called, long after the client has gone.
Where = Literal["before the server", "after the server", "delivered late"]


@dataclass
class Breaker:
    """A proxy that breaks the first connection on which `start` is sent, and then `end`."""

    port: int
    where: Where
    start: bytes
    end: bytes
    refuses: bool = False
    """Whether, once a connection is broken, it takes no other."""
    broken: threading.Event = field(default_factory=threading.Event)
    delivered: threading.Event = field(default_factory=threading.Event)
    answer: list[bytes] = field(default_factory=list)
    """What the server said to a message that was delivered late, until it hung up."""
    _late: threading.Event = field(default_factory=threading.Event)

    def deliver(self) -> bytes:
        """Let the message that was held back reach the server; the answer, once it is all there."""
        self._late.set()
        assert self.delivered.wait(30), "the server never answered"
        return b"".join(self.answer)

    def serve(self, client: socket.socket, address: tuple[str, int]) -> None:
        """Pass on what a client and the server say, until the message comes that breaks it."""
        if self.refuses and self.broken.is_set():
            client.close()
            return
        with client, socket.create_connection(address) as server:
            muted = threading.Event()
            back = threading.Thread(target=self._answer, args=(server, client, muted))
            back.start()
            sent = b""
            try:
                while data := client.recv(65536):
                    sent += data
                    if not self.broken.is_set() and self._is_reached(sent):
                        self._break(client, server, data, muted)
                        break
                    server.sendall(data)
                server.shutdown(socket.SHUT_WR)
            except OSError:
                pass  # one of the two has hung up
            back.join()

    def _is_reached(self, sent: bytes) -> bool:
        _, found, rest = sent.partition(self.start)
        return bool(found) and self.end in rest

    def _break(
        self, client: socket.socket, server: socket.socket, data: bytes, muted: threading.Event
    ) -> None:
        muted.set()
        self.broken.set()
        if self.where == "after the server":
            server.sendall(data)
            assert self.delivered.wait(30)
        client.shutdown(socket.SHUT_RDWR)
        if self.where == "delivered late":
            assert self._late.wait(60)
            server.sendall(data)

    def _answer(self, server: socket.socket, client: socket.socket, muted: threading.Event) -> None:
        try:
            while data := server.recv(65536):
                if not muted.is_set():
                    client.sendall(data)
                    continue
                self.answer.append(data)
                if b"".join(self.answer)[-6:-1] == _READY:
                    self.delivered.set()
        except OSError:
            pass  # one of the two has hung up
        if muted.is_set():
            self.delivered.set()
        with suppress(OSError):
            client.shutdown(socket.SHUT_RDWR)


#: The server's last word on a message, but for one letter: ReadyForQuery and its length.
_READY = b"Z\0\0\0\5"


@contextmanager
def breaking_proxy(
    host: str, port: int, where: Where, *, start: bytes, end: bytes, refuses: bool = False
) -> Iterator[Breaker]:
    """A proxy on a free port of 127.0.0.1 before the server at `host` and `port`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        breaker = Breaker(listener.getsockname()[1], where, start, end, refuses)
        threading.Thread(
            target=_accept_each, args=(listener, (host, port), breaker.serve), daemon=True
        ).start()
        yield breaker
        with suppress(OSError):  # not every system wakes the thread that accepts
            listener.shutdown(socket.SHUT_RDWR)

"""A TCP proxy that counts round trips between clients and a server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field


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


@contextmanager
def counting_proxy(host: str, port: int) -> Iterator[Wire]:
    """A proxy on a free port of 127.0.0.1 before the server at `host` and `port`."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        wire = Wire(listener.getsockname()[1])
        threading.Thread(target=_accept, args=(listener, (host, port), wire), daemon=True).start()
        yield wire
        with suppress(OSError):  # not every system wakes the thread that accepts
            listener.shutdown(socket.SHUT_RDWR)


def _accept(listener: socket.socket, server: tuple[str, int], wire: Wire) -> None:
    while True:
        try:
            client, _ = listener.accept()
        except OSError:
            return  # the proxy is closed
        threading.Thread(target=_connect, args=(client, server, wire), daemon=True).start()


def _connect(client: socket.socket, address: tuple[str, int], wire: Wire) -> None:
    connection = Connection()
    wire.connections.append(connection)
    with client, socket.create_connection(address) as server:
        back = threading.Thread(target=_pump, args=(server, client, connection.server_speaks))
        back.start()
        _pump(client, server, connection.client_speaks)
        back.join()


def _pump(source: socket.socket, sink: socket.socket, note: Callable[[], None]) -> None:
    """Pass on what comes, and note it before the other side can answer; then the end."""
    try:
        while data := source.recv(65536):
            note()
            sink.sendall(data)
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        pass  # one of the two has hung up

"""A TCP proxy in front of Postgres that can be told to fail: go deaf, cut, refuse. It counts the statements, too.

Deaf is half-open: nothing is read or written any more, in either direction, the end of a connection included, while
both sockets stay open. It can hit single connections, chosen by what they said when they connected.
"""

import queue
import selectors
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any, TypeAlias, TypeVar
from urllib.parse import urlsplit, urlunsplit

T = TypeVar("T")

_STARTUP = 3 << 16
_CHUNK = 65_536
#: Query and Execute, of the protocol's messages.
_STATEMENTS = b"QE"
_NO_LINGER = struct.pack("ii", 1, 0)


class Link:
    """One connection through the proxy. application: what it called itself at its start, empty until it did.

    number: 1, 2, … in the order of arrival.
    """

    def __init__(self, number: int, client: socket.socket, server: socket.socket) -> None:
        self.number = number
        self.application = ""
        self.is_deaf = False
        self.peer = {client: server, server: client}
        self.pending = {client: b"", server: b""}  # bytes that are still to be written to it
        self.ended: set[socket.socket] = set()  # what its peer will not add to any more
        self.client = client
        self._unread = bytearray()  # the begin of a message

    def look(self, data: bytes) -> int:
        """Read what the client sends; returns how many statements it has sent whole."""
        self._unread += data
        asked = 0
        while len(self._unread) >= (head := 5 if self.application else 4):  # only the first ones are of no kind
            size = head - 4 + int.from_bytes(self._unread[head - 4 : head], "big")
            if len(self._unread) < size:
                break
            if self.application:
                asked += self._unread[0] in _STATEMENTS
            else:
                self._find_name(bytes(self._unread[:size]))
            del self._unread[:size]
        return asked

    def _find_name(self, first: bytes) -> None:
        """Find the name in the startup packet; a request for encryption may precede it."""
        if struct.unpack("!I", first[4:8])[0] != _STARTUP:
            return
        words = first[8:].split(b"\0")
        named = dict(zip(words[::2], words[1::2], strict=False))
        self.application = named.get(b"application_name", b"(unnamed)").decode()


Chosen: TypeAlias = Callable[[Link], bool]


def everything(_link: Link) -> bool:
    """Choose all connections."""
    return True


def the_session(link: Link) -> bool:
    """Choose the listener's session, not its pool."""
    return link.application.startswith("order-listener session")


class Proxy:
    """Runs in a thread of its own, from `__enter__` to `__exit__`. Every order is carried out before it returns."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._url = parts
        self._links: list[Link] = []
        self._count = self._asked = 0
        self._is_deaf_to_new = False
        self._selector = selectors.DefaultSelector()
        self._orders: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._bell, self._hears = socket.socketpair()
        self._listener = self._listen(0)
        self._port = self._listener.getsockname()[1]
        self._is_over = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> "Proxy":
        self._thread.start()
        return self

    def __exit__(self, *_exc: object) -> None:
        self.do(self._finish)
        self._thread.join(10)
        assert not self._thread.is_alive(), "the proxy did not stop"
        for each in (self._selector, self._bell, self._hears):
            each.close()

    @property
    def url(self) -> str:
        """The address of the same database through the proxy."""
        user = f"{self._url.username}@" if self._url.username else ""
        return urlunsplit(self._url._replace(netloc=f"{user}127.0.0.1:{self._port}"))

    def links(self, chosen: Chosen = everything) -> list[Link]:
        """The connections that stand now."""
        return self.do(lambda: [link for link in self._links if chosen(link)])

    def asked(self) -> int:
        """How many statements have come from the clients since the start."""
        return self.do(lambda: self._asked)

    def go_deaf(self, chosen: Chosen = everything, *, to_new: bool = False) -> int:
        """Make the chosen connections half-open, for good; returns how many. to_new: connections that are made from
        now on get no answer either, until `hear_new`."""

        def order() -> int:
            hit = [link for link in self._links if chosen(link) and not link.is_deaf]
            for link in hit:
                link.is_deaf = True
                self._watch(link)
            if to_new:
                self._is_deaf_to_new = True
                self._watch_listener()
            return len(hit)

        return self.do(order)

    def hear_new(self) -> None:
        """New connections pass again; those that are deaf stay deaf."""

        def order() -> None:
            self._is_deaf_to_new = False
            self._watch_listener()

        self.do(order)

    def cut(self, chosen: Chosen = everything) -> int:
        """Reset the chosen connections on both sides; returns how many."""

        def order() -> int:
            hit = [link for link in self._links if chosen(link)]
            for link in hit:
                self._drop(link)
            return len(hit)

        return self.do(order)

    def refuse(self) -> None:
        """New connections are refused, until `accept`."""
        self.do(self._close_listener)

    def accept(self) -> None:
        """Take connections again, on the same port."""

        def order() -> None:
            self._listener = self._listen(self._port)
            self._watch_listener()

        self.do(order)

    def do(self, order: Callable[[], T]) -> T:
        """Run `order` in the proxy's thread and return what it gave."""
        answer: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._orders.put(lambda: answer.put(order()))
        self._bell.send(b"!")
        return answer.get(timeout=10)

    # What follows runs in the proxy's thread.

    def _run(self) -> None:
        self._selector.register(self._hears, selectors.EVENT_READ)
        self._watch_listener()
        while not self._is_over:
            for key, events in self._selector.select():
                if key.fileobj is self._hears:
                    self._hears.recv(1)
                    self._orders.get()()
                elif key.fileobj is self._listener:
                    self._welcome()
                elif key.data in self._links:  # an order just before may have dropped it
                    self._pump(key.data, key.fileobj, events)

    def _listen(self, port: int) -> socket.socket:
        listener = socket.create_server(("127.0.0.1", port))
        listener.setblocking(False)
        return listener

    def _watch_listener(self) -> None:
        self._register(self._listener, 0 if self._is_deaf_to_new else selectors.EVENT_READ, None)

    def _close_listener(self) -> None:
        self._register(self._listener, 0, None)
        self._listener.close()

    def _welcome(self) -> None:
        try:
            client, _ = self._listener.accept()
        except OSError:
            return
        try:
            server = socket.create_connection(self._target, timeout=5)
        except OSError:  # what stands behind us is down: so are we
            client.close()
            return
        self._count += 1
        for side in (client, server):
            side.setblocking(False)
            side.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        link = Link(self._count, client, server)
        self._links.append(link)
        self._watch(link)

    def _pump(self, link: Link, side: Any, events: int) -> None:
        try:
            if events & selectors.EVENT_WRITE:
                sent = side.send(link.pending[side])
                link.pending[side] = link.pending[side][sent:]
            if events & selectors.EVENT_READ:
                data = side.recv(_CHUNK)
                other = link.peer[side]
                if side is link.client:
                    self._asked += link.look(data)
                link.pending[other] += data
                if not data:
                    link.ended.add(other)
        except BlockingIOError:
            pass
        except OSError:
            self._drop(link)
            return
        if any(not link.pending[each] for each in link.ended):
            self._drop(link, hard=False)  # one side has closed: Postgres knows no half-closed connections
            return
        self._watch(link)

    def _watch(self, link: Link) -> None:
        for side, other in link.peer.items():
            wants_read = not link.pending[other] and other not in link.ended
            events = selectors.EVENT_READ * wants_read | selectors.EVENT_WRITE * bool(link.pending[side])
            self._register(side, 0 if link.is_deaf else events, link)

    def _register(self, side: socket.socket, events: int, data: Any) -> None:
        with suppress(KeyError, ValueError):
            self._selector.unregister(side)
        if events:
            self._selector.register(side, events, data)

    def _drop(self, link: Link, *, hard: bool = True) -> None:
        self._links.remove(link)
        for side in link.peer:
            self._register(side, 0, None)
            if hard:
                side.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            side.close()

    def _finish(self) -> None:
        for link in list(self._links):
            self._drop(link)
        self._close_listener()
        self._is_over = True
        self._selector.unregister(self._hears)

"""For the real adb server: a wire that fails on purpose, and phones with odd handshakes."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time

_CNXN, _AUTH = b"CNXN", b"AUTH"
_TOKEN, _SIGNATURE = 1, 2


def _hang_up(*sockets: socket.socket) -> None:
    """Wake whoever waits on these sockets; each is closed by the thread that reads it."""
    for end in sockets:
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


class Wire:
    """A TCP proxy between the adb server and a phone's adbd.

    Args:
        port: Where adbd listens on 127.0.0.1.
        host: The address to listen on.
    """

    def __init__(self, port: int, host: str = "127.0.0.1") -> None:
        self._port = port
        self._lock = threading.Lock()
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self._damage: tuple[bytes, bytes, str] | None = None
        self._bytes_per_s: float | None = None
        self._damages_left = 0
        self._budget: dict[str, int | None] = {"up": None, "down": None}
        self._whole = True
        self._listener = socket.create_server((host, 0))
        self.port = self._listener.getsockname()[1]
        self.serial = f"{host}:{self.port}"
        threading.Thread(target=self._accept, daemon=True).start()

    def damage(self, old: bytes, new: bytes, times: int, way: str = "up") -> None:
        """Replace ``old`` by ``new`` in the next so many places of what goes to the phone.

        Or of what comes from it, with the way ``down``.
        """
        assert len(old) == len(new)
        self._damage, self._damages_left = (old, new, way), times

    def slow(self, bytes_per_s: float) -> None:
        """Let no more than so much through, each way."""
        self._bytes_per_s = bytes_per_s

    def cut_after(self, up: int | None = None, down: int | None = None) -> None:
        """Cut the wire when so many more bytes have gone to the phone, or come from it."""
        self._budget = {"up": up, "down": down}

    def cut(self) -> None:
        """Cut the wire now; nothing gets through until :meth:`mend`."""
        with self._lock:
            self._whole = False
            pairs, self._pairs = self._pairs, []
        for pair in pairs:
            _hang_up(*pair)

    def mend(self) -> None:
        """Let connections through again."""
        with self._lock:
            self._budget = {"up": None, "down": None}
            self._whole = True

    def close(self) -> None:
        """Cut for good."""
        self.cut()
        _hang_up(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            if not self._whole:
                near.close()
                continue
            far = socket.create_connection(("127.0.0.1", self._port))
            with self._lock:
                self._pairs.append((near, far))
            for source, target, way in ((near, far, "up"), (far, near, "down")):
                threading.Thread(target=self._pump, args=(source, target, way), daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, way: str) -> None:
        with source, contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                if self._bytes_per_s:
                    time.sleep(len(data) / self._bytes_per_s)
                if self._damage and self._damages_left:
                    old, new, damaged = self._damage
                    if way == damaged and old in data:
                        data = data.replace(old, new, 1)
                        self._damages_left -= 1
                if self._spent(way, len(data)):
                    self.cut()
                    break
                target.sendall(data)
            _hang_up(source, target)  # wakes the other pump, which then closes its own source

    def _spent(self, way: str, size: int) -> bool:
        """Count what goes this way; whether that is more than was allowed."""
        with self._lock:
            left = self._budget[way]
            if left is None:
                return False
            self._budget[way] = left - size
            return left < size


class OtherServer:
    """The real adb server behind one that says that it is of another version.

    Args:
        port: Where the real one listens on 127.0.0.1.
        version: What it says.
    """

    def __init__(self, port: int, version: int) -> None:
        self._real, self._version = port, version
        #: Whether somebody told it to end.
        self.killed = False
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        _hang_up(self._listener)
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                near, _ = self._listener.accept()
            except OSError:
                return
            threading.Thread(target=self._talk, args=(near,), daemon=True).start()

    def _talk(self, near: socket.socket) -> None:
        with near, contextlib.suppress(OSError, ValueError):
            head = near.recv(4, socket.MSG_WAITALL)
            request = near.recv(int(head, 16), socket.MSG_WAITALL)
            if request == b"host:version":
                near.sendall(b"OKAY0004%04x" % self._version)
                return
            if request == b"host:kill":
                self.killed = True
                near.sendall(b"OKAY")
                return
            with socket.create_connection(("127.0.0.1", self._real)) as far:
                far.sendall(head + request)
                up = threading.Thread(target=self._hand_on, args=(near, far), daemon=True)
                up.start()
                self._hand_on(far, near)
                up.join()

    @staticmethod
    def _hand_on(source: socket.socket, target: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
        _hang_up(source, target)


class OddPhone:
    """Something on a TCP port that shakes hands with the adb server in its own way.

    Args:
        kind: ``unauthorized`` asks for a key again and again; ``silent`` never answers; anything
            else is the state that its banner claims, such as ``recovery``.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.serial = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self._open: list[socket.socket] = []
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Hang up."""
        _hang_up(self._listener)
        self._listener.close()
        _hang_up(*self._open)

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(connection)
            threading.Thread(target=self._talk, args=(connection,), daemon=True).start()

    def _talk(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError, struct.error):
            while True:
                command, kind, _, size, _, _ = struct.unpack(
                    "<4s5I", connection.recv(24, socket.MSG_WAITALL)
                )
                connection.recv(size, socket.MSG_WAITALL)
                if self._kind == "silent":
                    continue
                if self._kind != "unauthorized":
                    banner = f"{self._kind}::ro.product.name=odd;features=shell_v2,cmd".encode()
                    self._send(connection, _CNXN, 0x01000001, 1 << 20, banner)
                elif command == _CNXN or kind == _SIGNATURE:
                    self._send(connection, _AUTH, _TOKEN, 0, b"\x05" * 20)

    @staticmethod
    def _send(
        connection: socket.socket, command: bytes, first: int, second: int, data: bytes
    ) -> None:
        number = int.from_bytes(command, "little")
        checksum = sum(data) & 0xFFFFFFFF
        connection.sendall(
            struct.pack("<4s5I", command, first, second, len(data), checksum, number ^ 0xFFFFFFFF)
            + data
        )

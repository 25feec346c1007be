"""A serial cable to a simulated radio: the radio does not notice that a program comes or goes.

One connection to the radio lasts as long as the cable, and with it the radio's memory of ids.
What the radio says while no program listens is lost.
"""

import socket
import threading
from contextlib import suppress


class Cable:
    """Listens at `address` and passes bytes on, both ways."""

    def __init__(self, radio_address: str) -> None:
        host, _, port = radio_address.rpartition(":")
        self._radio = socket.create_connection((host, int(port)))
        self._server = socket.create_server((host, 0))
        self.address = f"{host}:{self._server.getsockname()[1]}"
        self._program: socket.socket | None = None
        self._threads = [threading.Thread(target=run) for run in (self._to_radio, self._from_radio)]
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Unplug it at both ends."""
        for end in (self._server, self._radio, self._program):
            if end is not None:
                with suppress(OSError):
                    end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        self._server.close()
        self._radio.close()

    def _to_radio(self) -> None:
        with suppress(OSError):  # closed while it waits
            while True:
                program, _ = self._server.accept()
                self._program = program
                with suppress(ConnectionResetError):
                    while octets := program.recv(4096):
                        self._radio.sendall(octets)
                self._program = None
                program.close()

    def _from_radio(self) -> None:
        with suppress(OSError):
            while octets := self._radio.recv(4096):
                program = self._program
                if program is not None:
                    with suppress(OSError):
                        program.sendall(octets)

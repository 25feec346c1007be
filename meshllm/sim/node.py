"""A simulated radio behind a TCP or serial port, and the ways in which its link can go wrong.

Speaks framing and sockets; what the node says is decided in `phone`. All public methods may be
called from any thread.
"""

import asyncio
import socket
from collections import deque
from pathlib import Path
from typing import Final

import structlog

from meshllm.clock import Clock
from meshllm.sim import wire
from meshllm.sim.air import OnAir
from meshllm.sim.engine import Engine
from meshllm.sim.framing import Deframer, frame
from meshllm.sim.outcome import Outcome
from meshllm.sim.packets import Packet, Port
from meshllm.sim.phone import HandedOver, PhoneSide, Session
from meshllm.sim.serial_port import SerialPort
from meshllm.sim.station import Station

log = structlog.get_logger()

IDLE_CLOSE_S: Final = 900.0  #: a client that says nothing for so long is put out
REBOOT_S: Final = 6.0
LINGER_S: Final = 1.0  #: between the end of what we write and the close, which may reset the link


class _Connection(asyncio.Protocol):
    """One client's socket."""

    def __init__(self, radio: "SimRadio") -> None:
        self.radio = radio
        self.session = Session(radio.phone)
        self.is_dead = False
        self.is_paused = False
        self.last_heard_at = 0.0
        self.raw: deque[bytes] = deque()
        self.transport: asyncio.Transport | None = None
        self._deframer = Deframer()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        # asyncio does this only for sockets made with an explicit protocol number, which
        # create_server does not; without it every other small frame waits 40 ms.
        link = transport.get_extra_info("socket")
        link.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.radio.on_connected(self)

    def connection_lost(self, _exc: Exception | None) -> None:
        self.radio.on_disconnected(self)

    def data_received(self, data: bytes) -> None:
        if self.is_dead:
            return
        for message in self._deframer.feed(data):
            self.radio.on_message(self, message)
        self.radio.flush(self)

    def pause_writing(self) -> None:
        self.is_paused = True

    def resume_writing(self) -> None:
        self.is_paused = False
        self.radio.flush(self)

    def read(self, on: bool) -> None:
        if self.transport is not None and not self.transport.is_closing():
            (self.transport.resume_reading if on else self.transport.pause_reading)()

    def write(self, octets: bytes) -> None:
        if self.transport is not None:
            self.transport.write(octets)

    def drop(self) -> None:
        self.is_dead = True
        if self.transport is not None:
            self.transport.abort()

    def end(self) -> None:
        self.is_dead = True
        if self.transport is not None and not self.transport.is_closing():
            self.transport.write_eof()


_Line = _Connection | SerialPort


class SimRadio:
    """One radio that a bridge connects to, at `address`."""

    def __init__(
        self, name: str, station: Station, engine: Engine, clock: Clock, *, host: str, port: int
    ) -> None:
        """Bind the port; connections are served once the mesh runs."""
        self.name = name
        self.station = station
        self.num = station.num
        self.phone = PhoneSide(station, scale=clock.scale, preset=station.air.preset)
        self.phone.on_news = self._flush_current
        self.junk = b""  #: written in front of every frame while set
        self.connections = 0  #: clients that ever connected
        self._engine = engine
        self._socket: socket.socket | None = socket.create_server((host, port))
        self._host, self._port = self._socket.getsockname()[:2]
        self._accepting: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._current: _Line | None = None
        self._others: list[_Connection] = []
        self._serial_name: Path | None = None
        self._serial_session: Session | None = None
        self._is_plugged = False
        self._waiting: list[_Connection] = []
        self._is_stalled = False
        self._is_closed = False
        self._cut_at: int | None = None

    @property
    def address(self) -> str:
        """Where it listens, as host:port."""
        return f"{self._host}:{self._port}"

    @property
    def node_id(self) -> str:
        """The `!xxxxxxxx` form of its number."""
        return self.station.user.node_id

    @property
    def is_connected(self) -> bool:
        """Say whether a client holds the link."""
        return self._current is not None

    @property
    def received(self) -> tuple[HandedOver, ...]:
        """Every packet that clients wrote, whatever became of it."""
        return self.phone.handed.items()

    @property
    def sent(self) -> tuple[HandedOver, ...]:
        """The packets that the radio took."""
        return tuple(item for item in self.received if item.verdict == "accepted")

    @property
    def on_air(self) -> tuple[OnAir, ...]:
        """Every transmission of this radio, repeats and relayed packets included."""
        return tuple(item for item in self.station.air.log.items() if item.node == self.num)

    def wait_sent(self, count: int, timeout_s: float) -> tuple[HandedOver, ...]:
        """Wait up to that many real seconds until the radio took so many packets; return them."""
        self.phone.handed.wait_until(
            lambda items: sum(item.verdict == "accepted" for item in items) >= count, timeout_s
        )
        return self.sent

    # Faults

    def script_next(self, *outcomes: Outcome) -> None:
        """Set what happens to the next packets that clients hand over, one outcome each."""
        self._engine.call(lambda: self.phone.script.extend(outcomes))

    def inject(self, item: Packet | bytes) -> None:
        """Give the client a packet as it stands, or raw bytes between two frames."""
        if isinstance(item, Packet):
            wire.packet(item)  # what cannot be put on the wire fails here, in the caller's thread
        self._engine.call(lambda: self._inject(item))

    def _inject(self, item: Packet | bytes) -> None:
        if isinstance(item, Packet):
            self.phone.keep(item)
        elif self._current is not None:
            self._current.raw.append(item)
            self.flush(self._current)

    def report_metrics(
        self,
        *,
        battery: int | None = None,
        channel_utilisation: float | None = None,
        own_airtime: float | None = None,
    ) -> None:
        """Let the radio tell its client about itself; the last two are percentages."""
        payload = wire.telemetry_payload(
            battery=battery, channel_utilisation=channel_utilisation, own_airtime=own_airtime
        )
        packet_id = self._engine.call(self.station.new_id)
        self.inject(Packet(sender=self.num, id=packet_id, port=Port.TELEMETRY, payload=payload))

    def set_free(self, free: int | None) -> None:
        """Report so many free places in the send queue; None for the true number."""
        self._engine.call(lambda: setattr(self.phone, "forced_free", free))

    def silence_queue_status(self, is_silent: bool = True) -> None:
        """Stop (or resume) answering packets with a queue state; heartbeats are still answered."""
        self._engine.call(lambda: setattr(self.phone, "is_silent_about_queue", is_silent))

    def stall(self) -> None:
        """Stop serving clients; the connection stays open and the mesh goes on."""
        self._engine.call(self._stall)

    def _stall(self) -> None:
        self._is_stalled = True
        if self._current is not None:
            self._current.read(on=False)

    def resume(self) -> None:
        """Go on after a stall, with whatever clients wrote meanwhile."""
        self._engine.call(self._resume)

    def _resume(self) -> None:
        self._is_stalled = False
        waiting, self._waiting = self._waiting, []
        for connection in waiting:
            self._adopt(connection)
        if self._current is not None:
            if isinstance(self._current, SerialPort):
                self._current.is_dead = False
            self._current.read(on=True)
            self.flush(self._current)

    def serve_serial(self, name: Path) -> Path:
        """Be a radio on a serial port of that name instead of a TCP port; returns the name."""
        self._engine.call(lambda: self._serve_serial(name))
        return name

    def _serve_serial(self, name: Path) -> None:
        self._stop_serving()
        self._serial_name = name
        self._plug()

    def unplug(self) -> None:
        """Pull the serial cable of a radio that has its own power: it keeps what it holds.

        The client's session ends with it. A radio behind a USB converter would not notice, and
        would write to nobody for up to 15 minutes; that is not simulated.
        """
        self._engine.call(self._unplug)

    def _unplug(self) -> None:
        self._is_plugged = False
        if isinstance(self._current, SerialPort):
            self._current.end()
            self._current.drop()
            self._current = None

    def plug(self, name: Path | None = None) -> None:
        """Put the serial cable back in, under the same name or another one."""
        self._engine.call(lambda: self._plug(name))

    def _plug(self, name: Path | None = None) -> None:
        assert self._serial_name is not None, "not a serial radio"
        self._serial_name = name or self._serial_name
        self._is_plugged = True
        if not self.station.is_on or self._current is not None:
            return
        self._serial_session = self._serial_session or Session(self.phone)
        line = SerialPort(
            self._serial_name,
            self._serial_session,
            self._engine.loop,
            on_message=self.on_message,
            on_room=self.flush,
        )
        self._adopt(line)

    def half_open(self) -> None:
        """Lose the other end silently: the link stays open, nothing passes in either direction.

        What the radio writes meanwhile is lost. A new TCP connection works and ends this; a serial
        port needs `resume`.
        """
        self._engine.call(self._half_open)

    def _half_open(self) -> None:
        if self._current is not None:
            self._current.is_dead = True

    def cut(self, *, at_byte: int | None = None) -> None:
        """Close the connection in the middle of a frame: now, or in the next one at that byte."""
        self._engine.call(lambda: self._cut(at_byte))

    def _cut(self, at_byte: int | None) -> None:
        if at_byte is not None:
            self._cut_at = at_byte
        elif self._current is not None:
            whole = frame(wire.queue_status(self.phone.queue_state()))
            self._write(self._current, whole[: len(whole) // 2])
            self._end(self._current)

    def disconnect(self) -> None:
        """Close the connection between two frames."""
        self._engine.call(lambda: self._end(self._current) if self._current else None)

    def _end(self, connection: _Line) -> None:
        if isinstance(connection, SerialPort):
            connection.end()
            return
        # Closing at once would reset a link on which the client just wrote, and with it take away
        # what it has not read yet.
        connection.end()
        if connection is self._current:
            self._current = None
            self._others.append(connection)
        self._engine.call_later(LINGER_S, connection.drop)

    def reboot(self, *, down_s: float = REBOOT_S, keep_link: bool = False) -> None:
        """Restart: kept packets, ids, history and repeats are lost; the port is gone for a while.

        With `keep_link` the line survives, as behind a USB converter, and the client is told.
        """
        self._engine.call(lambda: self._reboot(down_s, keep_link=keep_link))

    def _reboot(self, down_s: float, *, keep_link: bool) -> None:
        self.station.reboot()
        self.phone.reset()
        self._serial_session = None
        self._is_stalled = False
        log.debug("sim_radio_rebooted", node=self.node_id, down_s=down_s)
        if keep_link:
            if self._current is not None:
                self._current.session = Session(self.phone)
                if isinstance(self._current, SerialPort):
                    self._serial_session = self._current.session
                self._current.raw.append(frame(wire.rebooted()))
                self.flush(self._current)
            return
        self.station.is_on = False
        self._stop_serving()
        self._engine.call_later(down_s, self._come_back)

    def _come_back(self) -> None:
        if self._is_closed or self._socket is not None or self._accepting is not None:
            return
        self.station.is_on = True
        if self._serial_name is not None:
            if self._is_plugged:
                self._plug()
            return
        self._socket = socket.create_server((self._host, self._port))
        self.start_serving()

    def switch_off(self) -> None:
        """Cut the power: clients are refused and the mesh does not hear it."""
        self._engine.call(self._switch_off)

    def _switch_off(self) -> None:
        self.station.is_on = False
        self.station.reboot()
        self.phone.reset()
        self._serial_session = None
        self._stop_serving()

    def switch_on(self) -> None:
        """Power up again after `switch_off`."""
        self._engine.call(self._come_back)

    def forget_key(self, num: int) -> None:
        """Lose a node's public key: direct messages to it are refused until it presents itself."""
        self._engine.call(lambda: self.station.forget_key(num))

    def forget(self, num: int) -> None:
        """Lose a node from the list of nodes."""
        self._engine.call(lambda: self.station.forget(num))

    # Service, on the engine's thread

    def start_serving(self) -> None:
        """Accept clients."""
        task = self._engine.loop.create_task(self._serve())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _serve(self) -> None:
        if self._socket is None:
            return  # a serial radio, or one that was stopped before it began
        self._accepting, self._socket = self._socket, None
        mine = self._accepting
        server = await self._engine.loop.create_server(lambda: _Connection(self), sock=mine)
        if mine is self._accepting:
            self._server = server
        else:
            server.close()  # stopped while it was being started

    def _stop_serving(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        if self._socket is not None:
            self._socket.close()
            self._socket = None
        self._accepting = None
        for connection in (self._current, *self._others, *self._waiting):
            if connection is not None:
                connection.drop()
        self._current = None
        self._others, self._waiting = [], []

    def close(self) -> None:
        """Release the port and every connection."""
        self._is_closed = True
        self._stop_serving()

    def on_connected(self, connection: _Connection) -> None:
        """Take in a new client."""
        self.connections += 1
        if self._is_stalled:
            connection.read(on=False)
            self._waiting.append(connection)
        else:
            self._adopt(connection)

    def _adopt(self, connection: _Line) -> None:
        old, self._current = self._current, connection
        if isinstance(old, _Connection):
            self._others.append(old)
        # A link whose other end is gone hears nothing of its successor.
        if old is not None and not old.is_dead:
            log.debug("sim_client_evicted", node=self.node_id)
            self._end(old)
        connection.last_heard_at = self._engine.now()
        connection.read(on=not self._is_stalled)
        self._engine.call_later(IDLE_CLOSE_S, lambda: self._close_if_idle(connection))

    def _close_if_idle(self, connection: _Line) -> None:
        if connection is not self._current or connection.is_dead:
            return
        left = connection.last_heard_at + IDLE_CLOSE_S - self._engine.now()
        if left > 0:
            self._engine.call_later(left, lambda: self._close_if_idle(connection))
        else:
            log.debug("sim_client_idle", node=self.node_id)
            self._end(connection)

    def on_disconnected(self, connection: _Connection) -> None:
        """Forget a client that is gone."""
        if connection is self._current:
            self._current = None
        for group in (self._others, self._waiting):
            if connection in group:
                group.remove(connection)

    def on_message(self, connection: _Line, message: bytes) -> None:
        """Hand a client's message to its session."""
        connection.last_heard_at = self._engine.now()
        if connection is self._current and not connection.is_dead:
            connection.session.handle(message)
            if connection.session.is_over:
                self._end(connection)

    def _flush_current(self) -> None:
        if self._current is not None:
            # Deferred, so that everything read in one piece is acted on before anything is said.
            self._engine.loop.call_soon(self.flush, self._current)

    def flush(self, connection: _Line) -> None:
        """Write what there is for the client, unless the link is in a state that forbids it."""
        while connection is self._current and not (self._is_stalled or connection.is_paused):
            if connection.raw:
                self._write(connection, connection.raw.popleft())
                continue
            message = connection.session.next_message()
            if message is None:
                return
            self._write_frame(connection, frame(message))

    def _write_frame(self, connection: _Line, whole: bytes) -> None:
        if self._cut_at is not None and not connection.is_dead:
            at_byte, self._cut_at = self._cut_at, None
            self._write(connection, whole[:at_byte])
            self._end(connection)
            return
        self._write(connection, self.junk + whole)

    def _write(self, connection: _Line, octets: bytes) -> None:
        if not connection.is_dead:
            connection.write(octets)

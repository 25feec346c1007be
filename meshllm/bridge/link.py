"""Keep one radio connected: connect, probe, notice the loss, start afresh. Sends what it is told.

One thread per radio does every call into the radio, so calls never overlap; what is heard is
passed on from whatever thread it arrives on.
"""

import queue
import threading
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import structlog

from meshllm.clock import Clock
from meshllm.errors import LinkDownError, RadioBusyError
from meshllm.radio.base import (
    LinkLost,
    OutgoingText,
    Radio,
    RadioEvent,
    RadioFactory,
    RadioInfo,
)

log = structlog.get_logger()

PROBE_INTERVAL_S: Final = 30.0  #: silence after which the radio must answer a heartbeat
FIRST_BACKOFF_S: Final = 1.0  #: doubles up to the longest
LONGEST_BACKOFF_S: Final = 30.0  #: also ends the tug-of-war with another client of the same radio
STABLE_S: Final = 60.0  #: a connection that lived this long starts the back-off anew
CONTESTED: Final = 3  #: shorter ones in a row that are worth one line of advice, then silence


@dataclass(frozen=True, slots=True)
class Up:
    """The radio is connected."""

    info: RadioInfo
    session: int


@dataclass(frozen=True, slots=True)
class Down:
    """The radio is not connected (any more); `retry_s` until the next try."""

    cause: str
    retry_s: float


@dataclass(frozen=True, slots=True)
class Heard:
    """Something the radio reported, with the moment it reached us."""

    event: RadioEvent
    at: datetime
    up_s: float
    session: int  #: which connection it came by


@dataclass(frozen=True, slots=True)
class Written:
    """The hand-over was written to the radio just now; its QueueStatus may have come before."""

    packet_id: int


@dataclass(frozen=True, slots=True)
class SendFailed:
    """The hand-over did not happen for certain; `busy`: the radio is up, its queue is full."""

    packet_id: int
    cause: str
    busy: bool


@dataclass(frozen=True, slots=True)
class Refreshed:
    """The radio takes every id again, over the connection that is."""


LinkEvent = Up | Down | Heard | Written | SendFailed | Refreshed


@dataclass(frozen=True, slots=True)
class _Send:
    text: OutgoingText
    session: int


@dataclass(frozen=True, slots=True)
class _Ask:
    number: int
    session: int


@dataclass(frozen=True, slots=True)
class _Refresh:
    cause: str
    session: int


@dataclass(frozen=True, slots=True)
class _End:
    cause: str
    session: int | None = None  #: None: whatever the session
    pause_s: float | None = None  #: before the next connection, where our side ended this one


_Command = _Send | _Ask | _Refresh | _End


class Link:
    """Supervises one radio on its own thread and reports to `deliver`."""

    def __init__(
        self,
        name: str,
        make_radio: RadioFactory,
        deliver: Callable[[LinkEvent], None],
        *,
        clock: Clock,
    ) -> None:
        """Nothing is opened before `start`."""
        self._name = name
        self._make_radio = make_radio
        self._deliver = deliver
        self._clock = clock
        self._commands: queue.SimpleQueue[_Command] = queue.SimpleQueue()
        self._stopping = threading.Event()
        self._session = 0
        self._adopted = 0
        self._backoff_s = FIRST_BACKOFF_S
        self._last_cause = ""
        self._short_lived = 0
        self._node = ""
        self._up_since: float | None = None
        self._thread = threading.Thread(target=self._run, name=f"link {name}", daemon=True)

    def start(self) -> None:
        """Begin to connect."""
        self._thread.start()

    def adopt(self, session: int) -> None:
        """Note whose Up the consumer has seen: its commands are meant for that session alone."""
        self._adopted = session

    def send(self, text: OutgoingText) -> None:
        """Queue one hand-over. It ends in Written, SendFailed or Down, the last two being unknown.

        One that outlives its session is dropped: the consumer resumes it after the next Up.
        """
        self._commands.put(_Send(text, self._adopted))

    def ask_user(self, number: int) -> None:
        """Queue a request for a node's node info. Harmless when it fails; nothing is delivered."""
        self._commands.put(_Ask(number, self._adopted))

    def refresh(self, cause: str) -> None:
        """Make the radio take known ids again: ends in Refreshed, or in Down and Up.

        Over TCP a fresh connection does it; on the other links the radio remembers ids over
        connections and is made to forget them.
        """
        self._commands.put(_Refresh(cause, self._adopted))

    def drop(self, cause: str, *, pause_s: float) -> None:
        """End this connection; the next one is made after `pause_s`."""
        self._commands.put(_End(cause, self._adopted, pause_s))

    def stop(self, limit_s: float) -> None:
        """End the connection and the thread, within `limit_s` real seconds."""
        self._stopping.set()
        self._commands.put(_End("stopping"))
        if self._thread.is_alive():
            self._thread.join(limit_s)

    def _run(self) -> None:
        while not self._stopping.is_set():
            self._session += 1
            self._up_since = None
            try:
                end = self._live()
            except LinkDownError as error:
                end = _End(str(error))
            except Exception as error:
                log.exception("link_crashed", radio=self._name, consequence="connecting again")
                end = _End(repr(error))
            self._rest(end)

    def _live(self) -> _End:
        radio = self._make_radio(self._emitter(self._session))
        try:
            info = radio.connect()
            if self._stopping.is_set():
                return _End("stopping")
            self._up_since = self._clock.monotonic()
            self._node = f"!{info.number:08x}"
            if self._short_lived < CONTESTED:
                self._log_up()
            self._last_cause = ""
            self._deliver(Up(info, self._session))
            return self._serve(radio)
        finally:
            radio.close()

    def _serve(self, radio: Radio) -> _End:
        next_probe = self._clock.monotonic() + PROBE_INTERVAL_S
        while True:
            wait_s = (next_probe - self._clock.monotonic()) / self._clock.scale
            try:
                command = self._commands.get(timeout=max(0.0, wait_s))
            except queue.Empty:
                radio.probe()
                self._note_stable()
                next_probe = self._clock.monotonic() + PROBE_INTERVAL_S
                continue
            if command.session not in (None, self._session):
                continue
            end = self._obey(radio, command)
            if end is not None:
                return end

    def _obey(self, radio: Radio, command: _Command) -> _End | None:
        if isinstance(command, _Send):
            self._send(radio, command.text)
        elif isinstance(command, _Ask):
            self._ask(radio, command.number)
        elif isinstance(command, _End):
            return command
        elif radio.kind == "tcp":
            return _End(command.cause, command.session, pause_s=0.0)
        else:
            radio.forget_ids()
            log.info("ids_forgotten", radio=self._name, reason=command.cause)
            self._deliver(Refreshed())
        return None

    def _ask(self, radio: Radio, number: int) -> None:
        node = f"!{number:08x}"
        try:
            radio.request_user(number)
        except RadioBusyError as error:
            log.warning("user_not_requested", radio=self._name, node_id=node, reason=str(error))
        else:
            log.debug("user_requested", radio=self._name, node_id=node)

    def _note_stable(self) -> None:
        """Tell of the end of a contest, in which connections come without a line."""
        since = self._up_since
        if since is not None and self._clock.monotonic() - since > STABLE_S:
            if self._short_lived >= CONTESTED:
                self._log_up()
            self._short_lived = 0

    def _log_up(self) -> None:
        log.info("link_up", radio=self._name, node_id=self._node, session=self._session)

    def _send(self, radio: Radio, text: OutgoingText) -> None:
        try:
            radio.send(text)
        except RadioBusyError as error:
            self._deliver(SendFailed(text.packet_id, str(error), busy=True))
        except LinkDownError as error:
            self._deliver(SendFailed(text.packet_id, str(error), busy=False))
            raise
        else:
            self._deliver(Written(text.packet_id))

    def _emitter(self, session: int) -> Callable[[RadioEvent], None]:
        def emit(event: RadioEvent) -> None:
            if isinstance(event, LinkLost):
                self._commands.put(_End(event.cause, session))
                return
            up_s = round(self._clock.monotonic() / self._clock.scale, 3)
            self._deliver(Heard(event, self._clock.utc(), up_s, session))

        return emit

    def _rest(self, end: _End) -> None:
        if self._stopping.is_set():
            return
        self._count(end)
        wait_s = self._backoff_s if end.pause_s is None else end.pause_s
        self._deliver(Down(end.cause, wait_s))
        self._log_end(end, wait_s)
        if end.pause_s is None:
            self._backoff_s = min(self._backoff_s * 2, LONGEST_BACKOFF_S)
        self._stopping.wait(wait_s / self._clock.scale)

    def _count(self, end: _End) -> None:
        since = self._up_since
        if since is None:
            return
        if self._clock.monotonic() - since > STABLE_S:
            self._backoff_s = FIRST_BACKOFF_S
            self._short_lived = 0
        if end.pause_s is None:
            self._short_lived += 1

    def _log_end(self, end: _End, wait_s: float) -> None:
        """Write one line per outage and cause, however long it lasts or often it comes back."""
        if end.pause_s is not None:
            log.info("link_dropped", radio=self._name, reason=end.cause, retry_in_s=wait_s)
            return
        if end.cause == self._last_cause:
            return
        self._last_cause = end.cause
        if self._up_since is None or self._short_lived < CONTESTED:
            log.warning("link_down", radio=self._name, reason=end.cause, retry_in_s=wait_s)
        elif self._short_lived == CONTESTED:
            log.warning(
                "link_contested",
                radio=self._name,
                reason=end.cause,
                consequence="not logged again until a connection lasts a minute",
                advice="a radio serves one client at a time: look for another program or phone "
                "on it, or for a radio that keeps restarting",
            )

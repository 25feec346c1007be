"""A private message bus: Debian's dbus-daemon on a socket of its own. Never the computer's bus."""

import shutil
import subprocess
import tempfile
from pathlib import Path
from types import TracebackType
from typing import Final, Self

PROGRAM: Final = "dbus-daemon"
STOP_S: Final = 5.0  #: until it is killed
_CONFIG: Final = """<!DOCTYPE busconfig PUBLIC "-//freedesktop//DTD D-Bus Bus Configuration 1.0//EN"
 "http://www.freedesktop.org/standards/dbus/1.0/busconfig.dtd">
<busconfig>
  <listen>unix:path={socket}</listen>
  <auth>EXTERNAL</auth>
  <policy context="default">
    <allow own="*"/>
    <allow send_destination="*"/>
    <allow receive_sender="*"/>
  </policy>
</busconfig>
"""


class PrivateBus:
    """A bus that lives as long as the `with` block, at `address`."""

    def __init__(self) -> None:
        """Prepare; the daemon starts on entering."""
        self.address = ""
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._process: subprocess.Popen[bytes] | None = None

    @staticmethod
    def is_available() -> bool:
        """Say whether the daemon is installed (Debian: package dbus-daemon)."""
        return shutil.which(PROGRAM) is not None

    def __enter__(self) -> Self:
        """Start the daemon and wait until it listens."""
        self._folder = tempfile.TemporaryDirectory(prefix="meshllm-bus-")
        folder = Path(self._folder.name)
        config = folder / "bus.conf"
        config.write_text(_CONFIG.format(socket=folder / "socket"), encoding="utf-8")
        program = shutil.which(PROGRAM) or PROGRAM
        self._process = subprocess.Popen(  # noqa: S603 - our own configuration
            [program, f"--config-file={config}", "--nofork", "--nopidfile", "--print-address"],
            stdout=subprocess.PIPE,
        )
        assert self._process.stdout is not None
        self.address = self._process.stdout.readline().decode().strip()
        if not self.address:
            self.__exit__(None, None, None)
            raise RuntimeError(f"{PROGRAM} did not start")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop the daemon and remove its folder."""
        process, self._process = self._process, None
        if process is not None:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            if process.stdout is not None:
                process.stdout.close()
        if self._folder is not None:
            self._folder.cleanup()

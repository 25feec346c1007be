"""The exception tree, sorted by who acts, and the exit codes. Holds no handling of any kind."""

from collections.abc import Sequence
from enum import IntEnum


class ExitCode(IntEnum):
    """Exit codes of every program here. `run.sh` restarts only after BUG or a signal."""

    OK = 0
    BUG = 1  #: an unexpected error or one that may pass; the reason is in the log
    USAGE = 2  #: wrong command line
    NO_ANSWER = 3  #: `demo --say` waited in vain
    CONFIG = 4  #: settings or a folder stop the start; a restart would meet them again
    ALREADY_RUNNING = 5  #: another process holds the data folder
    FOUND_TROUBLE = 6  #: `doctor` found something that fails, or could not mend it


class MeshllmError(Exception):
    """Root of everything this project raises on purpose."""


class UserError(MeshllmError):
    """The operator must act: shown without a traceback, every problem at once."""

    exit_code = ExitCode.CONFIG

    def __init__(self, message: str, problems: Sequence[str] = ()) -> None:
        """Keep the headline and the list of problems, one line each."""
        super().__init__(message)
        self.problems = tuple(problems)

    def __str__(self) -> str:
        """Render the headline and each problem on its own line."""
        return "\n  ".join((super().__str__(), *self.problems))


class AlreadyRunningError(UserError):
    """Another process of this kind holds the same data folder."""

    exit_code = ExitCode.ALREADY_RUNNING


class TransientError(MeshllmError):
    """Worth trying again later; the caller owns the back-off."""


class PermanentError(MeshllmError):
    """Trying again cannot help; the caller settles the item as failed."""


class LockTimeoutError(TransientError):
    """A sidecar lock was not free within its timeout; nothing was written."""


class StoreWriteError(TransientError):
    """The file system refused a write (full, read-only, no permission); the old file is intact."""


class DamagedFileError(TransientError):
    """A table on disk is not well formed; it is not written before it has been repaired."""


class NotRegularError(DamagedFileError):
    """A folder, a link, a FIFO or the like stands where a table should be."""


class LinkDownError(TransientError):
    """The radio link is not up; nothing was handed over."""


class ModelUnavailableError(TransientError):
    """The model server did not answer in a usable way."""


class RadioBusyError(TransientError):
    """The radio is up but takes nothing more for now; nothing was handed over."""

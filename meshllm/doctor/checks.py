"""Which checks there are, in the order in which they are shown. Checks nothing itself."""

from collections.abc import Mapping
from pathlib import Path
from typing import Final

from meshllm.app import layout_of
from meshllm.doctor import basics, clocks, contents, model, prompts, radios, storage, system
from meshllm.doctor.findings import Check, Finding, info, run
from meshllm.doctor.place import Place

PYPROJECT: Final = Path(__file__).resolve().parents[2] / "pyproject.toml"


def diagnose(
    config_file: Path, environ: Mapping[str, str], *, must_exist: bool = False
) -> list[Finding]:
    """Look at everything. With settings that cannot be read, at what needs none."""
    loaded, found = basics.read_settings(config_file, environ, must_exist=must_exist)
    checks = [Check("python", "Python", lambda: basics.python(PYPROJECT))]
    if loaded is None:
        note = info("settings", "radios, model and files are looked at once the settings are right")
        return [*found, note, *run(checks)]
    place = Place(loaded.settings, layout_of(loaded.settings), config_file)
    return [*found, *run([*checks, *families(place)])]


def families(place: Place) -> list[Check]:
    """Checks of one installation."""
    return [
        Check("radios", "the radios", lambda: radios.look(place)),
        Check("model", "the model", lambda: model.look(place)),
        Check("disk", "the disk", lambda: storage.disk(place)),
        Check("files", "the files", lambda: contents.look(place)),
        Check("permissions", "owners and modes", lambda: storage.permissions(place)),
        Check("locks", "the locks", lambda: storage.locks(place)),
        Check("clock", "the clock", lambda: clocks.look(place)),
        Check("prompts", "the prompt log", lambda: prompts.look(place)),
        Check("system", "the system", lambda: system.look(place)),
    ]

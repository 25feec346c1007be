"""Runs a script like counted.py, with every text noted that the radio library calls back with."""

import runpy
import sys
import time
from collections.abc import Mapping
from pathlib import Path

RECEIVED = "received"


def _note_texts(notes: list[str]) -> None:
    from meshllm.radio import device  # noqa: PLC0415 - only the bridge needs it

    original = device._on_receive

    def on_receive(packet: Mapping[str, object], interface: object) -> None:
        decoded = packet.get("decoded")
        if isinstance(decoded, Mapping) and decoded.get("portnum") == "TEXT_MESSAGE_APP":
            notes.append(f"{time.clock_gettime(time.CLOCK_BOOTTIME):.6f} {RECEIVED}\n")
        original(packet, interface)

    device._on_receive = on_receive


if __name__ == "__main__":
    here = Path(__file__).resolve().parent
    counted = runpy.run_path(str(here / "counted.py"))
    if Path(sys.argv[2]).name == "meshtastic_bridge.py":
        sys.path.insert(0, str(here.parent))
        _note_texts(counted["_notes"])
    counted["_main"]()

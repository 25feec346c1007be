"""Start the bridge: everything the radio hears into CSV files, everything queued onto the air."""

import sys
from pathlib import Path

from meshllm.app import main
from meshllm.bridge.service import BridgeService

if __name__ == "__main__":
    sys.exit(
        main(
            "bridge",
            BridgeService,
            lambda files: files.bridge_lock,
            argv=sys.argv[1:],
            root=Path(__file__).resolve().parent,
        )
    )

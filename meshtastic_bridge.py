"""Start the bridge: everything the radio hears into CSV files, everything queued onto the air."""

import sys
from pathlib import Path

from meshllm.startup import leave_on_signal

if __name__ == "__main__":
    leave_on_signal()  # before the slow imports

    from meshllm.app import main
    from meshllm.bridge.service import BridgeService

    sys.exit(
        main(
            "bridge",
            BridgeService,
            lambda files: files.bridge_lock,
            argv=sys.argv[1:],
            root=Path(__file__).resolve().parent,
        )
    )

"""Start the agent: questions found in the CSV files to the model, answers queued back into them."""

import sys
from pathlib import Path

from meshllm.startup import leave_on_signal

if __name__ == "__main__":
    leave_on_signal()  # before the slow imports

    from meshllm.agent.process import build_agent
    from meshllm.app import main

    sys.exit(
        main(
            "agent",
            build_agent,
            lambda files: files.agent_lock,
            argv=sys.argv[1:],
            root=Path(__file__).resolve().parent,
        )
    )

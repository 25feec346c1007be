"""Publishes in a process that dies, as by SIGKILL, before the k-th rename in a folder."""

import os
import sys
from pathlib import Path

from meshllm.config import Settings
from meshllm.layout import Layout
from meshllm.site.publish import Publisher

DIED = 9


def main(root: Path, to: Path, theme: Path, survivors: int) -> None:
    left = [survivors]
    real = os.rename

    def rename(source: str, target: str, **where: int) -> None:
        folder = Path(f"/proc/self/fd/{where['dst_dir_fd']}").readlink()
        if folder.is_relative_to(to):
            if not left[0]:
                os._exit(DIED)
            left[0] -= 1
        real(source, target, **where)

    os.rename = rename  # type: ignore[assignment]
    layout = Layout(root / "data", root / "data/nodes", root / "prompts")
    Publisher(layout, Settings(publish_channels=("LongFast",)), theme, to).run(())


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))

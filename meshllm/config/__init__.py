"""Settings: config.yaml, `.env` and the environment as one frozen value. Acts on none of them."""

from meshllm.config.documents import dump, reference
from meshllm.config.links import Link, LinkKind, parse_link
from meshllm.config.loading import Loaded, load
from meshllm.config.settings import Radio, Settings, default_path

__all__ = [
    "Link",
    "LinkKind",
    "Loaded",
    "Radio",
    "Settings",
    "default_path",
    "dump",
    "load",
    "parse_link",
    "reference",
]

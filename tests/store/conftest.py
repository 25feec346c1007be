"""What all store tests share: one row as a starting point."""

import pytest

from meshllm.records import Message


@pytest.fixture
def row() -> Message:
    return Message(
        thread_type="dm",
        thread_key="!a1b2c3d4",
        message_id="1000",
        direction="queued",
        sender_id="!11223344",
        timestamp="2025-01-01T00:00:00Z",
        content="boil the water",
    )

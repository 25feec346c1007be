"""Words of the lines that tell a person why no answer comes. Decides nothing, writes nothing."""

import re
from typing import Final

LIMIT: Final = "limit"  #: notice kind: this person had the answers of an hour
DOWNGRADED: Final = "downgraded"  #: notice kind: a message came without the key used before
ENDLESS_REPLIES: Final = "endless_replies"  #: notice kind: only replies came, as from a machine
#: Reply to a question that waited in the queue for too long; it closes the question.
WAITED_TOO_LONG: Final = (
    "Too many people are asking now, and your question waited too long. Please ask again later."
)
_DOWNGRADED_TEXT: Final = (
    "Your message came without the key that you used before, so it is not answered. "
    "Open this node in your app to exchange keys, then send it again."
)
_ENDLESS_TEXT: Final = (
    "So many replies in a row look like another machine's. "
    "To go on, write a message that is no reply."
)
_FIXED: Final = frozenset({WAITED_TOO_LONG, _DOWNGRADED_TEXT, _ENDLESS_TEXT})
_LIMIT: Final = re.compile(r"You had \d+ answers? within an hour\b")


def limit_text(limit: int, left_s: float) -> str:
    """Say that the limit for one person is reached, and when the next answer may come."""
    answers = "1 answer" if limit == 1 else f"{limit} answers"
    minutes = max(1, -int(-left_s // 60))
    return f"You had {answers} within an hour, the most for one person. Next in {minutes} min."


def downgraded_text() -> str:
    """Say that a message without the known key is not answered, and what helps."""
    return _DOWNGRADED_TEXT


def endless_text() -> str:
    """Say how a person who was taken for a machine goes on."""
    return _ENDLESS_TEXT


def is_fixed_line(text: str) -> bool:
    """True for what this module of another librarian would say."""
    return text in _FIXED or _LIMIT.match(text) is not None

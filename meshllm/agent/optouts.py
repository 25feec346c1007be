"""Who wants nothing but answers: read out of the rows, live and archived. Keeps no state of it."""

from collections.abc import Sequence

from meshllm.agent.threads import Thread
from meshllm.commands.parts import has_opted_out
from meshllm.layout import NodeTree
from meshllm.records import Message
from meshllm.store.rotate import history
from meshllm.store.table import Table


class OptOuts:
    """Answers whether somebody said `stop` and not `start` since. Raises TransientError."""

    def __init__(self) -> None:
        """Remember nothing but what old rows said, until rows move to the archive again."""
        self._archived: dict[tuple[object, ...], bool] = {}

    def wants_silence(self, thread: Thread, rows: Sequence[Message], person: str) -> bool:
        """Say whether a person wants no notices here.

        `stop` counts where it was said, and said in a direct message it counts on channels too.
        Only direct threads are followed into the archive: those of channels are long.
        """
        said = has_opted_out(rows, person)
        if said is not None:
            return said
        if thread.path.parent == thread.tree.dms:
            return self._in_archive(thread.tree, thread.table, rows, person)
        table = Table(thread.tree.dm_thread(person), Message)
        direct = table.read().rows
        said = has_opted_out(direct, person)
        return self._in_archive(thread.tree, table, direct, person) if said is None else said

    def _in_archive(
        self, tree: NodeTree, table: Table[Message], rows: Sequence[Message], person: str
    ) -> bool:
        # Rows leave a live file at its front: with the same first row nothing has moved.
        key = (table.path, rows[0].key if rows else ())
        if key not in self._archived:
            if len(self._archived) > 1000:
                self._archived.clear()
            shelf = tree.shelf(table.path)
            old = tuple(history(table, shelf)) if shelf.parts() else ()
            self._archived[key] = bool(has_opted_out(old, person))
        return self._archived[key]

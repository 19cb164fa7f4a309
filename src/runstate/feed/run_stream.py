"""The stream of the transitions of one run."""

from collections.abc import AsyncGenerator
from contextlib import aclosing
from functools import partial
from uuid import UUID

from typing_extensions import override

from runstate.documents.states import FINAL_TYPES, RunKind
from runstate.errors import NotFound
from runstate.feed.cursor import Position
from runstate.feed.feed import Feed
from runstate.feed.filter import TransitionFilter
from runstate.feed.history import ROWS, RunHistoryPage, run_history_page
from runstate.feed.reader import Page
from runstate.feed.streams import Stream
from runstate.rows import Transition


async def follow_run(
    feed: Feed, kind: RunKind, run_id: UUID, version: int = 0, *, until_final: bool = False
) -> AsyncGenerator[RunHistoryPage, None]:
    """Return a stream of the transitions of one run after a version.

    The stream ends with the deletion of the run and, with `until_final`, in a final state. The first page is sent at
    once and may be empty. Raises NotFound, before the stream is returned, if the run is unknown.
    """
    hub = feed.transitions
    past = await hub.with_timeout(partial(run_history_page, hub.database.subscriptions, kind, run_id, version))
    return RunStream(feed, kind, run_id, until_final=until_final).after(past)


class RunStream(Stream[Transition, RunHistoryPage]):
    """The transitions of one run."""

    version: int
    is_final: bool

    def __init__(self, feed: Feed, kind: RunKind, run_id: UUID, *, until_final: bool) -> None:
        super().__init__(feed.transitions, TransitionFilter(run_ids=frozenset({run_id})))
        self.deletions = feed.deletions
        self.kind = kind
        self.run_id = run_id
        self.until_final = until_final
        self.is_deleted = False
        self.is_last_poll = False
        """Whether the log was polled after the deletion of the run."""

    @override
    async def after(self, first: RunHistoryPage) -> AsyncGenerator[RunHistoryPage, None]:
        run, _ = ROWS[self.kind]
        with self.deletions.watch(run, self.run_id, self._delete):
            async with aclosing(super().after(first)) as parts:
                async for part in parts:
                    yield part

    def _delete(self) -> None:
        self.is_deleted = True
        self.subscriber.has_news.set()

    @override
    async def _step(self, deadline: float) -> RunHistoryPage | None:
        if self.is_deleted and not self.is_last_poll:
            # Transitions committed before the deletion may not have been read yet.
            await self.hub.join()
            self.is_last_poll = True
            return None
        return await super()._step(deadline)

    @override
    def _advance(self, part: RunHistoryPage) -> None:
        self.version = part.version
        self.is_final = part.is_final

    @override
    def _resume_point(self) -> str:
        return str(self.version)

    @override
    def _has_entries(self, part: RunHistoryPage) -> bool:
        return bool(part.transitions)

    @override
    def _is_over(self) -> bool:
        if self.is_last_poll:
            return self.subscriber.is_idle and not self.catching_up
        # A run can leave its final state, so entries that wait are read first.
        nothing_missed = not self.subscriber.pages and not self.subscriber.overflowed_at
        return self.until_final and self.is_final and nothing_missed

    @override
    def _catch_up(self, end: Position) -> bool:
        # The progress is a version, which cannot be compared with a position of the log.
        return True

    @override
    async def _read(self) -> RunHistoryPage:
        try:
            past = await run_history_page(self.hub.database.subscriptions, self.kind, self.run_id, self.version)
        except NotFound:
            # The run was deleted, and its transitions were pruned from the log.
            past = RunHistoryPage([], self.version, is_final=True)
            self._delete()
        self.catching_up = not past.complete
        return past

    @override
    def _part(self, page: Page[Transition]) -> RunHistoryPage:
        # The hub can offer transitions that the history contained already.
        new = [entry for entry in page.entries if entry.version > self.version]
        if not new:
            return RunHistoryPage([], self.version, self.is_final)
        return RunHistoryPage(new, new[-1].version, new[-1].state_type in FINAL_TYPES)

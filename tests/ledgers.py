"""A ledger without a connection: what it would acknowledge, and what its source would hear."""

from __future__ import annotations

from collections.abc import Callable

from rxflow.delivery import Ledger


class Linked(Ledger):
    """A ledger whose link takes at once what is ready.

    Args:
        acknowledge: Called with the packet ids that one `settle` freed, in order.
        wake: As for `Ledger`.
        failed: Called with the error of a sink, the first.
        complete: Called with packet ids whose PUBCOMP may leave.
    """

    def __init__(
        self,
        acknowledge: Callable[[list[int]], object],
        wake: Callable[[], object] = lambda: None,
        failed: Callable[[Exception], object] = lambda _: None,
        complete: Callable[[list[int]], object] = lambda _: None,
    ) -> None:
        super().__init__(wake)
        self._acknowledge = acknowledge
        self._failed = failed
        self._complete = complete

    def settle(self) -> None:
        super().settle()
        self._take()

    def finish(self) -> None:
        super().finish()
        self._take()

    def fail(self, error: Exception) -> None:
        if self.failure is None:
            super().fail(error)
            self._failed(error)

    def _take(self) -> None:
        ready, completed = self.take()
        if ready:
            self._acknowledge(ready)
        if completed:
            self._complete(completed)

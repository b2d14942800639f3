"""Signals of the process while a run lasts: the first stops it, the second aborts it."""

from __future__ import annotations

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Generator
from typing import Final, Protocol

_ABORTED_BY_SIGTERM: Final = 128 + signal.SIGTERM


class Stoppable(Protocol):
    """A run, as a signal sees it."""

    def stop(self, why: str) -> None:
        """End it, and drain; on the loop."""
        ...

    def interrupt(self) -> None:
        """End the read pass under way, so that the loop hears of the signal soon."""
        ...

    def abort(self) -> None:
        """Don't drain, don't wait for what closes slowly."""
        ...


@contextlib.contextmanager
def no_signals(_: Stoppable) -> Generator[None]:
    """Leave signals to the program."""
    yield


@contextlib.contextmanager
def signals(one: Stoppable) -> Generator[None]:
    """The first SIGINT or SIGTERM stops the run, the second aborts it."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    loop = asyncio.get_running_loop()
    task = asyncio.current_task()
    seen: list[int] = []  # by the loop
    arrived: list[int] = []
    has_raised = False

    def receive(number: signal.Signals) -> None:
        if has_raised:
            return
        seen.append(number)
        if len(seen) == 1:
            one.stop(number.name)
        elif task:
            one.abort()
            task.cancel()

    def interrupt(number: int, _: object) -> None:
        nonlocal has_raised
        arrived.append(number)
        one.interrupt()
        if len(arrived) > 1 and not seen:  # code of the user's keeps the loop from seeing any
            has_raised = True
            one.abort()
            raise _aborted(number)

    try:
        with _installed(loop, receive, interrupt):
            yield
    except asyncio.CancelledError:
        if len(seen) > 1:
            raise _aborted(seen[-1]) from None
        raise


@contextlib.contextmanager
def _installed(
    loop: asyncio.AbstractEventLoop,
    receive: Callable[[signal.Signals], None],
    interrupt: Callable[[int, object], None],
) -> Generator[None]:
    """Have a signal call `interrupt` at once and `receive` on the loop, then be as before."""
    earlier = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    for number in earlier:
        loop.add_signal_handler(number, receive, number)  # wakes the loop
        signal.signal(number, interrupt)
    try:
        yield
    finally:
        for number, handler in earlier.items():
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL if handler is None else handler)


def _aborted(number: int) -> BaseException:
    return KeyboardInterrupt() if number == signal.SIGINT else SystemExit(_ABORTED_BY_SIGTERM)

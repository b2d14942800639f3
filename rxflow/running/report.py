"""The figures of a run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rxflow.delivery import Ledger
from rxflow.log import number_of
from rxflow.running.sinks import Sinks


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run, at its end or so far; `str` is one line.

    `received` is the sum of `stored`, `filtered`, `rejected`, `unacknowledged` and `held`. Of QoS 0
    what is not stored yet counts as filtered: such a message has no delivery.

    Attributes:
        received: Messages of MQTT sources; of a pipeline without one, what it stored or rejected.
        stored: Of these, those that a sink has made durable.
        filtered: Those that the pipeline's operators let go (filter, debounce, a reduction).
        rejected: Those that went to a `rejected=` sink.
        unacknowledged: Those that the broker sends again (QoS 1 and 2).
        commits: Times that the sinks wrote and synced.
        bytes: Of rows, written by the sinks.
        seconds: From start to end.
        held: Those that are in the pipeline still; none at the end.
    """

    received: int
    stored: int
    filtered: int
    rejected: int
    unacknowledged: int
    commits: int
    bytes: int
    seconds: float
    held: int = 0

    def __str__(self) -> str:
        commits, written = number_of(self.commits, "commit"), number_of(self.bytes, "byte")
        return (
            f"received {self.received:,}, stored {self.stored:,}, filtered {self.filtered:,}, "
            f"rejected {self.rejected:,}, unacknowledged {self.unacknowledged:,}"
            f"{f', held {self.held:,}' if self.held else ''}; "
            f"{commits}, {written}, {self.seconds:.1f} s"
        )


def counted(ledgers: Sequence[Ledger], sinks: Sinks, seconds: float, *, is_over: bool) -> Report:
    """The figures of a run as its sources and sinks have them now. On any thread.

    Args:
        ledgers: Of the sources.
        sinks: All of the run.
        seconds: Since it began.
        is_over: What is held still, stays unacknowledged.
    """
    aside = sinks.rejected
    # What became of messages before how many came: on another thread, meanwhile more come.
    let_go = sum(ledger.let_go for ledger in ledgers)
    stored1 = sum(ledger.stored for ledger in ledgers)
    stored0 = sum(ledger.stored0 for ledger in ledgers)
    held = 0 if is_over else sum(ledger.unsettled for ledger in ledgers)
    received1 = sum(ledger.received for ledger in ledgers)
    received0 = sum(ledger.received0 for ledger in ledgers)
    left = received1 - stored1 - let_go
    received, stored = received1 + received0, stored1 + stored0
    if not ledgers:
        received = stored = sinks.rows
    # A QoS 0 message that two sinks stored is counted twice: it has no delivery of its own.
    stored = min(stored, received - left)
    rejected = min(aside, stored)  # beside a source, plain values don't count
    stored -= rejected
    held = min(held, left)
    return Report(
        received=received,
        stored=stored,
        filtered=received - stored - rejected - left,
        rejected=rejected,
        unacknowledged=left - held,
        commits=sinks.commits,
        bytes=sinks.bytes,
        seconds=seconds,
        held=held,
    )

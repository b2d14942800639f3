"""What a run did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


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
        return (
            f"received {self.received:,}, stored {self.stored:,}, filtered {self.filtered:,}, "
            f"rejected {self.rejected:,}, unacknowledged {self.unacknowledged:,}"
            f"{f', held {self.held:,}' if self.held else ''}; "
            f"{self.commits:,} commits, {self.bytes:,} bytes, {self.seconds:.1f} s"
        )

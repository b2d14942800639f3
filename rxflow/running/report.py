"""What a run did, in numbers."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Report:
    """The figures of one run; `str` is one line.

    Attributes:
        received: Messages of MQTT sources; of a pipeline without one, what it stored or set aside.
        stored: Of these, those that a sink has made durable.
        let_go: Those that the pipeline's operators dropped (filter, debounce, a reduction).
        set_aside: Those that went to a `rejected=` sink.
        left: Those that are left to the broker, which sends them again (QoS 1 and 2).
        commits: Times that the sinks wrote and synced.
        bytes: Of rows, written by the sinks.
        seconds: From start to end.
    """

    received: int
    stored: int
    let_go: int
    set_aside: int
    left: int
    commits: int
    bytes: int
    seconds: float

    def __str__(self) -> str:
        return (
            f"received {self.received:,}, stored {self.stored:,}, let go {self.let_go:,}, "
            f"set aside {self.set_aside:,}, left to the broker {self.left:,}; "
            f"{self.commits:,} commits, {self.bytes:,} bytes, {self.seconds:.1f} s"
        )

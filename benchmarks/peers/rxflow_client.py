"""rxflow: receive, the whole job, buffers, several pipelines, the start."""

import time

BEGAN = time.monotonic()

import sys  # noqa: E402 (the import of rxflow is measured)
from pathlib import Path  # noqa: E402
from typing import Any  # noqa: E402

from reactivex import Observable, abc  # noqa: E402
from shared import Task, done, fahrenheit  # noqa: E402

from rxflow import JsonSink, Message, from_mqtt, run  # noqa: E402
from rxflow import operators as ops  # noqa: E402

IMPORTED = time.monotonic()


def main() -> None:
    """Do what the command line says."""
    task = Task.from_arguments()
    MODES[task.mode](task)


def source(task: Task, **settings: Any) -> Observable[Message[bytes]]:
    """What the feeder sends."""
    version = "5" if task.version == 5 else "3.1.1"  # noqa: PLR2004
    url = f"mqtt://127.0.0.1:{task.port}?version={version}"
    return from_mqtt(url, "bench/#", qos=task.qos, **settings)


class Counting(abc.ObserverBase[Any]):
    """A user's observer: it counts, and says when it has them all."""

    def __init__(self, count: int) -> None:
        self._left = count

    def on_next(self, value: Any) -> None:
        del value
        self._left -= 1
        if not self._left:
            done()

    def on_error(self, error: Exception) -> None:
        raise error

    def on_completed(self) -> None:
        """Nothing to close."""


def receive(task: Task) -> None:
    """Call a user's observer, and no more."""
    run(source(task), Counting(task.count), log=False)


def job(task: Task) -> None:
    """Decode, filter, compute, store durably, acknowledge."""
    run(_job(source(task), task.count), JsonSink(task.path), log=False)
    done()


def _job(numbers: Observable[Message[bytes]], count: int) -> Observable[Any]:
    return numbers.pipe(
        ops.decode_json(),
        ops.filter(lambda m: m.payload["celsius"] > -40),  # noqa: PLR2004
        ops.map(lambda m: fahrenheit(m.payload)),
        ops.take(count),
    )


def buffered(task: Task) -> None:
    """Collect `extra` messages before they go into the file."""
    numbers = source(task, max_pending=65_535).pipe(
        ops.decode_json(), ops.take(task.count), ops.buffer_with_count(task.extra)
    )
    run(numbers, JsonSink(task.path), log=False)
    done()


def windows(task: Task) -> None:
    """One-second windows, each stored; done after `extra` seconds with the number of rows."""
    numbers = source(task).pipe(ops.decode_json(), ops.buffer_with_time(1.0))
    rows = JsonSink(task.path)
    run(numbers, rows, log=False, seconds=task.extra)
    done(rows=rows.rows)


def pipelines(task: Task) -> None:
    """The whole job in `extra` pipelines, each with a connection and a file of its own."""
    share = task.count // task.extra
    path = Path(task.path)
    run(
        *(
            (
                _job(source(task, client_id=f"bench-{number}"), share),
                JsonSink(path.with_name(f"{number}-{path.name}")),
            )
            for number in range(task.extra)
        ),
        log=False,
    )
    done()


def start(task: Task) -> None:
    """Say how long the import took, and the first message after `run`."""
    began = time.monotonic()

    def first(_: Message[bytes]) -> None:
        now = time.monotonic()
        done(import_ms=(IMPORTED - BEGAN) * 1000, first_ms=(now - began) * 1000)

    run(source(task).pipe(ops.do_action(first)), Counting(2), log=False)


MODES = {each.__name__: each for each in (receive, job, buffered, windows, pipelines, start)}

if __name__ == "__main__":
    sys.exit(main())

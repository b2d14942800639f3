"""No MQTT, no loop: any observable can end in a sink. When `subscribe` returns, it is on disk."""

import reactivex

from rxflow import JsonSink, read_rows
from rxflow import operators as ops


def added(total: int, number: int) -> int:
    return total + number


def row_of(total: int) -> dict[str, int]:
    return {"total": total}


reactivex.of(3, 1, 4, 1, 5, 9, 2, 6).pipe(ops.scan(added, 0), ops.map(row_of)).subscribe(
    JsonSink("files/totals.json", existing="rotate")
)

for row in read_rows("files/totals.json"):
    print(row)

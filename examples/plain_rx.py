"""No MQTT, no loop: any observable can end in a sink. When `subscribe` returns, it is on disk."""

import reactivex

from rxflow import JsonSink, read_rows
from rxflow import operators as ops

reactivex.of(3, 1, 4, 1, 5, 9, 2, 6).pipe(
    ops.scan(lambda total, n: total + n, 0),
    ops.map(lambda total: {"total": total}),
).subscribe(JsonSink("files/totals.json", existing="rotate"))

for row in read_rows("files/totals.json"):
    print(row)

"""What waits for the end of a read pass is done in it, whatever happens; else in the next turn."""

import asyncio

import pytest

from rxflow import JsonSink, Message
from rxflow.process.read_pass import read_pass, soon
from rxflow.sinks import group_commit


def on_loop(read):
    """Call `read(loop, say)` on a loop; what was said then, and in its next turn."""
    said = []

    async def main():
        loop = asyncio.get_running_loop()
        try:
            read(loop, said.append)
        except LookupError as error:
            said.append(str(error))
        at_once = said.copy()
        await asyncio.sleep(0)
        return at_once, said[len(at_once) :]

    return asyncio.run(main())


def test_it_is_done_behind_the_last_message_in_order():
    def read(loop, say):
        def decode():
            soon(lambda: say("first"), loop)
            soon(lambda: say("second"), loop)
            say("decoded")

        read_pass(decode, loop)
        say("read")

    assert on_loop(read) == (["decoded", "first", "second", "read"], [])


def test_without_a_pass_it_is_done_in_the_next_turn():
    assert on_loop(lambda loop, say: soon(lambda: say("done"), loop)) == ([], ["done"])


def test_behind_a_pass_it_is_done_in_the_next_turn():
    def read(loop, say):
        read_pass(lambda: soon(lambda: soon(lambda: say("later"), loop), loop), loop)

    assert on_loop(read) == ([], ["later"])


def fail():
    raise LookupError("raised")


def test_if_a_message_raises_it_is_done_in_the_next_turn():
    def read(loop, say):
        def decode():
            soon(lambda: say("done"), loop)
            fail()

        read_pass(decode, loop)

    assert on_loop(read) == (["raised"], ["done"])


def test_if_one_raises_the_others_are_done_in_the_next_turn():
    def read(loop, say):
        def decode():
            soon(fail, loop)
            soon(lambda: say("done"), loop)

        read_pass(decode, loop)

    assert on_loop(read) == (["raised"], ["done"])


@pytest.mark.parametrize("rows", [1, 8])
def test_a_few_rows_for_a_quick_disk_are_stored_when_the_pass_ends(tmp_path, rows, monkeypatch):
    monkeypatch.setattr(group_commit, "_QUICK", 10.0)
    sink = JsonSink(tmp_path / "rows.json")

    def read(loop, say):
        sink._group._took = 0.0  # as after a quick commit
        read_pass(lambda: [sink.on_next(Message("a", n)) for n in range(rows)], loop)
        say((sink.rows, sink.commits))

    assert on_loop(read) == ([(rows, 1)], [])
    sink.close()

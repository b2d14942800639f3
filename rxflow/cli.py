"""The command line: `rxflow demo` and `rxflow forget`."""

from __future__ import annotations

import argparse
import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from rxflow import __version__, codec
from rxflow.errors import ConfigError, RxflowError
from rxflow.log import log_to_terminal

_INTERRUPTED = 130
_SECRETS: Final = {
    "username": "RXFLOW_USERNAME",
    "password": "RXFLOW_PASSWORD",
    "key_password": "RXFLOW_KEY_PASSWORD",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; the exit status is 0, 1 for a failure, 2 for wrong usage."""
    parser = _parser()
    options = parser.parse_args(arguments)
    log_to_terminal()
    try:
        return options.command(options)
    except ConfigError as error:
        sys.stderr.write(f"rxflow: {error}\n")
        return 2
    except RxflowError as error:
        sys.stderr.write(f"rxflow: {error}\n")
        return 1
    except KeyboardInterrupt:
        return _INTERRUPTED


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rxflow", description="MQTT topics as Rx observables, ending in durable files."
    )
    parser.add_argument("--version", action="version", version=__version__)
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    demo = commands.add_parser(
        "demo",
        help="MQTT messages become a JSON file, broker included",
        description="Start a broker on loopback, publish integers, and keep them in a JSON file.",
    )
    demo.add_argument(
        "--seconds", type=_positive, default=10.0, help="how long it runs (default 10)"
    )
    demo.add_argument("--rate", type=_positive, default=1.0, help="messages a second (default 1)")
    demo.add_argument(
        "--out",
        type=Path,
        default=Path("files/my_custom_name.json"),
        help="the file (default %(default)s); an older one is renamed",
    )
    demo.set_defaults(command=_demo)
    forget = commands.add_parser(
        "forget",
        help="end a session that a broker keeps for a pipeline that will not come back",
        description=(
            "Have the broker drop a session, and the messages that it queues for it. Username and "
            "password come from the URL, or from RXFLOW_USERNAME and RXFLOW_PASSWORD; the password "
            "of an encrypted key from RXFLOW_KEY_PASSWORD."
        ),
    )
    forget.add_argument("url", metavar="URL", help="as for from_mqtt")
    forget.add_argument("--client-id", help="whose session")
    forget.add_argument(
        "--output",
        type=Path,
        metavar="FILE",
        help="the sessions of the pipeline that wrote FILE (their ids are in FILE.client); "
        "with --client-id that one alone",
    )
    forget.add_argument("--ca-file", metavar="FILE", help="PEM file of the authorities to trust")
    forget.add_argument("--cert-file", metavar="FILE", help="PEM file of the client's certificate")
    forget.add_argument("--key-file", metavar="FILE", help="PEM file of its key")
    forget.add_argument(
        "--connect-timeout",
        type=_positive,
        metavar="SECONDS",
        help="how long it tries (default 10)",
    )
    forget.set_defaults(command=_forget)
    return parser


def _positive(text: str) -> float:
    with contextlib.suppress(ValueError):
        value = float(text)
        if 0 < value < float("inf"):
            return value
    raise argparse.ArgumentTypeError(f"a number above 0, not {text!r}")


def _demo(options: argparse.Namespace) -> int:
    from rxflow.demo import demo  # noqa: PLC0415 (`rxflow --help` need not load it)

    report, rows = demo(options.out, seconds=options.seconds, rate=options.rate)
    sys.stdout.write(f"{options.out}\n")
    for row in rows:
        sys.stdout.write(f"  {codec.encode(row).decode()}\n")
    if more := report.stored - len(rows):
        sys.stdout.write(f"  and {more:,} more\n")
    return 0


def _forget(options: argparse.Namespace) -> int:
    from rxflow.mqtt.forgetting import forget, forget_kept  # noqa: PLC0415 (likewise)

    given: dict[str, Any] = {name: os.environ.get(key) for name, key in _SECRETS.items()}
    for name in ("ca_file", "cert_file", "key_file", "connect_timeout"):
        given[name] = getattr(options, name)
    connection = {name: value for name, value in given.items() if value is not None}
    if options.client_id is None and options.output is None:
        raise ConfigError("forget: which session? give --client-id, --output, or both")
    ids = options.output and options.output.with_name(f"{options.output.name}.client")
    if options.client_id is not None:
        there_was = forget(options.url, options.client_id, path=ids, **connection)
        forgotten = {options.client_id: there_was}
    else:
        forgotten = forget_kept(options.url, ids, **connection)
    for client_id, there_was in forgotten.items():
        what = "forgotten" if there_was else "the broker had no session of"
        sys.stdout.write(f"{what}: {client_id}\n")
    if not forgotten:
        sys.stderr.write("rxflow: no session of that broker is kept there\n")
    return 0 if forgotten else 1

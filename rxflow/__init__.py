"""MQTT topics as Rx observables, ending in files that miss nothing acknowledged."""

from rxflow import _gil as _gil  # before all else: it refuses a Python without the lock
from rxflow import operators
from rxflow.errors import (
    ConfigError,
    ConnectError,
    DecodeError,
    RxflowError,
    RxflowWarning,
    SinkError,
)
from rxflow.factories import amb, combine_latest, concat, fork_join, merge, with_latest_from
from rxflow.factories import zip as zip  # not in `__all__`: a star import keeps Python's own
from rxflow.flow import Flow
from rxflow.log import logger
from rxflow.message import Batch, Message
from rxflow.mqtt import Connected, MqttSink, Will, from_mqtt
from rxflow.properties import Properties
from rxflow.running.health import Health
from rxflow.running.pipeline import Pipeline
from rxflow.running.report import Report
from rxflow.running.run import run, run_async
from rxflow.sinks import DurableSink, JsonLinesSink, JsonSink, read_rows
from rxflow.sources.feed import from_feed

__all__ = [
    "Batch",
    "ConfigError",
    "ConnectError",
    "Connected",
    "DecodeError",
    "DurableSink",
    "Flow",
    "Health",
    "JsonLinesSink",
    "JsonSink",
    "Message",
    "MqttSink",
    "Pipeline",
    "Properties",
    "Report",
    "RxflowError",
    "RxflowWarning",
    "SinkError",
    "Will",
    "amb",
    "combine_latest",
    "concat",
    "fork_join",
    "from_feed",
    "from_mqtt",
    "merge",
    "operators",
    "read_rows",
    "run",
    "run_async",
    "with_latest_from",
]

__version__ = "0.1.0"

logger.disable("rxflow")

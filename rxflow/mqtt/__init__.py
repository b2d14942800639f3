"""MQTT: a source, `from_mqtt`, and a sink, `MqttSink`."""

from rxflow.mqtt.observable import from_mqtt
from rxflow.mqtt.options import ConnectionOptions
from rxflow.mqtt.settings import Will
from rxflow.mqtt.sink import MqttSink
from rxflow.mqtt.source import Connected

__all__ = ["Connected", "ConnectionOptions", "MqttSink", "Will", "from_mqtt"]

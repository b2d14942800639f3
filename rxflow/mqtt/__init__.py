"""MQTT: a source, `from_mqtt`, and a sink, `MqttSink`."""

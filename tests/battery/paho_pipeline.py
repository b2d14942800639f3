"""A control of C6: QoS 2 by paho's own session, which answers PUBREC before anybody has the row.

python paho_pipeline.py PORT FILE TOPIC
"""

import json
import sys

import paho.mqtt.client as paho

from rxflow import JsonSink

client = paho.Client(paho.CallbackAPIVersion.VERSION2, client_id="by-hand", clean_session=False)
client.username_pw_set("wiredflow", "wiredflow")
sink = JsonSink(sys.argv[2])
client.on_message = lambda _, __, message: sink.on_next(json.loads(message.payload))
client.on_connect = lambda *_: client.subscribe(sys.argv[3], 2)
client.connect("127.0.0.1", int(sys.argv[1]))
client.loop_forever()

"""Brokers of MQTT. Import from here, not from the modules inside."""

from reconciler.adapters.mqtt.broker import MqttBroker, client_id
from reconciler.adapters.mqtt.client import MOST_UNACKNOWLEDGED, BrokerAddress
from reconciler.adapters.mqtt.connection import AT_ONCE, MOST_WAITING

__all__ = [
    "AT_ONCE",
    "MOST_UNACKNOWLEDGED",
    "MOST_WAITING",
    "BrokerAddress",
    "MqttBroker",
    "client_id",
]

"""Delivery of messages: the transport, what workers hold, heartbeats, reclaiming, accepted tasks, dead letters."""

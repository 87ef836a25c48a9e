"""Low-latency WebSocket feed handler: books you can trust, in shared memory."""

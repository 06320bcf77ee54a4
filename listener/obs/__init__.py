"""What people and Prometheus see. Subscribes to core/events; the engine knows nothing of it."""

"""The Prometheus exporter: what queues, workers, tasks, stores and runs are at, in constant work per scrape."""

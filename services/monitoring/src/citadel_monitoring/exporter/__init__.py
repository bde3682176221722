"""The Prometheus exporter: metrics of queues, workers, tasks, stores and runs, in constant work per scrape."""

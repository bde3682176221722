"""HTTP server of the API: everything that is the same for all routes."""

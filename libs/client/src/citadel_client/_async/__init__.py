"""The client for asyncio, from which `scripts/sync-client` generates the blocking one in `_sync`."""

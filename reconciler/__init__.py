"""The controller: pulls repositories, syncs them, watches devices, dispatches runs, reports.

Rooms import downwards only (the import law in `.importlinter`):
`cli` -> `main` -> `web` -> `controllers | adapters` -> `ports` -> `core` -> `api` -> `errors`.
It never imports `executor`: the two processes meet on the wire.
"""

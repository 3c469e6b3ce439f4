"""JavaScript on V8: a hardened isolate for a worker's scripts, two crossings for each batch."""

"""JavaScript on V8: hardened isolates, one per script, driven by two crossings per batch."""

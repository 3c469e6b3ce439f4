"""The session with the controller: bytes in and out, credit, artifacts, reconnection.

The only room that knows wire messages; it knows nothing of engines and workers. Whoever joins it
to a supervisor gets `Work` and gives back `RunResult`s.
"""

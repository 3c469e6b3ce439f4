"""The supervisor: owns worker processes, and with them every limit that must hold.

V8's own limits do not hold, so time is kept by SIGKILL and memory by a watchdog. It runs batches,
and finds the guilty one of a batch that had to be killed by running its runs again one by one:
nothing leaves a worker before a completion, so a run that is repeated has not happened.

`pool.Supervisor` is the door; it knows nothing of the session that brings the work.
"""

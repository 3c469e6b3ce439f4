"""The executor: runs scripts for a controller, which it finds by address and speaks to by gRPC.

Imports nothing of the controller's package; the two meet on the wire only.
"""

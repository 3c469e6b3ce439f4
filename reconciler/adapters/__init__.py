"""One vendor each. Adapters translate values and errors and bound sizes and times.

They hold no policy: what to do about an answer is decided by who asked. Nothing of a vendor, no
type and no exception, is seen above this room.
"""

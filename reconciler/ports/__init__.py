"""What the loops need from the world, as small Protocols without vendor types.

Every port states what it promises and what it does not; each has a contract suite that runs over
every implementation, the fakes included. A port raises only `reconciler.errors`.
"""

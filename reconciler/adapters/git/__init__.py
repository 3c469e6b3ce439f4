"""Git: mirrors, trees compared by hash, pushes by compare-and-swap.

The library reads and writes objects in memory; nothing is ever checked out. The git program does
all transport, as a child with a deadline. No file of a user or system configures either.
"""

from pygit2 import LIBGIT2_VERSION

from reconciler.adapters.git.address import Allowed
from reconciler.adapters.git.mirrors import GitMirrors

__all__ = ["LIBGIT2_VERSION", "Allowed", "GitMirrors"]

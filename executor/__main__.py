"""`python -m executor`."""

from __future__ import annotations

import os
import sys

# Workers are spawned, never forked, so gRPC need not stop its threads around it; it reads this
# when it is imported.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "false")

from executor.main import main

if __name__ == "__main__":
    sys.exit(main())

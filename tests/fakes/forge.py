"""A forge's commit statuses over HTTP, held to what the forge publishes of its API.

`tests/support/forges/statuses.json` has the contracts and where they are from. A request that
breaks one is answered with 422 and remembered in `broken`. What contracts do not say is as seen in
the forges' own tests: GitLab answers 400 to a state that a status has already, GitHub 403 with
`Retry-After` where it wants a pause, and 422 from the thousandth status of a commit and context on.
"""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections import Counter
from collections.abc import Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

from jsonschema import Draft202012Validator

CONTRACTS = json.loads(
    (Path(__file__).parents[1] / "support" / "forges" / "statuses.json").read_text()
)
BASES = {"GitHub": "/api/v3", "GitLab": "/api/v4", "Gitea": "/api/v1"}
MOST_STATUSES = 1000


class Told(NamedTuple):
    repository: str
    commit: str
    context: str
    state: str
    description: str


class FakeForge:
    """`told` are the statuses it took. `pauses` are answers it gives first: code and headers."""

    def __init__(self, provider: str, token: str) -> None:
        self.provider = provider
        self.token = token
        self.told: list[Told] = []
        self.broken: list[str] = []
        self.pauses: list[tuple[int, Mapping[str, str]]] = []
        self.url = ""

    def states(self, commit: str) -> list[str]:
        return [told.state for told in self.told if told.commit == commit]

    def take(
        self, path: str, headers: Mapping[str, str], body: bytes
    ) -> tuple[int, Mapping[str, str], Any]:
        contract = CONTRACTS[self.provider]
        pattern = re.sub(r"{\w+}", "([^/]+)", BASES[self.provider] + contract["path"])
        match = re.fullmatch(pattern, path)
        if match is None:
            return 404, {}, {"message": "Not Found"}
        given = headers.get("private-token") or headers.get("authorization", "")
        scheme = "" if contract["authorization"] == "PRIVATE-TOKEN" else contract["authorization"]
        if given != f"{scheme} {self.token}".strip():
            return 401, {}, {"message": "Bad credentials"}
        if self.pauses:
            code, more = self.pauses.pop(0)
            return code, more, {"message": "You have exceeded a secondary rate limit."}
        document = json.loads(body)
        problems = [
            e.message for e in Draft202012Validator(contract["schema"]).iter_errors(document)
        ]
        if headers.get("content-type") != "application/json":
            problems.append("not sent as JSON")
        if problems:
            self.broken += problems
            return 422, {}, {"message": problems[0]}
        *repository, commit = (unquote(group) for group in match.groups())
        told = Told(
            "/".join(repository),
            commit,
            document.get("context") or document.get("name"),
            document["state"],
            document.get("description", ""),
        )
        return self._put(told)

    def _put(self, told: Told) -> tuple[int, Mapping[str, str], Any]:
        same = [it for it in self.told if (it.commit, it.context) == (told.commit, told.context)]
        if self.provider == "GitLab" and same and same[-1].state == told.state:
            event = {"pending": "enqueue", "running": "run"}.get(told.state, told.state)
            message = f"Cannot transition status via :{event} from :{told.state}"
            return 400, {}, {"message": message}
        if self.provider == "GitHub" and Counter(same).total() >= MOST_STATUSES:
            return 422, {}, {"message": "This SHA and context has reached the maximum number"}
        self.told.append(told)
        return CONTRACTS[self.provider]["answer"], {}, {"state": told.state}


@contextlib.contextmanager
def forge(provider: str, token: str) -> Iterator[FakeForge]:
    """One on a free port of loopback."""
    fake = FakeForge(provider, token)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 - the base's name
            """Say nothing."""

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            headers = {name.lower(): value for name, value in self.headers.items()}
            code, more, document = fake.take(self.path, headers, body)
            answer = json.dumps(document).encode()
            self.send_response(code)
            for name, value in {**more, "Content-Length": str(len(answer))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(answer)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=lambda: server.serve_forever(poll_interval=0.02))
    thread.start()
    fake.url = f"http://127.0.0.1:{server.server_port}{BASES[provider]}"
    try:
        yield fake
    finally:
        server.shutdown()
        thread.join()
        server.server_close()

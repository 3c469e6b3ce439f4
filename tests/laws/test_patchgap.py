from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from tests.support.patchgap import newer, warnings


def index(**releases: str) -> Any:
    """Releases by version (`_` for a dot) with the day that each came out."""
    return {
        "releases": {
            name[1:].replace("_", "."): [{"upload_time_iso_8601": f"{day}T00:00:00.000000Z"}]
            for name, day in releases.items()
        }
    }


NOW = datetime(2026, 6, 30, tzinfo=UTC)


def test_what_has_been_behind_for_more_than_a_month_is_named() -> None:
    indexes = {
        "mini-racer": index(v0_14_1="2026-01-01", v0_14_2="2026-05-01", v0_15_0="2026-06-20"),
        "wasmtime": index(v50_0_1="2026-01-01", v51_0_0="2026-06-20"),
        "pygit2": index(v1_19_0="2026-01-01"),
    }
    installed = {"mini-racer": "0.14.1", "wasmtime": "50.0.1", "pygit2": "1.19.0"}
    assert list(warnings(installed, indexes, now=NOW)) == [
        "mini-racer 0.14.1 (V8) is behind: 0.14.2 has been out for 60 days"
    ]


def test_neither_previews_nor_withdrawn_or_empty_releases_count() -> None:
    found = index(v2_0rc1="2026-01-01", v3_0="2026-01-01")
    found["releases"]["3.0"][0]["yanked"] = True
    found["releases"] |= {"4.0": [], "no version": [{}]}
    assert newer("1.0", found) is None

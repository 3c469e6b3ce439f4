"""`artifact`: scripts pushed to an OCI registry and pulled from it."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from reconciler.cli import options, terminal

app = typer.Typer(
    help="Push scripts to an OCI registry, and pull them.",
    no_args_is_help=True,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"]},
)

Register = Annotated[
    str,
    typer.Argument(
        metavar="OCI-URL",
        help="What manifests say in `register`: oci://host[:port]/folder.",
    ),
]


@app.command()
def push(
    register: Register,
    files: Annotated[
        list[Path],
        typer.Argument(
            metavar="FILE...", help="Scripts, named <name>/<version>.<ext> as below scripts/."
        ),
    ],
    *,
    source: Annotated[
        str, typer.Option(metavar="URL", help="Where they come from, as an annotation.")
    ] = "",
    revision: Annotated[
        str, typer.Option(metavar="REVISION", help="Of which revision, as an annotation.")
    ] = "",
    register_config: options.RegisterConfig = None,
    output: options.Output = options.TextOutput.TEXT,
) -> None:
    """Push scripts as artifacts of one file, each under the tag of its version.

    A version that is there with other bytes is refused. Credentials are those of docker login,
    unless --register-config names others.
    """
    from reconciler.main import artifacts  # noqa: PLC0415 - what speaks HTTP is not small

    annotations = {
        f"org.opencontainers.image.{name}": value
        for name, value in (("source", source), ("revision", revision))
        if value
    }
    pushed = asyncio.run(
        artifacts.push(register, files, config=register_config, annotations=annotations)
    )
    if output is options.TextOutput.JSON:
        terminal.as_json(
            [
                {
                    "reference": str(it.place),
                    "digest": it.digest,
                    "manifestDigest": it.manifest,
                    "pushed": it.is_new,
                }
                for it in pushed
            ]
        )
        return
    for it in pushed:
        did = "pushed" if it.is_new else "unchanged"
        terminal.line(f"{did} {it.place}@{it.manifest}")
        terminal.line(f"  spec.manifest.digest: {it.digest}")


@app.command()
def pull(
    register: Register,
    version: Annotated[str, typer.Argument(metavar="NAME/VERSION", help="Which script.")],
    *,
    folder: Annotated[
        Path, typer.Option("--folder", metavar="FOLDER", help="Where to write it.", file_okay=False)
    ] = Path("scripts"),
    register_config: options.RegisterConfig = None,
    register_key: options.RegisterKeys = [],  # noqa: B006 - typer's spelling of "none given"
    output: options.Output = options.TextOutput.TEXT,
) -> None:
    """Pull a script into FOLDER/NAME/VERSION.EXT, with every digest checked.

    With --register-key it has to be signed, too.
    """
    from reconciler.main import artifacts  # noqa: PLC0415 - what speaks HTTP is not small

    pulled = asyncio.run(
        artifacts.pull(register, version, folder, config=register_config, keys=register_key)
    )
    if output is options.TextOutput.JSON:
        terminal.as_json({"path": str(pulled.path), "digest": pulled.digest})
    else:
        terminal.line(f"{pulled.path}")
        terminal.line(f"  spec.manifest.digest: {pulled.digest}")

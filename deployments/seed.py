"""Put block types and sample blocks on a Prefect server; what is there already is left alone."""

import argparse
import os
import tomllib
from pathlib import Path
from typing import Any

from blocks._home import home, private, write_private
from blocks.errors import ConfigError

SAMPLES = Path(__file__).with_name("blocks.example.toml")

EXAMPLES = ("seed --file blocks.toml --listener https://reports.example.org",)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--file", type=Path, default=SAMPLES, help="TOML with the blocks (default: the samples)"
    )
    parser.add_argument(
        "--listener", default="http://127.0.0.1:8080", help="where the sample endpoint posts to"
    )


def main(options: argparse.Namespace) -> int:
    if "PREFECT_API_URL" not in os.environ:
        raise ConfigError("PREFECT_API_URL is not set: which server should get the blocks?")
    for name in seed(options.listener, file=options.file):
        print(f"saved {name}")
    return 0


def seed(listener: str, *, file: Path = SAMPLES) -> list[str]:
    """Register every block type, save the missing blocks of `file`; return what was saved.

    A signing key pair is made on first use, so that the sample endpoint can sign.
    """
    from prefect.blocks.core import Block

    import blocks

    kinds: dict[str, type[Block]] = {}
    for name in blocks.__all__:
        kind: type[Block] = getattr(blocks, name)
        kind.register_type_and_schema(_sync=True)  # type: ignore[call-arg]  # undocumented
        kinds[kind.get_block_type_slug()] = kind
    keys = key_pair()
    with file.open("rb") as text:
        wanted: dict[str, dict[str, dict[str, Any]]] = tomllib.load(text)
    saved = []
    for slug, documents in wanted.items():
        if slug not in kinds:
            raise ConfigError(f"{file.name}: no block type {slug!r}; known: {', '.join(kinds)}")
        for name, values in documents.items():
            if _exists(kinds[slug], name):
                continue
            filled = {
                key: _filled(value, {"keys": str(keys), "listener": listener}, kinds)
                for key, value in values.items()
            }
            kinds[slug](**filled).save(name, _sync=True)  # type: ignore[call-arg]  # undocumented
            saved.append(f"{slug}/{name}")
    return saved


def key_pair() -> Path:
    """The folder of this installation's keys: signing.pem (0600) and signing.pub.pem."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    folder = private(home() / "keys")
    if not (folder / "signing.pem").exists():
        key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public = key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        secret = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        write_private(folder / "signing.pub.pem", public.decode())
        write_private(folder / "signing.pem", secret.decode())  # last: it says that both are there
    return folder


def _exists(kind: Any, name: str) -> bool:
    from blocks._load import saved

    return name in saved(kind)


def _filled(value: Any, places: dict[str, str], kinds: dict[str, Any]) -> Any:
    """A value of the TOML file with its places filled in and its references loaded."""
    if not isinstance(value, str):
        return value
    if value.startswith("@"):
        from blocks._load import load

        slug, _, name = value[1:].partition("/")
        return load(kinds[slug], name)
    for place, text in places.items():
        value = value.replace("{" + place + "}", text)
    return value

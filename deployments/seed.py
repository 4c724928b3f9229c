"""Put block types and sample blocks on a Prefect server; what is there already is left alone."""

import argparse
import os
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from blocks._home import home, private, write_private
from blocks.errors import ConfigError, PenstockError

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

    A signing key pair is made on first use, so that the sample endpoint can sign. Raises
    ConfigError that names the file, the block and the field for what cannot be a block.
    """
    from prefect.blocks.core import Block
    from pydantic import ValidationError

    import blocks

    kinds: dict[str, type[Block]] = {}
    for name in blocks.__all__:
        kind: type[Block] = getattr(blocks, name)
        kind.register_type_and_schema(_sync=True)  # type: ignore[call-arg]  # undocumented
        kinds[kind.get_block_type_slug()] = kind
    places = {"keys": str(key_pair()), "listener": listener}
    saved = []
    for slug, name, values in _wanted(file, kinds):
        if _exists(kinds[slug], name):
            continue
        try:
            filled = {key: _filled(value, places, kinds) for key, value in values.items()}
            kinds[slug](**filled).save(name, _sync=True)  # type: ignore[call-arg]  # undocumented
        except ValidationError as error:
            fields = "; ".join(
                f"{'.'.join(map(str, one['loc'])) or 'the block'}: {one['msg']}"
                for one in error.errors(include_input=False)  # it may be a secret
            )
            raise ConfigError(f"{file}, [{slug}.{name}]: {fields}") from None
        except (PenstockError, ValueError) as error:
            raise ConfigError(f"{file}, [{slug}.{name}]: {error}") from None
        saved.append(f"{slug}/{name}")
    return saved


def _wanted(file: Path, kinds: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Each block of the file: its type, its name, its fields."""
    try:
        with file.open("rb") as text:
            found = tomllib.load(text)
    except OSError as error:
        raise ConfigError(f"--file {file} cannot be read: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"--file {file} is no TOML: {error}") from None
    for slug, documents in found.items():
        if slug not in kinds:
            raise ConfigError(f"{file}: no block type {slug!r}; known: {', '.join(kinds)}")
        for name, values in documents.items() if isinstance(documents, dict) else [("?", None)]:
            if not isinstance(values, dict):
                raise ConfigError(f"{file}: {slug} needs a name for its block: [{slug}.NAME]")
            yield slug, name, values


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
        if slug not in kinds:
            raise ConfigError(f"{value!r} names no block type; known: {', '.join(kinds)}")
        return load(kinds[slug], name)
    for place, text in places.items():
        value = value.replace("{" + place + "}", text)
    return value

"""`penstock keys jwks`: what listeners need to check signatures, as a document to publish.

    signing.pem, signing.pub.pem, … ──► public parts ──► {"keys": […]}

Nothing private is printed, whichever half of a key a file holds.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from blocks.errors import ConfigError, KeyUnusable

if TYPE_CHECKING:
    from blocks._keys import Known

EXAMPLES = (
    "keys jwks .penstock/keys/signing.pub.pem",
    "keys jwks old.pem=2026-10 new.pem=2026-11 > jwks.json",
)


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "files",
        nargs="+",
        metavar="FILE[=KID]",
        help="a PEM file, private or public; KID is its SigningKey's key_id, if that has one",
    )


def main(options: argparse.Namespace) -> int:
    from blocks._jwks import document

    made = document(known for word in options.files for known in _keys_of(word))
    kids = [entry["kid"] for entry in made["keys"]]
    if len({*kids}) != len(kids):
        raise ConfigError(f"two keys have one name among {', '.join(kids)}: give each its own =KID")
    sys.stdout.write(json.dumps(made, indent=2) + "\n")
    return 0


def _keys_of(word: str) -> "list[Known]":
    from blocks._keys import Known, private_key, public_keys, text_of

    path, _, kid = (word, "", "") if Path(word).is_file() else word.rpartition("=")
    text = text_of(path or word, None, None)
    for algorithm in ("RS256", "ES256", "EdDSA"):
        try:
            if "PRIVATE" in text:
                public = private_key(text, algorithm, path).public_key()
                return [Known(algorithm, public, kid or None)]
            return [known._replace(kid=kid or None) for known in public_keys(text, algorithm, path)]
        except KeyUnusable:
            continue  # perhaps it is of the next kind
    raise KeyUnusable(f"{path} holds no key for RS256, ES256 or EdDSA, or a weak one")

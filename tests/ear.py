"""A receiver with an endpoint and a key of its own, and what it understood of what came."""

import json
from pathlib import Path
from typing import Any
from uuid import uuid4

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks import ReportEndpoint, SigningKey
from tests.receiver import Post, Receiver


class Ear:
    """A receiver with an endpoint of its own, that hears runs with its tag, and its public key."""

    def __init__(self, folder: Path) -> None:
        self.receiver = Receiver()
        self.name = f"ear-{uuid4().hex[:8]}"
        own = rsa.generate_private_key(65537, 2048)
        pem, spki = serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        self.key = folder / "key.pem"
        self.key.write_bytes(own.private_bytes(pem, form, plain))
        self.public = own.public_key().public_bytes(pem, spki).decode()

    def save(self, **settings: Any) -> None:
        fields = {
            "url": self.receiver.url,
            "signing_key": SigningKey(path=str(self.key)),
            "match_tags": [self.name],
            **settings,
        }
        ReportEndpoint(**fields).save(self.name, overwrite=True)

    def claims(self, post: Post) -> dict[str, Any]:
        """What anybody reads who has the key, and the algorithm, and PyJWT."""
        token = json.loads(post.body)["payload"]
        read: dict[str, Any] = jwt.decode(token, self.public, algorithms=["RS256"])
        return read

    def told(self, route: str) -> list[dict[str, Any]]:
        """The fields of each message that was answered well, once, in the order of arrival."""
        once = {post.id: post for post in self.receiver.posts}
        return [self.claims(post) for post in once.values() if post.path == f"/{route}"]

    def words(self) -> list[tuple[str, str]]:
        return [(fields["task_id"], fields["state"]) for fields in self.told("status")]

    def wait_for_results(self) -> None:
        self.receiver.wait(lambda: self.told("results"), seconds=90)

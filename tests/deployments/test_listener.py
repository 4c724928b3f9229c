"""The listener as an ASGI application: what it takes, what it refuses, what it keeps."""

import asyncio

import httpx
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from blocks import SigningKey, VerifyKey
from blocks._messages import Message, encode
from deployments.listener.app import create_app
from deployments.listener.store import Store

KEY = rsa.generate_private_key(public_exponent=65537, key_size=2048)
SIGN = SigningKey(
    pem=KEY.private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    ).decode()
).sign
PUBLIC = KEY.public_key().public_bytes(
    serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
)
FIELDS = {"state": "running", "dag_id": "d", "run_id": "r", "task_id": "t"}
BODY = encode(Message("1/status", "status", FIELDS), SIGN)


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "reports.jsonl")


@pytest.fixture
def post(store):
    app = create_app(VerifyKey(pem=PUBLIC.decode()), store, max_body=10_000)

    def send(body, route="status", message_id="1/status"):
        async def once():
            transport = httpx.ASGITransport(app)
            async with httpx.AsyncClient(transport=transport, base_url="http://listener") as client:
                headers = {"webhook-id": message_id}
                answer = await client.post(f"/{route}", content=body, headers=headers)
                return answer.status_code

        return asyncio.run(once())

    return send


def test_a_signed_message_is_kept_with_its_fields(post, store):
    assert post(BODY) == 204
    (heard,) = store.read()
    assert (heard.id, heard.route, heard.verified, heard.payload) == (
        "1/status",
        "status",
        True,
        FIELDS,
    )


def test_a_prefix_before_the_route_is_fine(post, store):
    assert post(BODY, "satellite/v1/status") == 204
    assert [heard.route for heard in store.read()] == ["status"]


def test_a_repeat_is_answered_well_and_not_kept_again(post, store):
    assert [post(BODY), post(BODY)] == [204, 204]
    assert len(list(store.read())) == 1


def test_what_came_before_a_restart_is_known_after_it(post, store):
    post(BODY)
    again = create_app(VerifyKey(pem=PUBLIC.decode()), store)

    async def once():
        transport = httpx.ASGITransport(again)
        async with httpx.AsyncClient(transport=transport, base_url="http://listener") as client:
            headers = {"webhook-id": "1/status"}
            return (await client.post("/status", content=BODY, headers=headers)).status_code

    assert asyncio.run(once()) == 204
    assert len(list(store.read())) == 1


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"payload": {"state": "running"}}', BODY[:-9] + b"AAAAAA" + BODY[-3:]],
    ids=["empty", "list", "object", "unsigned", "changed"],
)
def test_what_is_not_signed_by_us_is_refused_and_noted(post, store, body):
    assert post(body) == 401
    (heard,) = store.read()
    assert not heard.verified
    assert heard.payload is None
    assert heard.why


def test_a_body_over_the_limit_is_refused_before_it_is_read_whole(post, store):
    assert post(b"x" * 10_001) == 413
    assert not list(store.read())


def test_other_routes_are_not_found(post, store):
    assert post(BODY, "secrets") == 404
    assert not list(store.read())


def test_reading_from_a_place_gives_what_came_after(post, store):
    post(BODY)
    since = store.size
    post(encode(Message("2/status", "status", FIELDS), SIGN), message_id="2/status")
    assert [heard.id for heard in store.read(since)] == ["2/status"]

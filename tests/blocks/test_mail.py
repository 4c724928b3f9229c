"""Mails that a real server takes over TLS it can be trusted with, or that are said not to be."""

import asyncio
import logging
import re
import socket
import ssl
import threading
import tomllib
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from email import message_from_bytes
from email.message import EmailMessage
from email.policy import default
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from aiosmtpd.smtp import SMTP, AuthResult
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from pydantic import ValidationError

from blocks import MailChannel
from blocks._messages import Failure, Message, Names
from blocks.errors import ConfigError, KeyUnusable, NotDelivered

ROOT = "0a6f0000-0000-0000-0000-000000000001"
NAMES = Names("flights", "run-7", root=ROOT, flow="fly")
AT = "2026-01-02T03:04:05+00:00"
MESSAGE = Message(
    "abc/progress",
    "progress",
    "failed",
    NAMES,
    run=ROOT,
    at=AT,
    error="no fuel ✈",
    failure=Failure("count", ("last line",)),
)


def certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """A self-signed certificate of `name` (at 127.0.0.1 if it is "here"), and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    at = x509.IPAddress(ip_address("127.0.0.1")) if name == "here" else x509.DNSName(name)
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([at]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    paths = folder / f"{name}.pem", folder / f"{name}.key"
    paths[0].write_bytes(made.public_bytes(serialization.Encoding.PEM))
    paths[1].write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    return paths


@pytest.fixture(scope="module")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Path]]:
    folder = tmp_path_factory.mktemp("certificates")
    return {name: certificate(folder, name) for name in ("here", "elsewhere.example")}


@dataclass
class Post:
    """What came to a server, and the answers it gives instead of yes."""

    port: int = 0
    mails: list[tuple[list[str], bytes]] = field(default_factory=list)
    refuse: dict[str, str] = field(default_factory=dict)  # a recipient, MAIL or DATA → answer
    logins: list[tuple[bytes, bytes]] = field(default_factory=list)
    hides: str = "nothing"  # what it does not offer

    async def handle_EHLO(
        self, server: Any, session: Any, envelope: Any, hostname: str, responses: list[str]
    ):
        session.host_name = hostname
        return [line for line in responses if self.hides not in line]

    async def handle_MAIL(self, server: Any, session: Any, envelope: Any, address: str, _: Any):
        if answer := self.refuse.get("MAIL"):
            return answer
        envelope.mail_from = address
        return "250 OK"

    async def handle_RCPT(self, server: Any, session: Any, envelope: Any, address: str, _: Any):
        if answer := self.refuse.get(address):
            return answer
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: Any, session: Any, envelope: Any):
        if answer := self.refuse.get("DATA"):
            return answer
        self.mails.append((envelope.rcpt_tos, envelope.content))
        return "250 OK"

    async def handle_QUIT(self, server: Any, session: Any, envelope: Any):
        if self.refuse.get("QUIT") == "hang up":
            server.transport.abort()
        return self.refuse.get("QUIT", "221 Bye")

    def read(self) -> EmailMessage:
        """The last mail that came, as a mail program reads it."""
        mail = message_from_bytes(self.mails[-1][1], policy=default)
        assert isinstance(mail, EmailMessage)
        return mail


Start = Callable[..., Post]


@pytest.fixture
def start(certificates: dict[str, tuple[Path, Path]]) -> Iterator[Start]:
    """Start servers.

    `name` is in the certificate (None: no TLS), `at_once` speaks TLS from the first byte, `clear`
    takes logins without.
    """
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def starting(
        name: str | None = "here",
        at_once: bool = False,
        password: bytes = b"",
        clear: bool = False,
        **more: Any,
    ) -> Post:
        post = Post()
        context = None
        if name:
            context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
            context.load_cert_chain(*certificates[name])

        def authenticator(server: Any, session: Any, envelope: Any, mechanism: str, data: Any):
            post.logins.append((data.login, data.password))
            return AuthResult(success=data.password == password, handled=False)

        def serve() -> SMTP:
            return SMTP(
                post,
                hostname="mail.example",
                loop=loop,
                tls_context=None if at_once else context,
                authenticator=authenticator if password else None,
                auth_required=bool(password),
                auth_require_tls=not (at_once or clear),
                **more,
            )

        async def listen() -> int:
            tls = context if at_once else None
            server = await loop.create_server(serve, "127.0.0.1", 0, ssl=tls)
            return int(server.sockets[0].getsockname()[1])

        post.port = asyncio.run_coroutine_threadsafe(listen(), loop).result(30)
        return post

    yield starting

    async def end() -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run_coroutine_threadsafe(end(), loop).result(30)
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()


@pytest.fixture
def channel(certificates: dict[str, tuple[Path, Path]]) -> Callable[..., MailChannel]:
    def made(post: Post | int, **more: Any) -> MailChannel:
        return MailChannel(
            **{
                "host": "127.0.0.1",
                "port": post if isinstance(post, int) else post.port,
                "sender": "Penstock <penstock@example.org>",
                "recipients": ["ops@example.org", "Ada <ada@example.org>"],
                "ca_file": str(certificates["here"][0]),
                "timeout": 20,
                **more,
            }
        )

    return made


def not_delivered(mail: MailChannel, message: Message = MESSAGE) -> NotDelivered:
    """What `mail` raises, sure not to show its password."""
    with pytest.raises(NotDelivered) as caught:
        mail.send(message)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "hunter2" not in shown
    return caught.value


def test_a_mail_comes_over_starttls_to_all_with_what_helps(start, channel):
    post = start(require_starttls=True)
    channel(post).send(MESSAGE)
    [(recipients, _)] = post.mails
    assert recipients == ["ops@example.org", "ada@example.org"]
    mail = post.read()
    assert mail["Subject"] == "flights failed in count"
    assert mail["From"] == "Penstock <penstock@example.org>"
    assert mail["To"] == "ops@example.org, Ada <ada@example.org>"
    assert mail["Auto-Submitted"] == "auto-generated"
    assert mail.get_content_type() == "text/plain"
    for words in ("Run: run-7", "no fuel ✈", "last line"):
        assert words in mail.get_content()


def test_a_mail_comes_over_tls_from_the_first_byte(start, channel):
    post = start(at_once=True)
    channel(post, security="tls").send(MESSAGE)
    assert post.read()["Subject"] == "flights failed in count"


def test_a_mail_comes_in_the_clear_only_where_that_was_chosen(start, channel):
    post = start(name=None)
    channel(post, security="none", ca_file=None).send(MESSAGE)
    assert len(post.mails) == 1


def test_every_attempt_makes_the_same_mail_so_that_repeats_can_be_dropped(start, channel):
    post = start()
    mail = channel(post)
    mail.send(MESSAGE)
    mail.send(MESSAGE, attempt=2)
    channel(post).send(MESSAGE, attempt=3)  # another process, say
    assert len({content for _, content in post.mails}) == 1
    assert post.read()["Message-ID"].endswith("@example.org>")
    mail.send(replace(MESSAGE, id="def/progress"))
    assert post.mails[-1][1] != post.mails[0][1]


def test_mails_of_one_run_belong_together_and_those_of_another_do_not(channel):
    mail = channel(25)
    child = replace(MESSAGE, id="c/status", route="status", state="up_for_retry", run="child")
    other = replace(MESSAGE, names=replace(NAMES, root="another"), run="another")
    [one, two, three] = [mail.mail(message) for message in (MESSAGE, child, other)]
    assert one["References"] == two["References"] == one["In-Reply-To"]
    assert one["References"] != three["References"]
    assert one["Message-ID"] not in (two["Message-ID"], one["References"])


def test_the_date_is_that_of_the_state(channel):
    assert channel(25).mail(MESSAGE)["Date"].datetime == datetime.fromisoformat(AT)


def test_no_name_makes_another_header(start, channel):
    post = start()
    names = replace(NAMES, dag_id="x\r\nBcc: all@example.org\r\n\r\nbody", run_id="\nTo: you@there")
    channel(post).send(replace(MESSAGE, names=names))
    mail = post.read()
    assert mail["Bcc"] is None
    assert mail["Subject"] == "x Bcc: all@example.org body failed in count"
    assert post.mails[0][0] == ["ops@example.org", "ada@example.org"]


def test_names_in_any_script_and_half_a_character_arrive(start, channel):
    post = start()
    names = replace(NAMES, dag_id="flüge ✈" * 40)
    channel(post).send(replace(MESSAGE, names=names, error="half \udc80"))
    assert post.read()["Subject"].startswith("flüge ✈flüge")


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_that_nobody_vouches_for_is_refused(security, start, channel):
    post = start(at_once=security == "tls")
    error = not_delivered(channel(post, security=security, ca_file=None))
    assert "is not trusted" in str(error)
    assert not error.final
    assert post.mails == []


@pytest.mark.parametrize("security", ["starttls", "tls"])
def test_a_certificate_of_another_host_is_refused(security, start, channel, certificates):
    post = start("elsewhere.example", at_once=security == "tls")
    ca_file = str(certificates["elsewhere.example"][0])
    error = not_delivered(channel(post, security=security, ca_file=ca_file, password="hunter2"))
    assert "is not trusted" in str(error)
    assert (post.mails, post.logins) == ([], [])


@pytest.mark.filterwarnings("ignore:Requiring AUTH while not requiring TLS")  # the server's
@pytest.mark.parametrize("password", [None, "hunter2"], ids=["open", "login"])
def test_a_server_without_starttls_gets_nothing(password, start, channel):
    post = start(name=None, password=(password or "").encode(), clear=True)
    error = not_delivered(channel(post, password=password))
    assert "does not offer" in str(error)
    assert "STARTTLS" in str(error)
    assert (post.mails, post.logins) == ([], [])


def test_tls_to_a_server_that_speaks_none_is_not_delivered(start, channel):
    post = start(name=None)
    not_delivered(channel(post, security="tls", password="hunter2"))
    assert (post.mails, post.logins) == ([], [])


@pytest.mark.parametrize(
    ("user", "login"), [("robot", b"robot"), (None, b"penstock@example.org")], ids=["user", "none"]
)
def test_who_has_a_password_logs_in(user, login, start, channel):
    post = start(password=b"hunter2")
    channel(post, user=user, password="hunter2").send(MESSAGE)
    assert post.logins == [(login, b"hunter2")]
    assert len(post.mails) == 1


def test_a_wrong_password_is_said_with_what_mends_it(start, channel):
    error = not_delivered(channel(start(password=b"right"), password="hunter2"))
    assert "refused user or password (535)" in str(error)
    assert (error.status, error.final) == (535, False)


def test_a_server_that_knows_no_login_is_not_sent_to(start, channel):
    post = start()
    post.hides = "AUTH"
    assert "login" in str(not_delivered(channel(post, password="hunter2")))
    assert post.mails == []


def test_recipients_refused_for_good_are_final(start, channel):
    post = start()
    post.refuse = dict.fromkeys(["ops@example.org", "ada@example.org"], "550 no such user")
    error = not_delivered(channel(post))
    assert "ops@example.org (550), ada@example.org (550)" in str(error)
    assert (error.status, error.final) == (550, True)


def test_recipients_refused_for_now_are_asked_again(start, channel):
    post = start()
    post.refuse = {"ops@example.org": "451 later", "ada@example.org": "550 no such user"}
    error = not_delivered(channel(post))
    assert (error.status, error.final) == (451, False)


def test_one_refused_recipient_takes_the_mail_from_nobody_else(start, channel):
    post = start()
    post.refuse = {"ada@example.org": "550 no such user"}
    error = not_delivered(channel(post))
    assert "refused for ada@example.org (550)" in str(error)
    assert error.final
    assert [recipients for recipients, _ in post.mails] == [["ops@example.org"]]


@pytest.mark.parametrize(
    ("step", "answer", "final"),
    [
        ("DATA", "554 not this one", True),
        ("DATA", "452 full", False),
        ("MAIL", "553 not from you", False),
        ("MAIL", "451 later", False),
    ],
)
def test_what_is_refused_later_on_is_final_only_for_the_mail_itself(
    step, answer, final, start, channel
):
    post = start()
    post.refuse = {step: answer}
    error = not_delivered(channel(post))
    assert (error.status, error.final) == (int(answer[:3]), final)


@pytest.mark.parametrize("goodbye", ["500 what?", "hang up"])
def test_a_mail_that_was_taken_is_delivered_however_the_server_says_goodbye(
    goodbye, start, channel
):
    post = start()
    post.refuse = {"QUIT": goodbye}
    channel(post).send(MESSAGE)
    assert len(post.mails) == 1


@pytest.mark.parametrize("security", ["starttls", "tls", "none"])
def test_a_server_that_is_down_has_not_taken_the_mail(security, channel):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound and not listening: nobody else can answer there
        error = not_delivered(channel(taken.getsockname()[1], security=security))
    assert "ConnectionRefusedError" in str(error)
    assert not error.final


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\xff\xfe\r\n",
        b"220 ok\r\n\xff\r\n",
        b"x" * 9000 + b"\r\n",
    ],
    ids=lambda answer: repr(answer[:12]),
)
def test_an_answer_that_is_no_mail_servers_is_not_taken_for_one(answer, channel):
    with socket.create_server(("127.0.0.1", 0)) as server:

        def once() -> None:
            client, _ = server.accept()
            with client:
                client.sendall(answer)
                client.shutdown(socket.SHUT_WR)
                while client.recv(4096):
                    pass

        thread = threading.Thread(target=once)
        thread.start()
        error = not_delivered(channel(server.getsockname()[1], password="hunter2"))
        thread.join()
    assert not error.final


def test_a_server_that_never_answers_is_left_in_time(channel):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        error = not_delivered(channel(silent.getsockname()[1], timeout=0.2))
    assert not error.final


def test_a_host_that_is_none_is_said_by_an_error_of_ours(channel):
    for host in ("ü..example", "no host", "nul\0"):
        not_delivered(channel(25, host=host))


def test_a_ca_file_that_is_none_is_named(start, channel, tmp_path):
    (tmp_path / "odd.pem").write_text("no certificate")
    for name in ("none.pem", "odd.pem"):
        with pytest.raises(ConfigError, match=name):
            channel(start(), ca_file=str(tmp_path / name)).send(MESSAGE)


def test_no_log_shows_the_password(start, channel, caplog, capfd):
    caplog.set_level(logging.DEBUG)
    caplog.set_level(logging.CRITICAL, "mail.log")  # the server of this test tells all it hears
    channel(start(password=b"hunter2"), password="hunter2").send(MESSAGE)
    out, err = capfd.readouterr()
    assert "hunter2" not in caplog.text + out + err


def test_the_examples_of_the_docs_run(start):
    page = (Path(__file__).parents[2] / "docs" / "mail.md").read_text()
    [program] = re.findall(r"```python\n(.*?)```", page, re.S)
    post = start(name=None)
    assert "port=1025" in program
    exec(program.replace("port=1025", f"port={post.port}"), {})
    assert post.read()["Subject"] == "flights failed in count"
    [settings] = re.findall(r"```toml\n(.*?)```", page, re.S)
    [(slug, documents)] = tomllib.loads(settings).items()
    assert slug == MailChannel.get_block_type_slug()
    assert MailChannel(**documents["ops"]).hears == ["failure", "late"]


@pytest.mark.parametrize("show", [repr, str, lambda b: b.model_dump_json()])
def test_a_channel_never_shows_its_password(show, channel):
    assert "hunter2" not in show(channel(25, password="hunter2"))


def test_a_password_that_cannot_be_sent_is_unusable_and_never_shown(start, channel):
    post = start(password=b"right")
    mail = channel(post, password="hunter2é")
    with pytest.raises(KeyUnusable) as caught:
        mail.send(MESSAGE)
    assert "hunter2" not in "".join(traceback.format_exception(caught.value))
    assert post.logins == []


def test_a_channel_tells_people_where_its_mails_go(channel):
    mail = channel(25, host="smtp.example.org", password="hunter2")
    assert mail.where == "ops@example.org, Ada <ada@example.org> by smtp.example.org:25"


def test_a_password_never_goes_in_the_clear(channel):
    with pytest.raises(ConfigError, match="never sent in the clear"):
        channel(25, security="none", password="hunter2")


def test_a_user_needs_a_password(channel):
    with pytest.raises(ConfigError, match="'robot' of a MailChannel needs a password"):
        channel(25, user="robot")


@pytest.mark.parametrize(
    "text",
    ["", "ops", "@example.org", "ops@", "a@x.org, b@x.org", "a@x.org\r\nBcc: b@x.org", "a b@x.org"],
)
def test_what_is_no_address_is_refused(text, channel):
    for wrong in ({"sender": text}, {"recipients": ["ops@example.org", text]}):
        with pytest.raises(ConfigError, match="is no mail address"):
            channel(25, **wrong)


@pytest.mark.parametrize(
    "wrong", [{"recipients": []}, {"security": "ssl"}, {"port": 0}, {"timeout": 0}], ids=str
)
def test_a_setting_out_of_range_is_refused(wrong, channel):
    with pytest.raises(ValidationError):
        channel(25, **wrong)

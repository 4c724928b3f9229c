"""A post ends in time whatever the receiver does, and no error or log says where it went."""

import logging
import socket
import ssl
import threading
import time
import traceback
import tracemalloc
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from itertools import repeat
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from blocks._post import FINAL, Poster
from blocks.errors import NotDelivered
from tests.receiver import Receiver

OK = b"HTTP/1.1 200 OK\r\n"
EMPTY = OK + b"content-length: 0\r\n\r\n"
SECRET = "hunter2"
PATIENT = 60  # seconds after which a post that should have ended long ago is given up by a test
Wire = Callable[[socket.socket], None]


class Peer:
    """A socket that listens: each connection is read up to the end of a post, then handed over."""

    def __init__(self, answers: Wire, tls: ssl.SSLContext | None = None) -> None:
        self._answers, self._tls = answers, tls
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port = self._socket.getsockname()[1]
        self.url = f"http{'s' if tls else ''}://me:{SECRET}@localhost:{self.port}/{SECRET}"
        self.over = threading.Event()  # the client has ended, or the test has
        self.connections = 0
        threading.Thread(target=self._serve, daemon=True).start()

    def close(self) -> None:
        self.over.set()
        self._socket.close()

    def drip(self, connection: socket.socket, what: Iterator[bytes]) -> None:
        """Send it piece by piece, a second apart, until the other side is gone."""
        for piece in what:
            connection.sendall(piece)
            if self.over.wait(1):
                return

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._one, args=[connection], daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        try:
            if self._tls:
                connection = self._tls.wrap_socket(connection, server_side=True)
            with connection:
                while _read_post(connection):
                    self._answers(connection)
        except OSError:
            pass  # the other side hung up, as it should


def _read_post(connection: socket.socket) -> bool:
    data = b""
    while not data.endswith(b"the body"):
        if not (more := connection.recv(65536)):
            return False
        data += more
    return True


@pytest.fixture
def peer() -> Iterator[Callable[..., Peer]]:
    peers = []

    def start(answers: Wire | bytes, tls: ssl.SSLContext | None = None) -> Peer:
        def say(connection: socket.socket) -> None:
            connection.sendall(answers if isinstance(answers, bytes) else b"")

        peers.append(Peer(say if isinstance(answers, bytes) else answers, tls))
        return peers[-1]

    yield start
    for one in peers:
        one.close()


@pytest.fixture
def poster() -> Iterator[Poster]:
    mine = Poster()
    yield mine
    mine.close()


def post(poster: Poster, url: str, timeout: float = 20) -> None:
    poster.post(url, b"the body", {"x-key": SECRET}, timeout=timeout, about="abc/status")


def refused(poster: Poster, url: str, timeout: float = 20) -> NotDelivered:
    """The error of a post, which names the message and neither address nor secret."""
    with pytest.raises(NotDelivered) as caught:
        post(poster, url, timeout)
    shown = "".join(traceback.format_exception(caught.value)) + repr(caught.value)
    assert "abc/status" in str(caught.value)
    assert [word for word in (SECRET, "localhost", "127.0.0.1", "://") if word in shown] == []
    return caught.value


@pytest.fixture(autouse=True)
def silent(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Whatever a test does, no line of any log at the level of a courier names the secret."""
    caplog.set_level(logging.INFO)
    yield
    assert SECRET not in caplog.text


# Receivers without end ------------------------------------------------------------------------


def header() -> Iterator[bytes]:
    yield OK + b"x-long: "
    yield from repeat(b"x")


def body() -> Iterator[bytes]:
    yield OK + b"content-length: 1000\r\n\r\n"
    yield from repeat(b"x")


def chunks() -> Iterator[bytes]:
    yield OK + b"transfer-encoding: chunked\r\n\r\n"
    yield from repeat(b"1\r\nx\r\n")


def information() -> Iterator[bytes]:
    yield from repeat(b"HTTP/1.1 100 Continue\r\n\r\n")


@pytest.mark.parametrize("dripped", [header, body, chunks, information])
def test_an_answer_that_drips_ends_with_the_time_for_the_whole_post(dripped, peer, poster):
    theirs: list[Peer] = []
    theirs.append(peer(lambda connection: theirs[0].drip(connection, dripped())))
    began = time.monotonic()
    error = refused(poster, theirs[0].url, timeout=1.5)
    assert 1.4 < time.monotonic() - began < PATIENT
    assert (error.status, error.final) == (None, False)


def test_a_receiver_that_never_answers_is_left_in_time(peer, poster):
    theirs: list[Peer] = []
    theirs.append(peer(lambda _: bool(theirs[0].over.wait(PATIENT)) and None))
    assert "ReadTimeout" in str(refused(poster, theirs[0].url, timeout=0.3))


def test_a_receiver_that_never_accepts_is_left_in_time(poster):
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        with socket.create_connection(address):  # the one that may wait
            refused(poster, f"http://localhost:{address[1]}/", timeout=0.5)


def test_a_receiver_that_reads_nothing_is_left_in_time(poster):
    with socket.create_server(("127.0.0.1", 0)) as deaf:
        url = f"http://localhost:{deaf.getsockname()[1]}/"
        with pytest.raises(NotDelivered, match="Timeout"):
            poster.post(url, b"x" * (64 << 20), {}, timeout=0.5, about="abc/status")


def test_an_endless_answer_is_delivered_and_not_kept(peer, poster):
    sent = 0

    def endless(connection: socket.socket) -> None:
        nonlocal sent
        connection.sendall(OK + b"content-length: %d\r\n\r\n" % (256 << 20))
        for _ in range(256):
            connection.sendall(b"x" * (1 << 20))
            sent += 1

    tracemalloc.start()
    try:
        post(poster, peer(endless).url)
        assert tracemalloc.get_traced_memory()[1] < 16 << 20
    finally:
        tracemalloc.stop()
    assert sent < 256


def test_headers_without_end_are_refused(peer, poster):
    def endless(connection: socket.socket) -> None:
        connection.sendall(OK)
        for _ in range(256):
            connection.sendall(b"x: y\r\n" * 200_000)

    refused(poster, peer(endless).url)


# Answers --------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [302, 307, 400, 401, 403, 404, 408, 410, 413, 422, 500, 503])
def test_an_answer_other_than_2xx_says_whether_another_attempt_can_help(status, peer, poster):
    said = b"HTTP/1.1 %d no\r\nlocation: http://localhost:1/\r\ncontent-length: 0\r\n\r\n" % status
    error = refused(poster, peer(said).url)
    assert (error.status, error.final) == (status, status in {400, 410, 413, 422})
    assert {400, 410, 413, 422} == FINAL


WISHES = {
    "120": 120,
    "0": 0,
    "-5": None,
    "315360000": 315360000,  # ten years: whoever waits has a limit of his own
    "9" * 400: float("inf"),
    "1.5": None,
    "soon": None,
    "": None,
    "²": None,
    "Sun, 22 Nov 2026 00:00:00 GMT": 0,
    "Fri, 31 Dec 9999 23:59:59 -2359": pytest.approx((9999 - 2026) * 365.2425 * 86400, rel=1e-2),
    "Fri, 31 Dec 99999 23:59:59 GMT": None,
    "Mon, 01 Jan 0001 00:00:00 +2359": 0,
    "Fri, 31 Dec 2026 23:59:59 -9999": None,
}  # fmt: skip


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize("wish", WISHES, ids=lambda wish: ascii(wish)[:40])
def test_the_wish_for_a_later_attempt_is_understood_or_ignored(wish, status, peer, poster):
    head = f"HTTP/1.1 {status} wait\r\nretry-after: {wish}\r\ncontent-length: 0\r\n\r\n"
    error = refused(poster, peer(head.encode()).url)
    assert (error.status, error.retry_after) == (status, WISHES[wish])
    assert not error.final


def test_a_later_attempt_may_be_wished_for_by_date(peer, poster):
    then = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    head = f"HTTP/1.1 503 wait\r\nretry-after: {then}\r\ncontent-length: 0\r\n\r\n"
    assert refused(poster, peer(head.encode()).url).retry_after == pytest.approx(3600, abs=60)


@pytest.mark.parametrize(
    "said",
    [
        b"\x00\xff garbage \r\n\r\n" * 99,
        b"SSH-2.0-OpenSSH_9.2\r\n\r\n",
        b"HTTP/1.1 abc no\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: x\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\nxyz\r\n",
        b"HTTP/1.1 200 OK\r\nno colon\r\n\r\n",
    ],
    ids=["bytes", "another protocol", "status", "length", "chunks", "header"],
)
def test_garbage_is_no_answer(said, peer, poster):
    assert refused(poster, peer(said).url).status is None


@pytest.mark.parametrize("said", [b"", b"HTTP/1.1 20", OK + b"content-length: 99\r\n\r\nonly this"])
def test_an_answer_that_breaks_off_is_none(said, peer, poster):
    def break_off(connection: socket.socket) -> None:
        connection.sendall(said)
        connection.shutdown(socket.SHUT_RDWR)

    assert refused(poster, peer(break_off).url).status is None


# Connections ----------------------------------------------------------------------------------


def test_a_connection_is_used_again_and_a_new_one_made_when_the_other_side_closed_it(peer, poster):
    kept = peer(EMPTY)
    for _ in range(3):
        post(poster, kept.url)
    assert kept.connections == 1

    closed = threading.Semaphore(0)

    def once(connection: socket.socket) -> None:
        connection.sendall(EMPTY)
        connection.shutdown(socket.SHUT_RDWR)
        closed.release()

    closing = peer(once)
    for _ in range(3):
        post(poster, closing.url)
        assert closed.acquire(timeout=PATIENT)
    assert closing.connections == 3


def test_many_receivers_that_hang_do_not_keep_another_from_being_served(peer, poster):
    gate = threading.Barrier(21)
    theirs: list[Peer] = []

    def hang(_: socket.socket) -> None:
        gate.wait(PATIENT)
        theirs[0].over.wait(PATIENT)
        raise ConnectionAbortedError

    theirs.append(peer(hang))
    threads = [
        threading.Thread(target=refused, args=[poster, theirs[0].url, PATIENT]) for _ in range(20)
    ]
    for thread in threads:
        thread.start()
    gate.wait(PATIENT)  # all twenty wait for an answer
    post(poster, peer(EMPTY).url)
    theirs[0].close()
    for thread in threads:
        thread.join()


@pytest.mark.parametrize("host", ["nowhere.invalid", "a" * 64 + ".example", "ü..example"])
def test_a_name_that_nobody_has_is_no_answer(host, poster):
    refused(poster, f"http://me:{SECRET}@{host}/")


def test_a_user_in_the_address_is_told_to_the_receiver_and_to_nobody_else(poster):
    receiver = Receiver()
    post(poster, receiver.url.replace("//", f"//me:{SECRET}@"))
    receiver.down()
    assert receiver.posts[0].headers["authorization"] == "Basic bWU6aHVudGVyMg=="


# TLS ------------------------------------------------------------------------------------------


def certificate(folder: Path, host: str) -> tuple[Path, ssl.SSLContext]:
    """A certificate that nobody has signed but itself, and a server's context that has it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, host)])
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(datetime.now(UTC) - timedelta(days=1))
        .not_valid_after(datetime.now(UTC) + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
        .sign(key, hashes.SHA256())
    )
    pem = serialization.Encoding.PEM
    form, plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    both = folder / "both.pem"
    both.write_bytes(key.private_bytes(pem, form, plain) + made.public_bytes(pem))
    (folder / "ca.pem").write_bytes(made.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(both)
    return folder / "ca.pem", context


def test_a_certificate_is_trusted_only_when_it_is_named(peer, poster, tmp_path):
    ca, tls = certificate(tmp_path, "localhost")
    receiver = peer(EMPTY, tls)
    assert "ConnectError" in str(refused(poster, receiver.url))
    post(Poster(str(ca)), receiver.url)
    post(Poster(False), receiver.url)


def test_a_trusted_certificate_of_another_host_is_refused(peer, tmp_path):
    ca, tls = certificate(tmp_path, "elsewhere.example")
    assert "ConnectError" in str(refused(Poster(str(ca)), peer(EMPTY, tls).url))


def test_a_receiver_that_never_shakes_hands_is_left_in_time(poster):
    with socket.create_server(("127.0.0.1", 0)) as mute:
        refused(poster, f"https://localhost:{mute.getsockname()[1]}/", timeout=0.5)

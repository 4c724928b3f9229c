"""Mail addresses that hear how runs go."""

import smtplib
import ssl
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from datetime import datetime
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.policy import SMTP as POLICY
from email.utils import format_datetime
from pathlib import Path
from typing import Literal

from prefect.blocks.core import Block
from pydantic import Field, HttpUrl, SecretStr, model_validator

from blocks._channel import Channel, Kind, lasting_id, link, note
from blocks._messages import Message
from blocks.errors import ConfigError, KeyUnusable, NotDelivered

Refused = dict[str, tuple[int, bytes]]  # recipient → code and text of the server


class MailChannel(Channel, Block):
    """Mail addresses that hear how runs go.

    Example:
        ```python
        from blocks import MailChannel

        mail = MailChannel.load("BLOCK_NAME")
        print(mail.recipients, mail.hears)
        ```
    """

    _block_type_name = "Mail Channel"
    _block_type_slug = "mail-channel"
    _description = "Mail addresses that hear how runs go."
    _documentation_url = HttpUrl("https://www.rfc-editor.org/rfc/rfc5321")

    host: str = Field(
        title="SMTP host",
        description="The server that takes the mail.",
        examples=["smtp.example.org"],
    )
    port: int = Field(
        default=587, ge=1, le=65535, description="Usually 587 with starttls, 465 with tls."
    )
    security: Literal["starttls", "tls", "none"] = Field(
        default="starttls", description="How the way to the server is kept private. No fallback."
    )
    user: str | None = Field(
        default=None,
        description="Who logs in, if there is a password; the sender's address if empty.",
        examples=["penstock@example.org"],
    )
    password: SecretStr | None = Field(
        default=None, description="The password to log in with; no login if empty."
    )
    sender: str = Field(
        description="The address that mails come from.",
        examples=["Penstock <penstock@example.org>"],
    )
    recipients: list[str] = Field(
        min_length=1,
        description="The addresses that mails go to.",
        examples=[["ops@example.org", "Ada <ada@example.org>"]],
    )
    hears: list[Kind] = Field(
        default=["failure", "retry", "late"],
        description="What it tells: that a run succeeded, failed, tries a task again, or is late.",
    )
    ca_file: str | None = Field(
        default=None,
        title="CA file",
        description="PEM file of who else may vouch for the server, besides the system's list.",
        examples=["/etc/ssl/our-ca.pem"],
    )
    timeout: float = Field(
        default=10.0, gt=0, le=60, description="Seconds to wait for each answer of the server."
    )

    @model_validator(mode="after")
    def _usable(self) -> "MailChannel":
        for text in (self.sender, *self.recipients):
            _address(text)
        if self.user and not self.password:
            raise ConfigError(f"user {self.user!r} of a MailChannel needs a password")
        if self.password and self.security == "none":
            raise ConfigError("a password is never sent in the clear: use security starttls or tls")
        return self

    @property
    def where(self) -> str:
        """For people: where its mails go."""
        return f"{', '.join(self.recipients)} by {self.host}:{self.port}"

    def mail(self, message: Message) -> EmailMessage:
        """What is sent of `message`: the same at every attempt, so that repeats can be told.

        All mails of one run name the same ancestor, by which mail programs put them together.
        """
        told, sender = note(message, link(message)), _address(self.sender)
        domain = sender.domain if sender.domain.isascii() else "penstock.invalid"
        run = message.names.root or message.run
        mail = EmailMessage(policy=POLICY)
        mail["Subject"] = told.subject
        mail["From"] = sender
        mail["To"] = [_address(text) for text in self.recipients]
        mail["Message-ID"] = f"<{lasting_id(message.id)}@{domain}>"
        if run:
            mail["In-Reply-To"] = mail["References"] = f"<{lasting_id(run)}@{domain}>"
        if message.at:
            mail["Date"] = format_datetime(datetime.fromisoformat(message.at))
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(told.text, cte="quoted-printable")
        return mail

    def send(self, message: Message, attempt: int = 1) -> None:
        """Hand one mail to the server.

        Raises ConfigError or KeyUnusable when the settings cannot work, and NotDelivered when the
        server cannot be reached, trusted or does not take the mail: final when it refused a
        recipient or the mail for good (5xx). Recipients it did not refuse have got it then.
        """
        mail, context = self.mail(message), self._context()
        with self._explained(message):
            server = self._connect(context)
            try:
                self._log_in(server)
                refused = server.send_message(
                    mail,
                    _address(self.sender).addr_spec,
                    [_address(text).addr_spec for text in self.recipients],
                )
            finally:
                # What the server took, it has: how it says goodbye no longer matters.
                with suppress(smtplib.SMTPException, OSError):
                    server.quit()
                server.close()
        if refused:
            raise _not_delivered(message, refused)

    def _context(self) -> ssl.SSLContext:
        context = ssl.create_default_context()
        if self.ca_file:
            try:
                context.load_verify_locations(Path(self.ca_file).expanduser())
            except OSError as error:
                why = "it holds no certificate" if isinstance(error, ssl.SSLError) else error
                raise ConfigError(f"ca_file {self.ca_file} cannot be used: {why}") from None
        return context

    def _connect(self, context: ssl.SSLContext) -> smtplib.SMTP:
        """A connection that is as private as the block says; raises what smtplib raises."""
        if self.security == "tls":
            return smtplib.SMTP_SSL(self.host, self.port, timeout=self.timeout, context=context)
        server = smtplib.SMTP(self.host, self.port, timeout=self.timeout)
        if self.security == "starttls":
            try:
                server.starttls(context=context)
            except BaseException:
                server.close()
                raise
        return server

    def _log_in(self, server: smtplib.SMTP) -> None:
        if not self.password:
            return
        user = self.user or _address(self.sender).addr_spec
        password = self.password.get_secret_value()
        if not (user + password).isascii():
            raise KeyUnusable("user or password of a MailChannel has more than ASCII characters")
        server.login(user, password)

    @contextmanager
    def _explained(self, message: Message) -> Iterator[None]:
        """NotDelivered for what smtplib raises, without the texts that may hold a secret."""
        here = f"{self.host}:{self.port}"
        try:
            yield
        except smtplib.SMTPRecipientsRefused as error:
            raise _not_delivered(message, error.recipients) from None
        except smtplib.SMTPAuthenticationError as error:
            why = f"{here} refused user or password ({error.smtp_code}): put the right ones into"
            raise NotDelivered(f"{why} the block", status=error.smtp_code) from None
        except smtplib.SMTPSenderRefused as error:
            why = f"{here} refused the sender {self.sender} ({error.smtp_code}): name one that"
            raise NotDelivered(f"{why} may send, or log in", status=error.smtp_code) from None
        except smtplib.SMTPResponseException as error:
            code = error.smtp_code if error.smtp_code > 0 else None
            final = isinstance(error, smtplib.SMTPDataError) and 500 <= error.smtp_code < 600
            why = f"{here} refused {message.id} with {code or 'no answer of a mail server'}"
            raise NotDelivered(why, status=code, final=final) from None
        except smtplib.SMTPNotSupportedError:
            why = f"{here} does not offer what the block asks of it (STARTTLS, login)"
            raise NotDelivered(f"{why}; nothing was sent: check host, port, security") from None
        except ssl.SSLCertVerificationError as error:
            why = f"{here} is not trusted ({error.verify_message}); nothing was sent"
            raise NotDelivered(f"{why}: name the right host, or a ca_file") from None
        except (smtplib.SMTPException, OSError, ValueError) as error:
            raise NotDelivered(
                f"{here} did not take {message.id}: {type(error).__name__}"
            ) from None


def _address(text: str) -> Address:
    """The one address in `text`; raises ConfigError for anything else, a line break included."""
    found: tuple[Address, ...] = ()
    # The standard library's parser stumbles over some texts with other errors than its own.
    with suppress(HeaderParseError, IndexError, ValueError):
        header = POLICY.header_factory("To", text if text.isprintable() else "")
        found = () if header.defects else header.addresses
    if len(found) != 1 or not (found[0].username and found[0].domain):
        raise ConfigError(f"{text!r} is no mail address; write it like Ada <ada@example.org>")
    return found[0]


def _not_delivered(message: Message, refused: Refused) -> NotDelivered:
    """For refused recipients: final unless the server wants to be asked again for one of them."""
    codes = {recipient: code for recipient, (code, _) in refused.items()}
    status = min(codes.values())
    told = ", ".join(f"{recipient} ({code})" for recipient, code in codes.items())
    return NotDelivered(
        f"{message.id} was refused for {told}: check the recipients",
        status=status if status > 0 else None,
        final=500 <= status < 600,
    )

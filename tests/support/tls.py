"""A server behind TLS: certificates made for the test, and a proxy that ends TLS before a plain server.

authority = Authority(tmp_path / "ours")
async with TlsProxy(temporal.port, authority.issue("localhost"), clients_of=authority) as proxy:
    ...  # connect to proxy.address with authority.certificate as CA and authority.issue("client")
"""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType

import pytest

# postgresql.org/docs/current/protocol-message-formats.html
_SSL_REQUEST = (8).to_bytes(4, "big") + (80877103).to_bytes(4, "big")
_NEW_KEY = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")


@dataclass(frozen=True)
class Identity:
    """A certificate and its key, PEM files both."""

    certificate: Path
    key: Path


class Authority:
    """A certificate authority with a folder of its own, made by the openssl program."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.folder = folder
        self.certificate = folder / "ca.pem"
        self._key = folder / "ca.key"
        files = ("-keyout", self._key, "-out", self.certificate)
        _openssl("req", "-x509", *_NEW_KEY, *files, "-days", "1", "-subj", "/CN=test-ca")

    def issue(self, name: str) -> Identity:
        """A certificate for a host name or a client, valid for a day."""
        identity = Identity(self.folder / f"{name}.pem", self.folder / f"{name}.key")
        request, extensions = self.folder / f"{name}.csr", self.folder / f"{name}.ext"
        extensions.write_text(f"subjectAltName=DNS:{name}\nbasicConstraints=critical,CA:FALSE\n")
        _openssl("req", "-new", *_NEW_KEY, "-keyout", identity.key, "-out", request, "-subj", f"/CN={name}")
        issuer = ("-CA", self.certificate, "-CAkey", self._key, "-CAcreateserial")
        files = ("-in", request, "-out", identity.certificate, "-extfile", extensions)
        _openssl("x509", "-req", *issuer, *files, "-days", "1")
        return identity


def _openssl(*arguments: str | Path) -> None:
    if shutil.which("openssl") is None:
        pytest.skip("needs the openssl program to make certificates")
    subprocess.run(["openssl", *arguments], check=True, capture_output=True)


class TlsProxy:
    """Ends TLS on a free port of 127.0.0.1, passes the bytes on, and keeps what clients sent."""

    def __init__(self, port: int, identity: Identity, *, clients_of: Authority | None = None) -> None:
        self.received = bytearray()
        self._port = port
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        self._context.load_cert_chain(identity.certificate, identity.key)
        self._context.set_alpn_protocols(["h2", "postgresql"])
        if clients_of is not None:
            self._context.load_verify_locations(clients_of.certificate)
            self._context.verify_mode = ssl.CERT_REQUIRED
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def address(self) -> str:
        """`127.0.0.1:PORT`; the certificate may be for another name."""
        assert self._server is not None, "not entered"
        return f"127.0.0.1:{self._server.sockets[0].getsockname()[1]}"

    async def __aenter__(self) -> TlsProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0, ssl=self._context)
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._server is not None
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # A task of ours, so that __aexit__ can end it: the server's own is not to be reached.
        task = asyncio.create_task(self._carry(reader, writer))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        await asyncio.wait({task})

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        back_reader, back_writer = await asyncio.open_connection("127.0.0.1", self._port)
        back = asyncio.create_task(_copy(back_reader, writer))
        try:
            with suppress(ConnectionError):
                while chunk := await reader.read(65_536):
                    self.received += chunk
                    back_writer.write(chunk)
        finally:
            back.cancel()
            back_writer.close()
            writer.close()


class PostgresTlsProxy(TlsProxy):
    """The same before a Postgres, whose clients ask for TLS first; who does not ask is sent away."""

    async def __aenter__(self) -> PostgresTlsProxy:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)
        return self

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if await reader.readexactly(len(_SSL_REQUEST)) != _SSL_REQUEST:
            writer.close()
            return
        writer.write(b"S")
        try:
            await writer.start_tls(self._context)
        except (ssl.SSLError, ConnectionError):
            # The client did not like the certificate.
            writer.close()
            return
        await super()._carry(reader, writer)


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with suppress(ConnectionError):
        while chunk := await reader.read(65_536):
            writer.write(chunk)
    # A client of Postgres says that it leaves, and waits until the server has closed.
    writer.close()

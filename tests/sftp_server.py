"""An SFTP server of the local files for one user, ``me`` with the password ``secret``."""

import os
import socket
import threading
from pathlib import Path

import paramiko


class _Door(paramiko.ServerInterface):
    def check_auth_password(self, username, password):
        known = (username, password) == ("me", "secret")
        return paramiko.AUTH_SUCCESSFUL if known else paramiko.AUTH_FAILED

    def check_channel_request(self, kind, chanid):  # noqa: ARG002
        return paramiko.OPEN_SUCCEEDED


class _Handle(paramiko.SFTPHandle):
    def stat(self):
        return _told(_attributes, Path(self.filename))


class _Files(paramiko.SFTPServerInterface):
    def list_folder(self, path):
        try:
            return [_attributes(file) for file in Path(path).iterdir()]
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)

    def stat(self, path):
        return _told(_attributes, Path(path))

    lstat = stat

    def open(self, path, flags, attr):  # noqa: ARG002
        try:
            descriptor = os.open(path, flags, 0o644)
        except OSError as error:
            return paramiko.SFTPServer.convert_errno(error.errno)
        handle = _Handle(flags)
        writes = flags & (os.O_WRONLY | os.O_RDWR)
        handle.filename = path
        handle.readfile = handle.writefile = os.fdopen(descriptor, "wb" if writes else "rb")
        return handle

    def remove(self, path):
        return _told(lambda file: file.unlink(), Path(path))

    def posix_rename(self, oldpath, newpath):
        return _told(lambda file: file.replace(newpath), Path(oldpath))

    def mkdir(self, path, attr):  # noqa: ARG002
        return _told(lambda file: file.mkdir(), Path(path))

    def rmdir(self, path):
        return _told(lambda file: file.rmdir(), Path(path))


def _attributes(file):
    return paramiko.SFTPAttributes.from_stat(file.stat(), file.name)


def _told(work, file):
    try:
        done = work(file)
    except OSError as error:
        return paramiko.SFTPServer.convert_errno(error.errno)
    return done if isinstance(done, paramiko.SFTPAttributes) else paramiko.SFTP_OK


def serve(listening: socket.socket, key: paramiko.PKey) -> None:
    """Let in whoever connects, until the socket is closed."""
    while True:
        try:
            connection, _ = listening.accept()
        except OSError:
            return
        transport = paramiko.Transport(connection)
        transport.add_server_key(key)
        transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Files)
        threading.Thread(
            target=transport.start_server, kwargs={"server": _Door()}, daemon=True
        ).start()

"""An authority and a certificate for each node, made by openssl, for the connections between nodes."""

from __future__ import annotations

import dataclasses
import pathlib
import subprocess


@dataclasses.dataclass(frozen=True)
class Files:
    """PEM files, as `cluster.*_file` name them."""

    ca: pathlib.Path
    cert: pathlib.Path
    key: pathlib.Path


class Authority:
    """Signs for addresses; its files lie in a directory of the caller's."""

    def __init__(self, directory: pathlib.Path):
        self._directory = directory
        self._ca, self._key = directory / "ca.pem", directory / "ca.key"
        _openssl("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
                 "-subj", "/CN=sluice test nodes", "-keyout", self._key, "-out", self._ca,
                 "-addext", "basicConstraints=critical,CA:TRUE", "-addext", "keyUsage=critical,keyCertSign")

    def sign(self, name: str, address: str) -> Files:
        key, request, cert = (self._directory / f"{name}.{end}" for end in ("key", "csr", "pem"))
        extensions = self._directory / f"{name}.ext"
        extensions.write_text(f"subjectAltName=IP:{address}\nextendedKeyUsage=serverAuth,clientAuth\n"
                              "basicConstraints=CA:FALSE\n")
        _openssl("req", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", f"/CN={name}",
                 "-keyout", key, "-out", request)
        _openssl("x509", "-req", "-in", request, "-CA", self._ca, "-CAkey", self._key, "-CAcreateserial",
                 "-days", "2", "-extfile", extensions, "-out", cert)
        return Files(self._ca, cert, key)


def _openssl(*arguments: object) -> None:
    done = subprocess.run(["openssl", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr

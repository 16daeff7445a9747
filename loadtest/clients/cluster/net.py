"""Where the processes of a cluster are: each in a network namespace of its own, joined by a bridge, or all on loopback.

`Namespaces` cuts one host off from another, which is what loopback cannot do. It owns what it makes: namespaces and
the bridge have names that begin with this process's id, and are taken away at the end. A cut is a blackhole route on
both sides, so it is silent, as a network's is: nothing is refused, nothing is closed.
"""

from __future__ import annotations

import atexit
import os
import random
import subprocess

from blackbox import servers


class Unavailable(RuntimeError):
    """This machine does not let us make networks; the text says why."""


class Loopback:
    """All hosts are this one. Nothing can be cut."""

    can_cut = False

    def join(self, host: str) -> None:
        pass

    def address(self, host: str) -> str:
        return servers.HOST

    def inside(self, host: str) -> list[str]:
        """What a command has to begin with to run there."""
        return []

    def close(self) -> None:
        pass


class Namespaces:
    """A namespace for each host, 10.X.Y.0/24 between them. The tests are at 10.X.Y.1."""

    can_cut = True

    def __init__(self) -> None:
        self._name = f"sl{os.getpid() % 100_000}"
        draw = random.SystemRandom()
        self._net = f"10.{draw.randint(64, 250)}.{draw.randint(0, 255)}"
        self._hosts: dict[str, int] = {}
        self._cuts: set[tuple[str, str]] = set()
        try:
            _ip("link", "add", self._name, "type", "bridge")
            atexit.register(self.close)
            _ip("addr", "add", f"{self._net}.1/24", "dev", self._name)
            _ip("link", "set", self._name, "up")
            self.join("probe")
        except (OSError, subprocess.CalledProcessError) as e:
            why = getattr(e, "stderr", "") or str(e)
            self.close()
            raise Unavailable(f"no network namespaces here ({why.strip()}): run as root, with iproute2") from None

    def join(self, host: str) -> None:
        if host in self._hosts:
            return
        number = self._hosts[host] = len(self._hosts) + 2
        space, near = self._space(host), f"{self._name}h{number}"
        _ip("netns", "add", space)
        _ip("link", "add", near, "type", "veth", "peer", "name", "eth0", "netns", space)
        _ip("link", "set", near, "master", self._name)
        _ip("link", "set", near, "up")
        _ip("-n", space, "addr", "add", f"{self.address(host)}/24", "dev", "eth0")
        _ip("-n", space, "link", "set", "eth0", "up")
        _ip("-n", space, "link", "set", "lo", "up")

    def address(self, host: str) -> str:
        return f"{self._net}.{self._hosts[host]}"

    def inside(self, host: str) -> list[str]:
        return ["ip", "netns", "exec", self._space(host)]

    def cut(self, a: str, b: str) -> None:
        """From now on nothing gets from one to the other."""
        for here, there in ((a, b), (b, a)):
            _ip("-n", self._space(here), "route", "add", "blackhole", f"{self.address(there)}/32")
        self._cuts.add((a, b))

    def heal(self) -> None:
        """Takes all cuts back."""
        for a, b in self._cuts:
            for here, there in ((a, b), (b, a)):
                _ip("-n", self._space(here), "route", "del", "blackhole", f"{self.address(there)}/32")
        self._cuts.clear()

    def close(self) -> None:
        for host in self._hosts:
            # Its end of the wire goes with it.
            subprocess.run(["ip", "netns", "del", self._space(host)], capture_output=True, check=False)
        subprocess.run(["ip", "link", "del", self._name], capture_output=True, check=False)
        self._hosts.clear()
        atexit.unregister(self.close)

    def _space(self, host: str) -> str:
        return f"{self._name}-{host}"


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], capture_output=True, text=True, check=True)

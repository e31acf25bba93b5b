"""A second network namespace, joined to this one by a link with a fixed delay (needs root and /dev/net/tun).

Two TUN devices, and this process between them: every packet is held for the delay, whatever its protocol, so
that nothing finds a quicker way round. netem would do the same, but is not in every kernel.
"""

import asyncio
import contextlib
import fcntl
import os
import struct
import subprocess
import time
from collections import deque
from collections.abc import AsyncGenerator
from pathlib import Path

NAMESPACE = "mesh-llm-far"
NEAR_ADDRESS, FAR_ADDRESS = "198.18.0.1", "198.18.0.2"  # RFC 2544: for benchmarks
TUN_SET_INTERFACE = 0x400454CA
TUN_WITHOUT_HEADER = 0x1001
PACKET_BYTES_MAX = 65536
MTU = "1400"


def can_delay() -> bool:
    return os.geteuid() == 0 and Path("/dev/net/tun").exists()


def in_far(*command: str) -> list[str]:
    """The command line that runs `command` at the far end of the link."""
    return ["ip", "netns", "exec", NAMESPACE, *command]


@contextlib.asynccontextmanager
async def delayed_link(one_way_s: float) -> AsyncGenerator[None]:
    """While it is open, NEAR_ADDRESS here and FAR_ADDRESS there reach each other, `one_way_s` apart."""
    _ip("netns", "add", NAMESPACE)
    try:
        near, far = _tun("meshnear"), _tun("meshfar")
        _ip("link", "set", "meshfar", "netns", NAMESPACE)
        _configure([], "meshnear", NEAR_ADDRESS)
        _configure(["-n", NAMESPACE], "meshfar", FAR_ADDRESS)
        _ip("-n", NAMESPACE, "link", "set", "lo", "up")
        with _Forwarding(near, far, one_way_s), _Forwarding(far, near, one_way_s):
            yield
        os.close(near)
        os.close(far)
    finally:
        _ip("netns", "del", NAMESPACE)


class _Forwarding:
    """Packets from one device to the other, each a fixed time later."""

    def __init__(self, source: int, target: int, delay_s: float) -> None:
        self._source, self._target, self._delay_s = source, target, delay_s
        self._held: deque[tuple[float, bytes]] = deque()
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def __enter__(self) -> None:
        self._loop.add_reader(self._source, self._take)

    def __exit__(self, *_: object) -> None:
        self._loop.remove_reader(self._source)
        if self._timer is not None:
            self._timer.cancel()

    def _take(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                packet = os.read(self._source, PACKET_BYTES_MAX)
                self._held.append((time.monotonic() + self._delay_s, packet))
                if self._timer is None:
                    self._wake_at(self._held[0][0])

    def _wake_at(self, due: float) -> None:
        self._timer = self._loop.call_later(max(0.0, due - time.monotonic()), self._deliver)

    def _deliver(self) -> None:
        self._timer = None
        while self._held and self._held[0][0] <= time.monotonic():
            with contextlib.suppress(OSError):  # a full or closed device loses packets, as networks do
                os.write(self._target, self._held[0][1])
            self._held.popleft()
        if self._held:
            self._wake_at(self._held[0][0])


def _tun(name: str) -> int:
    device = os.open("/dev/net/tun", os.O_RDWR | os.O_NONBLOCK)
    fcntl.ioctl(device, TUN_SET_INTERFACE, struct.pack("16sH22x", name.encode(), TUN_WITHOUT_HEADER))
    return device


def _configure(where: list[str], device: str, address: str) -> None:
    _ip(*where, "address", "add", f"{address}/30", "dev", device)
    _ip(*where, "link", "set", device, "mtu", MTU, "up")


def _ip(*arguments: str) -> None:
    subprocess.run(["ip", *arguments], check=True)

"""What the kernel says about a process: memory, processor time, open files.

All figures are read from /proc at the moment of the call.
"""

from __future__ import annotations

import os

_TICKS = os.sysconf("SC_CLK_TCK")


def rss_bytes(pid: int) -> int:
    """Resident set size (VmRSS)."""
    return _status_bytes(pid, "VmRSS")


def peak_rss_bytes(pid: int) -> int:
    """The largest resident set that the process ever had (VmHWM)."""
    return _status_bytes(pid, "VmHWM")


def cpu_s(pid: int) -> float:
    """User and system seconds of all threads, the ended ones too."""
    with open(f"/proc/{pid}/stat") as stat:
        # The command's name may hold spaces; the fields are counted from behind its bracket.
        fields = stat.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS


def open_files(pid: int) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


def _status_bytes(pid: int, name: str) -> int:
    with open(f"/proc/{pid}/status") as status:
        for line in status:
            if line.startswith(name + ":"):
                return int(line.split()[1]) * 1024
    raise ProcessLookupError(f"process {pid} has no {name}: it has ended")

"""Where the engines of a cluster have their models and stores: each takes a drive of its machine that no other has."""
from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Union


@dataclass(frozen=True)
class Drive:
    """A copy of the model, and the folder of the store beside it; None: nothing is kept.

    Paths are those of the machine that the engine runs on. Several engines of a machine take different ones of its drives,
    where these have a store.
    """

    model: str
    kv_store: str | None = None


#: A drive; where nothing is kept, the model's path is enough.
Drives = Union[str, Drive, Iterable[Union[str, Drive]]]


def listed(drives: Drives) -> list[Drive]:
    """The drives as a list that is not empty."""
    several = [drives] if isinstance(drives, (str, Drive)) else list(drives)
    if not several:
        raise ValueError("there must be at least one drive")
    return [Drive(drive) if isinstance(drive, str) else drive for drive in several]


class TakenDrive:
    """The first of the drives that is on this machine and that no other engine has, until it is let go of."""

    def __init__(self, drives: Iterable[Drive]) -> None:
        self._lock: int | None = None
        present = [drive for drive in drives if os.path.exists(drive.model)]
        for drive in present:
            if self._take(drive):
                self.drive = drive
                return
        raise RuntimeError(f"none of the drives is on {os.uname().nodename}: no model is there" if not present else
                           f"other engines have all drives of {os.uname().nodename}: "
                           + ", ".join(str(drive.kv_store) for drive in present))

    def _take(self, drive: Drive) -> bool:
        if drive.kv_store is None:
            return True
        os.makedirs(drive.kv_store, 0o700, exist_ok=True)
        # The system lets go of it when the process ends, however that ends.
        lock = os.open(os.path.join(drive.kv_store, "engine.lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(lock)
            return False
        self._lock = lock
        return True

    def close(self) -> None:
        """Leaves the drive to others."""
        lock, self._lock = self._lock, None
        if lock is not None:
            os.close(lock)

    def __del__(self) -> None:
        self.close()

"""A process that does runs, to be killed: imports once, then forks for every line of its standard input.

A line is JSON: {"settings": path of the run's settings} or {"resume": folder}; with "kill_at": n the child ends itself
by SIGKILL at its n-th renaming of a file, which every write that is meant to last ends with, whichever of its processes
does it; with "kill_after": s after so many seconds; with "fault": what MEADOW_FAULT would say. Prints a line an order:
how the child ended, after how many seconds, and how many files were renamed if it lived.
"""

import json
import mmap
import os
import signal
import sys
import threading
import time
from pathlib import Path

import matplotlib.figure  # noqa: F401  imported before the fork, as is all that runs use
import torch  # noqa: F401
from flwr.app import Message  # noqa: F401

import clients.app  # noqa: F401
import experiments.engine  # noqa: F401
import server.app  # noqa: F401
from experiments.run import resume, simulate
from fl import faults
from fl.errors import MeadowError


def child(order: dict[str, object]) -> None:
    renamed, kill_at, driver = mmap.mmap(-1, 8), order.get("kill_at"), os.getpid()  # one count for all its forks

    def watch(event: str, arguments: object) -> None:
        if event == "os.rename":
            count = int.from_bytes(renamed[:], "little") + 1
            renamed[:] = count.to_bytes(8, "little")
            if count == kill_at:
                os.kill(driver, signal.SIGKILL)
                os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)
    faults.arm(order.get("fault"))  # type: ignore[arg-type]
    if "kill_after" in order:
        threading.Timer(float(str(order["kill_after"])), os.kill, (os.getpid(), signal.SIGKILL)).start()
    if "resume" in order:
        resume(Path(str(order["resume"])))
    else:
        simulate(json.loads(Path(str(order["settings"])).read_text()))
    os.write(3, f"{int.from_bytes(renamed[:], 'little')}\n".encode())


def main() -> None:
    for line in sys.stdin:
        sys.stderr.flush()
        reader, writer = os.pipe()
        began = time.monotonic()
        pid = os.fork()
        if pid == 0:
            os.close(reader)
            os.dup2(writer, 3)
            try:
                child(json.loads(line))
            except MeadowError as error:
                print(error, file=sys.stderr)
                os._exit(error.exit_status)
            except BaseException:  # noqa: BLE001
                import traceback

                traceback.print_exc()
                os._exit(1)
            os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as told:
            renamed = told.read()
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        seconds = time.monotonic() - began
        print(json.dumps({"status": status, "renamed": int(renamed or 0), "seconds": seconds}), flush=True)


if __name__ == "__main__":
    main()

"""Python's multiprocessing and concurrent.futures, when a process is killed: `python3 cases.py CASE`.

Prints "progress" when the rest goes on, and why not when it ends otherwise. What hangs is ended from outside.
"""
import multiprocessing as mp
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool


def state(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(") ")[2][0]
    except OSError:
        return "X"


def settle(pid):
    """Waits until it sleeps, and goes on sleeping."""
    asleep = 0
    while asleep < 10:
        time.sleep(0.002)
        asleep = asleep + 1 if state(pid) == "S" else 0


def kill(pid):
    os.kill(pid, signal.SIGKILL)


def end(word):
    print(word, flush=True)
    os._exit(0 if word == "progress" else 3)


def die(*_):
    kill(os.getpid())


def idle_worker():
    pool = mp.Pool(1)
    pool.apply(abs, (-1,))
    victim = pool._pool[0]
    settle(victim.pid)
    kill(victim.pid)
    pool.apply_async(abs, (-2,)).get()


def busy_worker():
    pool = mp.Pool(1)
    try:
        pool.apply_async(die).get()
    except Exception:
        pass


def hold(lock, told):
    lock.acquire()
    told.send(0)
    time.sleep(3600)


def lock():
    theirs, ours = mp.Pipe()
    lock = mp.Lock()
    victim = mp.Process(target=hold, args=(lock, theirs))
    victim.start()
    ours.recv()
    kill(victim.pid)
    victim.join()
    lock.acquire()


def reader():
    queue = mp.Queue()
    victim = mp.Process(target=queue.get)
    victim.start()
    settle(victim.pid)
    kill(victim.pid)
    victim.join()
    queue.put(1)
    queue.put(2)
    queue.get()


def event():
    event = mp.Event()
    victim = mp.Process(target=event.wait)
    victim.start()
    settle(victim.pid)
    kill(victim.pid)
    victim.join()
    event.set()


def coordinator():
    executor = ProcessPoolExecutor(2)
    list(executor.map(abs, range(20)))
    print(*executor._processes, flush=True)
    time.sleep(3600)


def orphans():
    parent = subprocess.Popen([sys.executable, __file__, "coordinator"], stdout=subprocess.PIPE, text=True)
    workers = parent.stdout.readline().split()
    kill(parent.pid)
    parent.wait()
    while any(state(pid) not in "ZX" for pid in workers):
        time.sleep(0.1)


def big_arguments():
    with ProcessPoolExecutor(2) as executor:
        try:
            list(executor.map(die, ["a" * (4 << 20 | 1)] * 10))
        except BrokenProcessPool:
            pass


def other_calls():
    executor = ProcessPoolExecutor(2)
    others = [executor.submit(time.sleep, 0.05) for _ in range(5)]
    victim = executor.submit(die)
    others += [executor.submit(time.sleep, 0.05) for _ in range(5)]
    lost = 0
    for call in others:
        try:
            call.result()
        except BrokenProcessPool:
            lost += 1
    assert isinstance(victim.exception(), BrokenProcessPool)
    if lost:
        end(f"{lost} of 10 other calls are lost, and the executor is of no more use")


if __name__ == "__main__":
    globals()[sys.argv[1]]()
    end("progress")

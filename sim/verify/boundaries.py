"""Requests at the bounds of every check of `tritloom.rtl.spec.checks.checks_of`.

For each check, and each field of the request on which its quantity depends, these are the two
bounds, one below and one above them, and values that differ from a bound in one high bit only. A
design that compares a field only in part, or is off by one, gives a wrong status for one of them.
Which status is right follows from the reference device.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from tritloom.rtl.spec.checks import (
    UNITS,
    VECTOR_CHECKS,
    Check,
    LayerState,
    Quantity,
    State,
    checks_of,
    first_failure,
    value_of,
)
from tritloom.rtl.spec.commands import (
    LAYER,
    OPCODE_BITS,
    SESSION_BITS,
    Opcode,
    Request,
    Status,
)
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.vector_facts import VECTOR_WORD_BYTES
from tritloom.rtl.spec.vector_program import STEP_BYTES
from tritloom.sim.verify.pairs import banks_read
from tritloom.sim.verify.scene_programs import ScenePrograms

__all__ = [
    "Scene",
    "boundary_requests",
    "opcode_requests",
    "order_requests",
    "possible",
    "scenes",
]

PLACE_FIELDS = ("base", "tiles", "row_groups")
"""The fields of DEFINE's payload."""
REQUEST_FIELDS = ("index", "count", "address", "activation_bank", "result_bank")
"""The fields of a request's header that checks read."""
FIELD_BITS = {"index": 8, "count": 16, "address": 32, "activation_bank": 1, "result_bank": 1}
FIELD_BITS |= {"base": 32, "tiles": 16, "row_groups": 32}
"""Bits of each field of a request that a check reads."""
FIELDS = {
    Quantity.INDEX: ("index",),
    Quantity.COUNT: ("count",),
    Quantity.GROUP_TILES: ("count",),
    Quantity.ADDRESS: ("address",),
    Quantity.TILES: ("tiles",),
    Quantity.ROW_GROUPS: ("row_groups",),
    Quantity.MEMORY_END: ("base",),
    Quantity.RESULTS_END: ("row_groups",),
    Quantity.ITEMS_END: ("address", "count"),
    Quantity.WORDS_END: ("address",),
    Quantity.ADDRESS_REST: ("address",),
    Quantity.BASE_REST: ("base",),
    Quantity.ROW_GROUPS_END: ("address", "count"),
    Quantity.ACTIVATION_BANK: ("activation_bank",),
    Quantity.RESULT_BANK: ("result_bank",),
}
"""The fields on which a quantity depends, but for the payload's size and the device's state."""
OF_STATE = (
    Quantity.RESULT_ROW_GROUPS,
    Quantity.PROGRAM_STEPS,
    Quantity.NOT_FINITE,
    Quantity.WRONG_STEPS,
    Quantity.OPEN_LAYERS,
)
"""Quantities that no field changes. What precedes a scene shows the checks of the first three, the
counts of `ScenePrograms` show the others."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scene:
    """The layers of a device to which the boundary requests belong.

    Members
    -------
    shape : the shape of every layer that is defined
    base : first weight word of the first of them; the next one has the next blocks behind it
    committed : number of the committed layer, which was the last to run, or `None`
    open : number of the open layer, or `None`
    undefined : number of a layer that is not defined, or `None`
    checksum : CRC-32 of the open layer's words
    activation_bank, result_bank : the banks of that RUN; no RUN wrote another result bank
    programs : of a device with a vector unit, the steps in its program memory
    """

    shape: LayerShape
    base: int = 0
    committed: int | None = None
    open: int | None = None
    undefined: int | None = None
    checksum: int = 0
    activation_bank: int = 0
    result_bank: int = 0
    programs: ScenePrograms | None = None

    def state(self, request: Request) -> State:
        """What the checks of a request read of a device in this scene."""
        if self.programs is not None and request.opcode in VECTOR_CHECKS:
            committed = set() if self.committed is None else {self.committed}
            return self.programs.memory.state(request, committed)
        layer = LayerState.UNDEFINED
        if request.index == self.committed:
            layer = LayerState.COMMITTED
        elif request.index == self.open:
            layer = LayerState.OPEN
        has_results = self.committed is not None and request.result_bank == self.result_bank
        return State(
            layer=layer,
            layer_words=self.shape.words if layer else 0,
            layer_checksum=self.checksum,
            result_row_groups=self.shape.row_groups if has_results else 0,
        )

    def index(self, *states: LayerState) -> int:
        """The number of a layer in the first of some states that the scene has, else 0."""
        numbers = {
            LayerState.COMMITTED: self.committed,
            LayerState.OPEN: self.open,
            LayerState.UNDEFINED: self.undefined,
        }
        return next((n for n in map(numbers.__getitem__, states) if n is not None), 0)


def scenes(config: AcceleratorConfig, shape: LayerShape, base: int = 0) -> list[Scene]:
    """The scenes that show every state of a layer: one, or two if only one layer has room.

    Where there are two banks, the first result bank is empty.
    """
    found = _layer_scenes(config, shape, base)
    if config.vector is None:
        return found
    return [replace(scene, programs=_programs(config, scene)) for scene in found]


def _programs(config: AcceleratorConfig, scene: Scene) -> ScenePrograms:
    beyond = config.max_layers if config.max_layers < 1 << FIELD_BITS["index"] else None
    others = (scene.open, scene.undefined, beyond)
    assert config.vector is not None
    uncommitted = next(index for index in others if index is not None)
    return ScenePrograms(config.vector, scene.committed, uncommitted)


def _layer_scenes(config: AcceleratorConfig, shape: LayerShape, base: int) -> list[Scene]:
    """The scenes without what the vector unit holds."""
    last, bank = config.max_layers - 1, config.banks - 1
    if last > 0 and base + 2 * config.stored_words(shape.words) <= config.memory_words:
        undefined = last if last > 1 else None
        return [
            Scene(
                shape=shape,
                base=base,
                committed=0,
                open=1,
                undefined=undefined,
                result_bank=bank,
            )
        ]
    undefined = last if last > 0 else None
    return [
        Scene(shape=shape, base=base, open=0, undefined=undefined, result_bank=bank),
        Scene(shape=shape, base=base, committed=0, undefined=undefined, result_bank=bank),
    ]


def boundary_requests(config: AcceleratorConfig, scene: Scene, opcode: Opcode) -> list[Request]:
    """The boundary requests of an opcode, each once, for a device in a scene.

    A COMMIT or DEFINE that would change one of the scene's layers is left out.

    Parameters
    ----------
    config : the configuration of the device
    scene : the layers that are defined
    opcode : one of `checks_of(config)`

    Returns
    -------
    list[Request]
        Without session and seq. They change at most words of the open layer, activations, the
        definition of the layer that is not defined, the results, and the vector unit's words, steps
        and committed program.
    """
    requests: dict[Request, None] = {}
    for number, right in enumerate(_right(config, scene, opcode)):
        requests[right] = None
        requests.update(dict.fromkeys(_with_ignored_fields(right)))
        for check in checks_of(config)[opcode]:
            around = _around(config, scene, right, check, aliases=number == 0)
            requests.update(dict.fromkeys(around))
    return [request for request in requests if _keeps(config, scene, request)]


def opcode_requests(config: AcceleratorConfig) -> list[Request]:
    """Opcodes that a device does not have: beside the others, and one bit away from each of them.

    A device without a vector unit does not have those of the unit.
    """
    most = (1 << OPCODE_BITS) - 1
    bits = range(OPCODE_BITS)
    codes = checks_of(config)
    numbers = {0, *Opcode, max(Opcode) + 1, most}
    numbers |= {code ^ 1 << bit for code in codes for bit in bits}
    rights = [Request(number) for number in sorted(numbers) if number not in list(codes)]
    return [request for right in rights for request in (right, *_with_ignored_fields(right))]


def order_requests(expected: int, session: int, window: int) -> Iterator[Request]:
    """Requests that are not the next command: a seq or session that differs in one bit.

    Parameters
    ----------
    expected : seq of the next command
    session : the session of the device
    window : commands whose responses the device keeps; their numbers are left out
    """
    for bit in range(16):
        seq = expected ^ 1 << bit
        if (expected - seq) % (1 << 16) > window:
            yield Request(Opcode.COUNTERS, seq, session)
    for bit in range(SESSION_BITS):
        yield Request(Opcode.COUNTERS, expected, session ^ 1 << bit)


def possible(config: AcceleratorConfig, scene_list: list[Scene]) -> set[tuple[int, int]]:
    """Each opcode with each status that a design can give in response to it."""
    pairs = {(0, Status.BAD_OPCODE)}
    pairs |= {(Opcode.COUNTERS, Status.NAK), (Opcode.COUNTERS, Status.NO_SESSION)}
    for opcode, checks in checks_of(config).items():
        pairs.add((opcode, Status.OK))
        for check in checks:
            reachable = any(
                first_failure(config, request, scene.state(request)) == check
                for scene in scene_list
                for request in boundary_requests(config, scene, opcode)
            )
            if reachable or check.quantity in OF_STATE:
                pairs.add((opcode, check.status))
    return {(int(opcode), int(status)) for opcode, status in pairs}


def _right(config: AcceleratorConfig, scene: Scene, opcode: Opcode) -> list[Request]:
    """Requests that pass all checks of an opcode, as far as the scene allows."""
    open_ = scene.index(LayerState.OPEN, LayerState.COMMITTED)
    committed = scene.index(LayerState.COMMITTED, LayerState.OPEN)
    tokens = sorted({0, config.tokens - 1})
    match opcode:
        case Opcode.IDENTIFY:
            return [Request(opcode, count=1)]
        case Opcode.DEFINE:
            index = scene.index(LayerState.UNDEFINED)
            tiles = min(config.max_tiles, 3, config.memory_words)
            row_groups = min(config.max_row_groups, config.memory_words // tiles, 5)
            places = [(0, 1, 1)]
            block = min(config.align, config.max_row_groups)  # rows, of a whole block if they can
            for place in ((1, block), (1, 1), (tiles, row_groups)):
                stored = config.stored_words(place[0] * place[1])
                places.append((config.memory_words - stored, *place))
            rights = [
                Request(opcode, index=index, payload=LAYER.pack(*place))
                for place in dict.fromkeys(places)
            ]
            if config.max_group_sums:  # a bank's worth of sums, or as many as there are words for
                most = min(config.max_tiles, config.result_row_groups, config.memory_words)
                for tiles in sorted({*range(1, min(most, 4)), most}):
                    rows = min(config.result_row_groups // tiles, config.memory_words // tiles)
                    payload = LAYER.pack(0, tiles, min(rows, config.max_row_groups))
                    rights.append(Request(opcode, index=index, count=1, payload=payload))
            return rights
        case Opcode.WRITE:
            most = config.max_payload // config.word_bytes
            words = scene.shape.words
            if words > most:
                words = most - most % config.align
            return [
                Request(opcode, index=open_, payload=bytes(count * config.word_bytes))
                for count in sorted({min(config.align, words), words})
            ]
        case Opcode.LOAD | Opcode.SCALES:
            return [
                Request(
                    opcode,
                    index=token,
                    payload=bytes(UNITS[opcode].of(config)),
                    activation_bank=scene.activation_bank,
                )
                for token in tokens
            ]
        case Opcode.COMMIT:
            return [Request(opcode, index=open_, address=scene.checksum)]
        case Opcode.RESULTS:
            return [
                Request(opcode, index=tokens[-1], count=count, result_bank=scene.result_bank)
                for count in sorted({1, config.rows})
            ]
        case Opcode.RUN:
            return [
                Request(
                    opcode,
                    index=committed,
                    count=1,
                    activation_bank=scene.activation_bank,
                    result_bank=scene.result_bank,
                )
            ]
        case Opcode.READ:
            return [Request(opcode, index=committed, count=1)]
        case _ if scene.programs is not None and opcode in VECTOR_CHECKS:
            return _right_of_unit(config, scene.programs, opcode)
        case _:
            return [Request(opcode)]


def _right_of_unit(
    config: AcceleratorConfig, programs: ScenePrograms, opcode: Opcode
) -> list[Request]:
    """Requests that pass all checks of an opcode of the vector unit.

    Some of COMMIT_PROGRAM pass the checks before the last ones only.
    """
    assert config.vector is not None
    words = min(config.vector.words, config.max_payload // VECTOR_WORD_BYTES)
    match opcode:
        case Opcode.PUT:
            return [Request(opcode, payload=bytes(VECTOR_WORD_BYTES * n)) for n in (1, words)]
        case Opcode.GET:
            return [Request(opcode, count=count) for count in (1, words)]
        case Opcode.PROGRAM:
            most = config.max_payload // STEP_BYTES
            return [
                Request(opcode, address=programs.steps, payload=bytes(STEP_BYTES * count))
                for count in sorted({1, most})
            ]
        case Opcode.COMMIT_PROGRAM:
            return [
                Request(opcode, count=count, address=programs.checksum(count))
                for count in programs.counts
            ]
        case _:
            return [Request(opcode, address=address) for address in (0, programs.steps - 1)]


def _around(
    config: AcceleratorConfig, scene: Scene, right: Request, check: Check, *, aliases: bool
) -> Iterator[Request]:
    """Requests that differ from a right one in what one check compares.

    With `aliases` there are also values whose low bits alone are right.
    """
    state = scene.state(right)
    least, most = check.bounds(config, right, state)
    match check.quantity:
        case Quantity.PAYLOAD_BYTES | Quantity.REST_BYTES:
            stores = check.quantity == Quantity.REST_BYTES
            unit = UNITS[Opcode(right.opcode)].of(config) if stores else least
            sizes = {0, unit - 1, unit + 1}
            if aliases:
                sizes |= {config.max_payload - 1, config.max_payload}
                sizes |= {unit + (1 << bit) for bit in range(config.max_payload.bit_length())}
            for size in sorted(sizes):
                if 0 <= size <= config.max_payload:
                    yield replace(right, payload=(right.payload + bytes(size))[:size])
        case Quantity.REST_WORDS:
            words = len(right.payload) // config.word_bytes
            for count in (1, words - 1, words + 1):
                size = count * config.word_bytes
                if 0 <= size <= config.max_payload:
                    yield replace(right, payload=(right.payload + bytes(size))[:size])
        case Quantity.LAYER_STATE:
            for index in (scene.committed, scene.open, scene.undefined):
                if index is not None:
                    yield replace(right, index=index)
        case Quantity.PROGRAM_STEPS if check.least == Quantity.STEP_END:
            end = state.program_steps
            values = {end - 1, end, end + 1}
            if aliases:
                values |= _aliases(right.address, 0, end - 1, FIELD_BITS["address"])
            yield from (replace(right, address=value) for value in sorted(values))
        case Quantity.VOID_WORDS:
            return  # no request makes the memory fail
        case quantity if quantity in OF_STATE:
            return  # the checks of a result bank try the empty one, if there are two
        case quantity:
            now = value_of(quantity, config, right, state)
            for name in FIELDS[quantity]:
                field = _fields(right)[name]
                grouped = quantity == Quantity.ROW_GROUPS_END and name == "count"
                unit = config.rows if grouped else 1
                low, high = field + unit * (least - now), field + unit * (most - now)
                if quantity == Quantity.RESULTS_END:
                    high = most * field // now
                values = {value + off for value in (low, high) for off in (-1, 0, 1)}
                if aliases:
                    values |= _aliases(field, low, high, FIELD_BITS[name])
                for value in sorted(values):
                    if 0 <= value < 1 << FIELD_BITS[name]:
                        yield _with_field(right, name, value)


def _aliases(right: int, low: int, high: int, bits: int) -> set[int]:
    """Values that differ from a right one, or from one below `low`, in one high bit only.

    If only one value is right, that is every bit.
    """
    first = 0 if low == high else max(0, high).bit_length()
    aliases = {right ^ 1 << bit for bit in range(first, bits)} | {(1 << bits) - 1}
    if low > 0:
        aliases |= {low - 1 + (1 << bit) for bit in range(first)}
    return aliases


def _fields(request: Request) -> dict[str, int]:
    """The numbers of a request, those of DEFINE's payload too."""
    fields = {name: getattr(request, name) for name in REQUEST_FIELDS}
    if request.opcode == Opcode.DEFINE:
        fields |= zip(PLACE_FIELDS, LAYER.unpack(request.payload), strict=True)
    return fields


def _with_field(request: Request, name: str, value: int) -> Request:
    if name not in PLACE_FIELDS:
        return replace(request, **{name: value})  # type: ignore[arg-type]
    fields = _fields(request) | {name: value}
    return replace(request, payload=LAYER.pack(*(fields[field] for field in PLACE_FIELDS)))


def _with_ignored_fields(right: Request) -> Iterator[Request]:
    """A request with other values in the fields that its command ignores."""
    yield replace(right, acknowledged=0xA5)
    for name in sorted({"activation_bank", "result_bank"} - banks_read(right.opcode)):
        yield replace(right, **{name: 1})  # type: ignore[arg-type]


def _keeps(config: AcceleratorConfig, scene: Scene, request: Request) -> bool:
    """Whether a request leaves the layers of a scene as they are."""
    changes = request.opcode == Opcode.COMMIT or (
        request.opcode == Opcode.DEFINE and request.index in (scene.committed, scene.open)
    )
    return not changes or first_failure(config, request, scene.state(request)) is not None

"""What a run of a language model gives: the text, and what the device did for it."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tritloom.host.handle import Stats
from tritloom.host.models.placed_blocks import BlockPlan, PlacedBlocks
from tritloom.host.placement import LayerPlacement, Placement
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["BlocksUse", "LayerUse", "RoutineUse", "RunResult", "RunTimes", "Timing"]


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerUse:
    """What one layer did on the device.

    Members
    -------
    name : the layer's name
    shape : out_features, in_features
    where : `device`, `host`, or `device and host`; all that follows is of the device
    device_weights : weights that the device has
    tokens : activation vectors that the layer was multiplied with
    runs : RUN commands; a layer in several pieces needs one for each. RUN steps of programs count
        too, but their cycles and bytes are those of their routines
    run_cycles : the device's cycles of RUN; 0 if the device does not count
    bytes : bytes of whole packets, in both directions
    """

    name: str
    shape: tuple[int, int]
    where: str
    device_weights: int
    tokens: int
    runs: int
    run_cycles: int
    bytes: int

    @classmethod
    def of(
        cls,
        name: str,
        stats: Stats,
        placement: LayerPlacement | None = None,
        executions: int = 0,
    ) -> "LayerUse":
        """What the device did for a layer: it has the whole layer, or what `placement` says.

        `executions` are those of programs that name the layer.
        """
        shape = stats.out_features, stats.in_features
        return cls(
            name=name,
            shape=shape,
            where="device" if placement is None else placement.where,
            device_weights=shape[0] * shape[1] if placement is None else placement.device_weights,
            tokens=stats.tokens + executions,
            runs=stats.runs + executions,
            run_cycles=stats.cycles,
            bytes=stats.bytes_tx + stats.bytes_rx,
        )

    @property
    def macs(self) -> int:
        """Multiply-accumulates of the device; padding does not count."""
        return self.tokens * self.device_weights

    @property
    def mac_per_cycle_run(self) -> float:
        """Of RUN alone: no link, no front end."""
        return _rate(self.macs, self.run_cycles)

    def to_dict(self) -> dict[str, Any]:
        """The layer as JSON can hold it, with its rate."""
        return asdict(self) | {
            "shape": list(self.shape),
            "mac_per_cycle_run": self.mac_per_cycle_run,
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class RoutineUse:
    """What one routine of a program did on the device.

    Members
    -------
    name : of the routine
    executions : tokens that it computed
    cycles : the device's cycles, those of the layers included
    bytes : bytes of whole packets, in both directions
    """

    name: str
    executions: int
    cycles: int
    bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class BlocksUse:
    """Which operations of a model's blocks ran on the vector unit.

    Members
    -------
    form : `blocks`, `feed_forward` or `none`
    on_device, on_host : operations other than the products of layers
    reason : why the device did not compute more; empty if it could not
    summary : all of this in one line
    routines : of the program, in the order of use
    compared : floats that were compared with the golden model, bit for bit
    left_to_host : tokens whose numbers the unit does not compute with; the host computed them again
    token_bytes, token_cycles : of the last token that was computed by itself, with its hidden
        vector on the device; 0 if there was none
    """

    form: str
    on_device: tuple[str, ...]
    on_host: tuple[str, ...]
    reason: str
    summary: str
    routines: tuple[RoutineUse, ...] = ()
    compared: int = 0
    left_to_host: int = 0
    token_bytes: int = 0
    token_cycles: int = 0

    @classmethod
    def of(cls, plan: BlockPlan, blocks: PlacedBlocks | None = None) -> "BlocksUse":
        """What the device did: nothing without `blocks`, else what they did up to now."""
        uses = []
        if blocks is not None:
            for name in blocks.handle.program.routines:
                stats = blocks.handle.stats_of(name)
                uses.append(
                    RoutineUse(
                        name=name,
                        executions=stats.executions,
                        cycles=stats.cycles,
                        bytes=stats.bytes_tx + stats.bytes_rx,
                    )
                )
        return cls(
            form=plan.form,
            on_device=plan.on_device,
            on_host=plan.on_host,
            reason=plan.reason,
            summary=str(plan),
            routines=tuple(uses),
            compared=0 if blocks is None else blocks.compared,
            left_to_host=0 if blocks is None else blocks.left_to_host,
            token_bytes=0 if blocks is None else blocks.token.bytes_tx + blocks.token.bytes_rx,
            token_cycles=0 if blocks is None else blocks.token.cycles,
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class RunTimes:
    """Seconds that the host measured.

    Members
    -------
    connect_s : opening the device
    load_s : writing the weights
    first_token_s : from the weights' end to the first new token
    generate_s : from the weights' end to the last new token
    linear_s : of these, waiting for the device's products
    """

    connect_s: float
    load_s: float
    first_token_s: float
    generate_s: float
    linear_s: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing(RunTimes):
    """The host's seconds, and what follows from the device's cycles.

    Members
    -------
    tokens_per_s : new tokens, end to end as the host saw them
    run_cycles, run_s : cycles of RUN of all layers, and their time at `clock_hz`
    clock_hz : the clock in the device's configuration
    mac_per_cycle_run : reached by RUN in all layers together
    mac_per_cycle_peak : the most that the device's geometry allows
    bytes : bytes of all packets of layers and routines, in both directions
    program_cycles : cycles of the program's routines, RUN included
    """

    tokens_per_s: float
    run_cycles: int
    run_s: float
    clock_hz: int
    mac_per_cycle_run: float
    mac_per_cycle_peak: int
    bytes: int
    program_cycles: int


@dataclass(frozen=True, slots=True, kw_only=True)
class RunResult:
    """A finished run.

    Members
    -------
    model : name of the model's folder
    device : URL of the device
    prompt, prompt_ids : the text to continue, and its token ids
    ids, text : the new tokens, and their text
    placement : which layers ran where
    layers : what each layer did on the device, in the order of the model
    blocks : which operations ran as a program of the vector unit
    timing : of the whole run
    config : of the device
    plan : of the programs; None if the runtime has programs of its own
    """

    model: str
    device: str
    prompt: str
    prompt_ids: tuple[int, ...]
    ids: tuple[int, ...]
    text: str
    placement: Placement
    layers: tuple[LayerUse, ...]
    blocks: BlocksUse
    timing: Timing
    config: AcceleratorConfig
    plan: BlockPlan | None = None

    @classmethod
    def of(
        cls,
        *,
        model: str,
        device: str,
        prompt: str,
        prompt_ids: Sequence[int],
        ids: Sequence[int],
        text: str,
        placement: Placement,
        layers: Sequence[LayerUse],
        blocks: BlocksUse,
        run_cycles: int | None,
        times: RunTimes,
        config: AcceleratorConfig,
        plan: BlockPlan | None = None,
    ) -> "RunResult":
        """Make the result.

        `config` is the device's. `run_cycles` are those of all layers; None if they are those that
        the layers have counted.
        """
        if run_cycles is None:
            run_cycles = sum(layer.run_cycles for layer in layers)
        timing = Timing(
            **asdict(times),
            tokens_per_s=len(ids) / times.generate_s,
            run_cycles=run_cycles,
            run_s=run_cycles / config.clock_hz,
            clock_hz=config.clock_hz,
            mac_per_cycle_run=_rate(sum(layer.macs for layer in layers), run_cycles),
            mac_per_cycle_peak=config.macs_per_cycle,
            bytes=sum(layer.bytes for layer in layers)
            + sum(routine.bytes for routine in blocks.routines),
            program_cycles=sum(routine.cycles for routine in blocks.routines),
        )
        return cls(
            model=model,
            device=device,
            prompt=prompt,
            prompt_ids=tuple(prompt_ids),
            ids=tuple(ids),
            text=text,
            placement=placement,
            layers=tuple(layers),
            blocks=blocks,
            timing=timing,
            config=config,
            plan=plan,
        )

    def to_dict(self) -> dict[str, Any]:
        """The result as JSON can hold it."""
        return {
            "model": self.model,
            "device": self.device,
            "prompt": self.prompt,
            "prompt_ids": list(self.prompt_ids),
            "ids": list(self.ids),
            "text": self.text,
            "placement": self.placement.to_dict(),
            "layers": [layer.to_dict() for layer in self.layers],
            "blocks": asdict(self.blocks),
            "timing": asdict(self.timing),
        }


def _rate(macs: int, cycles: int) -> float:
    """MACs a cycle; 0 for a device that counts no cycles."""
    return macs / cycles if cycles else 0.0

"""Weight memory in SDR SDRAM."""

from tritloom.rtl.memories.line_contract import LineStore
from tritloom.rtl.memories.line_crossing import CrossedStore
from tritloom.rtl.memories.lines import LineMemory
from tritloom.rtl.memories.sdram_facts import Sdram
from tritloom.rtl.memories.sdram_store import SdramStore, sdram_pads
from tritloom.rtl.spec.config import AcceleratorConfig

__all__ = ["SdramMemory"]


class SdramMemory(LineMemory):
    """Weights in a chip of SDR SDRAM behind pads that have registers; see `SdramStore`.

    With a clock of its own the controller and the pads are in the domain `MEMORY_DOMAIN`.
    """

    def __init__(self, config: AcceleratorConfig) -> None:
        assert isinstance(config.memory, Sdram)
        super().__init__(config, sdram_pads(config.memory.chip))

    def create_store(self) -> LineStore:
        record = self.config.memory
        assert isinstance(record, Sdram)
        store = SdramStore(record, self.config, record.chip_format(self.config))
        if not record.clock_hz:
            return store
        return CrossedStore(store, self.format, sdram_pads(record.chip))

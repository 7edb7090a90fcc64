"""What the checks of a command compare: quantities, the states of a layer, and stages."""

from enum import IntEnum, StrEnum

__all__ = ["LayerState", "Quantity", "Stage"]


class LayerState(IntEnum):
    """What has been done with a layer; DEFINE opens it, COMMIT commits it, RESET forgets it."""

    UNDEFINED = 0
    OPEN = 1
    COMMITTED = 2


class Stage(IntEnum):
    """When a check can be made. The stages come in this order."""

    HEADER = 0
    """Before the payload: the header, the length and the device's state decide. Nothing changed."""
    PAYLOAD = 1
    """When the payload has come: its fields decide. Nothing changed."""
    WORD = 2
    """For each word before it moves. The words before it have moved."""
    END = 3
    """After the last word. All words have moved."""


class Quantity(StrEnum):
    """A number that a check compares; its value is the text that `check_table` prints."""

    PAYLOAD_BYTES = "payload bytes"
    INDEX = "index"
    COUNT = "count"
    ADDRESS = "address"
    TILES = "tiles"
    ROW_GROUPS = "row groups"
    MEMORY_END = "base + tiles × row groups"
    GROUP_TILES = "tiles of a group"
    """`count` of DEFINE; 0: the whole row is one group of inputs. This and the next one
    only if the configuration has groups."""
    RESULTS_END = "groups × row groups"
    """Row groups of sums, of DEFINE: tiles / count groups, rounded up."""
    ITEMS_END = "address + count"
    """The end of what IDENTIFY (bytes), READ and GET (words) read."""
    WORDS_END = "address + words"
    """The end of the whole words that WRITE, LOAD, PUT, PROGRAM (steps) and SCALES (float32) store;
    0 if the payload has none."""
    ROW_GROUPS_END = "address + row groups of count"
    """The end of the row groups that RESULTS reads, the last of them perhaps in part."""
    REST_BYTES = "payload bytes beyond whole words"
    ADDRESS_REST = "address beyond whole blocks"
    BASE_REST = "base beyond whole blocks"
    REST_WORDS = "words beyond whole blocks"
    """Of WRITE; 0 if they end the layer. This and the two above only if a block has several
    words."""
    LAYER_STATE = "layer"
    """The `LayerState` of layer `index`."""
    LAYER_WORDS = "words of the layer"
    LAYER_CHECKSUM = "CRC-32 of the layer's words"
    ACTIVATION_BANK = "activation bank"
    RESULT_BANK = "result bank"
    RESULT_ROW_GROUPS = "row groups of the bank's last RUN"
    """0 if no RUN came in this session."""
    VOID_WORDS = "void weight words"
    """1 if the weight memory failed in a word that READ or COMMIT reads, or in one of the last RUN
    of the bank (RESULTS) or of the last program (GET), else 0. Only if the memory can fail."""
    NOT_FINITE = "results of the last program that are not finite"
    """1 if there are any, 0 if there are none or no EXECUTE came in this session."""
    PROGRAM_CHECKSUM = "CRC-32 of the steps"
    WRONG_STEPS = "steps that are not right"
    """1 if an operation is unknown, an address lies beyond the vector memory, or the last step is
    not END; else 0."""
    OPEN_LAYERS = "steps whose layer is not committed"
    """1 if there are any, else 0."""
    PROGRAM_STEPS = "committed steps"
    STEP_END = "address + 1"

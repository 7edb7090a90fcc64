import hashlib
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace

import numpy as np
import pytest

from tritloom.boards.icebreaker import ICEBREAKER
from tritloom.boards.ulx3s import ULX3S_85F
from tritloom.gen.emit import generate as module
from tritloom.gen.emit import verilog
from tritloom.gen.emit.diagram import HEIGHT, WIDTH, block_diagram
from tritloom.gen.emit.files import write_files
from tritloom.gen.emit.generate import generate
from tritloom.gen.emit.header import c_header
from tritloom.gen.emit.manifest import attribute_docs, describe
from tritloom.gen.emit.names import check_name
from tritloom.rtl.control.tasks import task_layout
from tritloom.rtl.links.port_names import AXI, PLAIN, PortNames
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import commands, requests
from tritloom.rtl.spec.checks import checks_of
from tritloom.rtl.spec.commands import (
    COUNTERS,
    IDENTITY,
    LAYER,
    Opcode,
    Request,
    Response,
    Status,
)
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import InputError, ToolError
from tritloom.rtl.spec.packing import pack_activations, pack_results, pack_weights
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.rtl.spec.vector_facts import VectorConfig
from tritloom.rtl.spec.vector_program import Factor, Operation, Second, Step, encode_program
from tritloom.sim.device.reference import ReferenceDevice
from tritloom.sim.tools import run_yosys

FILES = ["tritloom.v", "tritloom.h", "tritloom.svg", "manifest.json"]
UART = replace(TINY, link=Uart(baud=1_000_000))
VECTOR = replace(TINY, vector=VectorConfig(words=65536, multipliers=2, bfloat16=True))
LARGEST = AcceleratorConfig(
    lanes=1000,
    rows=16,
    tokens=16,
    fill=100,
    memory=BlockRam(words=1 << 28),
    max_in_features=16384,
    max_out_features=1 << 18,
    max_layers=256,
    packet_bytes=4096,
    slots=64,
    clock_hz=1_000_000_000,
)
FLOAT = replace(TINY, scale=ScaleConfig(kind="float", group=10))
CONFIGS = {
    "tiny": TINY,
    "uart": UART,
    "largest": LARGEST,
    "ulx3s": ULX3S_85F.config,
    "icebreaker": ICEBREAKER.config,
    "vector": VECTOR,
    "float": FLOAT,
}
every_config = pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)


@pytest.fixture(scope="session")
def tiny(tmp_path_factory):
    """What `generate` writes for TINY."""
    folder = tmp_path_factory.mktemp("generated") / "tiny"
    assert [path.relative_to(folder).as_posix() for path in generate(TINY, folder)] == FILES
    return folder


def arrays(verilog):
    """Bits and depth of each memory in Verilog."""
    matches = re.findall(r"^  reg \[(\d+):0\] \S+ +\[(\d+):0\];$", verilog, re.MULTILINE)
    return sorted((int(high) + 1, int(last) + 1) for high, last in matches)


def wanted_arrays(config):
    packets = config.slots * config.packet_bytes
    entry = (
        2 * config.memory_words.bit_length()
        + (config.max_tiles - 1).bit_length()
        + (config.max_row_groups - 1).bit_length()
        + 2
    )
    full, rest = divmod(config.memory_words, BlockRam.BANK_WORDS)
    banks = [BlockRam.BANK_WORDS] * full + [rest] * bool(rest)
    pitch = 1 << (config.activation_words - 1).bit_length()
    activations = (config.banks - 1) * pitch + config.activation_words
    return sorted(
        [
            (8, packets),
            (8, packets),
            (8, len(commands.identity(config))),
            (entry, config.max_layers),
            *((config.word_bits, words) for words in banks),
            (config.tokens * config.fill * config.act_bits, activations),
            *[(config.tokens * config.rows * config.acc_bits, config.max_row_groups)]
            * config.banks,
            # Tasks of the responder: the queue has one more in its output register.
            *[(task_layout(config).size, max(3, config.slots) - 1)] * (config.banks > 1),
        ]
    )


@pytest.mark.sim
class TestVerilog:
    def test_text(self, tiny):
        verilog = (tiny / "tritloom.v").read_text()
        assert verilog.startswith(f"// Tritloom accelerator {TINY.to_json()}\n\nmodule tritloom(")
        assert "always @*" not in verilog and "always_comb" not in verilog
        assert "(*" not in verilog and "Yosys" not in verilog and "$auto" not in verilog
        assert not re.search(r"/\w+/\w+", verilog), "a path"
        modules = re.findall(r"^module \\?(\S+?) ?\(", verilog, re.MULTILINE)
        assert all(name == "tritloom" or name.startswith("tritloom.") for name in modules)

    def test_memories(self, tiny):
        """They stay arrays, each of them, so that any tool can put them into block RAM."""
        assert arrays((tiny / "tritloom.v").read_text()) == wanted_arrays(TINY)

    def test_ports(self, tiny, tmp_path):
        """The manifest has those of the top module, which is without width or driver defects."""
        shutil.copy(tiny / "tritloom.v", tmp_path)
        run_yosys(
            ["-q", "-p", "read_verilog tritloom.v; hierarchy -check -top tritloom; proc; "]
            + ["-p", "check -assert; write_json top.json"],
            tmp_path,
        )
        top = json.loads((tmp_path / "top.json").read_text())["modules"]["tritloom"]
        matches = {
            (name, port["direction"], len(port["bits"])) for name, port in top["ports"].items()
        }
        content = json.loads((tiny / "manifest.json").read_text())["ports"]
        assert matches == {(port["name"], port["direction"], port["bits"]) for port in content}

    def test_block_rams(self, tmp_path):
        """iCE40: as many as the arithmetic says, of the 30 that the part has."""
        config = ICEBREAKER.config
        generate(config, tmp_path)
        run_yosys(
            ["-p", "read_verilog tritloom.v; synth_ice40 -top tritloom -run begin:map_ffram"]
            + ["-p", "tee -o stat.json stat -json"],
            tmp_path,
        )
        cells = json.loads((tmp_path / "stat.json").read_text())["design"]["num_cells_by_type"]
        used = sum(count for name, count in cells.items() if "SB_RAM40" in name)
        # 256 × 16 bits each: 2 × 6 for 1536 × 32 bits of weights, and one or two for the others.
        assert 12 + 5 <= used <= 24


@pytest.mark.sim
@pytest.mark.slow
def test_board_memories(tmp_path):
    generate(ULX3S_85F.config, tmp_path)
    assert arrays((tmp_path / "tritloom.v").read_text()) == wanted_arrays(ULX3S_85F.config)


@pytest.mark.sim
class TestGenerate:
    def test_same_bytes(self, tiny, tmp_path):
        """In another process, folder and home, with another order of hashes."""
        (tmp_path / "tiny.json").write_text(TINY.to_json())
        subprocess.run(
            [
                *(sys.executable, "-c"),
                "import sys; from tritloom.gen.cli.main import main; sys.exit(main())",
                *("generate", "--config", "tiny.json", "-o", "out"),
            ],
            cwd=tmp_path,
            env={**os.environ, "PYTHONHASHSEED": "1", "TMPDIR": str(tmp_path), "LC_ALL": "C"},
            check=True,
            timeout=120,
        )
        for name in FILES:
            assert (tmp_path / "out" / name).read_bytes() == (tiny / name).read_bytes(), name

    def test_digests(self, tiny):
        manifest = json.loads((tiny / "manifest.json").read_text())
        assert sorted(path.name for path in tiny.iterdir()) == sorted(FILES)
        assert list(manifest["files"]) == FILES[:-1]
        for name, facts in manifest["files"].items():
            assert facts == {"sha256": hashlib.sha256((tiny / name).read_bytes()).hexdigest()}

    def test_replaces(self, tiny, tmp_path):
        (tmp_path / "tritloom.v").write_text("old")
        (tmp_path / "mine.txt").write_text("mine")
        generate(TINY, tmp_path)
        assert (tmp_path / "tritloom.v").read_bytes() == (tiny / "tritloom.v").read_bytes()
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*FILES, "mine.txt"])


class TestWriteFiles:
    def test_failed_early(self, tmp_path, monkeypatch):
        """Before all of it is there, not even the folder is made."""

        def fail(config, name, port_names):
            raise InputError("no Verilog today")

        monkeypatch.setattr(module, "emit", fail)
        with pytest.raises(InputError, match=r"^no Verilog today$"):
            generate(TINY, tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_disk_full(self, tmp_path, monkeypatch):
        """The second file cannot be written: the first one does not appear either."""
        write_bytes = type(tmp_path).write_bytes

        def full(path, content):
            if path.name == "b":
                raise OSError(28, "No space left on device")
            return write_bytes(path, content)

        monkeypatch.setattr(type(tmp_path), "write_bytes", full)
        with pytest.raises(InputError) as error:
            write_files(tmp_path / "out", {"a": "1", "b": "2"})
        assert str(error.value) == (
            f"cannot write to {tmp_path / 'out'}: No space left on device; choose another folder"
        )
        assert not list(tmp_path.iterdir())

    @pytest.mark.sim
    def test_cut_verilog(self, tmp_path, monkeypatch):
        """On a full disk yosys writes a part of the Verilog and ends without an error."""

        def yosys(arguments, cwd):
            (cwd / "top.v").write_text("/* yosys */\nmodule tritloom(clk);\n  input cl")

        monkeypatch.setattr(verilog, "run_yosys", yosys)
        with pytest.raises(ToolError, match=r"^top\.v was written only in part; is the disk of "):
            generate(TINY, tmp_path / "out")
        assert not list(tmp_path.iterdir())

    def test_keeps_old(self, tmp_path, monkeypatch):
        (tmp_path / "a").write_text("old")

        def interrupted(path, content):
            raise KeyboardInterrupt

        monkeypatch.setattr(type(tmp_path), "write_bytes", interrupted)
        with pytest.raises(KeyboardInterrupt):
            write_files(tmp_path, {"a": "new"})
        assert [path.name for path in tmp_path.iterdir()] == ["a"]
        assert (tmp_path / "a").read_text() == "old"

    def test_not_a_folder(self, tmp_path):
        file = tmp_path / "file"
        file.write_text("")
        with pytest.raises(InputError) as error:
            write_files(file, {"a": "1"})
        assert str(error.value) == f"cannot write to {file}: File exists; choose another folder"


class TestNames:
    @pytest.mark.parametrize("name", ["a", "Core_1", "tritloom", "x" * 64])
    def test_accepted(self, name):
        assert check_name(name) == name

    @pytest.mark.parametrize("name", ["", "1a", "_a", "a_", "a__b", "a-b", "é", "a.b", "x" * 65])
    def test_refused(self, name):
        with pytest.raises(InputError) as error:
            check_name(name)
        assert str(error.value) == (
            "name must be a letter, then letters, digits and single underscores between them, at "
            f"most 64, not {name!r}"
        )

    @pytest.mark.parametrize("name", ["module", "entity", "Buffer", "int"])
    def test_reserved(self, name):
        with pytest.raises(InputError) as error:
            check_name(name)
        assert str(error.value) == (
            f"name must not be {name!r}, a reserved word of Verilog, VHDL or C; choose another"
        )

    def test_header(self):
        """Every macro and the guard carry the name."""
        header = c_header(describe(TINY, "core_a"))
        assert set(re.findall(r"TRITLOOM\w*", header)) == set()
        names = re.findall(r"^#(?:define|ifndef) (\w+)", header, re.MULTILINE)
        assert names[:2] == ["CORE_A_H"] * 2
        assert all(name.startswith("CORE_A_") for name in names)

    def test_folder_of_another_design(self, tmp_path):
        (tmp_path / "manifest.json").write_text('{"top": "core_a"}')
        with pytest.raises(InputError) as error:
            generate(TINY, tmp_path, "core_b")
        assert str(error.value) == (
            f"{tmp_path} holds the design 'core_a'; choose another folder for 'core_b', or remove "
            "it"
        )
        assert [path.name for path in tmp_path.iterdir()] == ["manifest.json"]


class TestManifest:
    @every_config
    def test_configuration(self, config):
        manifest = json.loads(json.dumps(describe(config)))
        assert AcceleratorConfig.from_dict(manifest["config"]) == config
        assert manifest["digests"] == {
            "layout": config.layout_digest.hex(),
            "build": config.build_digest.hex(),
        }
        derived = manifest["derived"]
        for name in ("word_bits", "acc_bits", "max_payload", "window", "engine_latency"):
            assert derived[name] == getattr(config, name)
        assert derived["weight_capacity"] == config.memory_words * config.macs_per_cycle // (
            config.tokens
        )

    def test_ports(self):
        ports = {port["name"]: port for port in describe(TINY)["ports"]}
        streams = [f"{name}_{part}" for name in "io" for part in ("data", "last", "valid", "ready")]
        assert list(ports)[:10] == ["clk", "rst", *streams]
        assert ports["o_data"] == {
            "name": "o_data",
            "direction": "output",
            "bits": 8,
            "meaning": "responses: one byte of a packet",
        }
        assert all(port["meaning"] for port in ports.values())

    def test_axi_ports(self):
        described = describe(TINY, "core", AXI)
        ports = {port["name"]: port for port in described["ports"]}
        streams = [
            f"{side}_axis_t{part}" for side in "sm" for part in ("data", "last", "valid", "ready")
        ]
        assert list(ports)[:10] == ["aclk", "aresetn", *streams]
        assert ports["aresetn"]["meaning"].startswith("synchronous reset, active low;")
        assert described["top"] == "core"
        assert PortNames.from_dict(described["interface"]) == AXI.of_width(1)

    @pytest.mark.parametrize("names", [PLAIN, AXI])
    def test_wide_ports(self, names):
        described = describe(replace(TINY, link=PacketStream(width=8)), "core", names)
        ports = {port["name"]: port for port in described["ports"]}
        narrow = [port["name"] for port in describe(TINY, "core", names)["ports"]]
        assert list(ports) == narrow + ["m_axis_tkeep"] * (names == AXI)
        data = ports[names.commands.data]
        last = ports[names.responses.last]
        assert (data["bits"], last["bits"]) == (64, 1)
        assert data["meaning"] == (
            "commands: 8 bytes of a packet, the first one in the low bits; in the last beat, those "
            "after the packet's length can be anything"
        )
        assert last["meaning"] == "responses: high with the last beat of a packet"
        assert PortNames.from_dict(described["interface"]) == names

    @pytest.mark.parametrize("width", [2, 8])
    def test_kept_bytes(self, width):
        """The fifth pin of a wide AXI4-Stream of responses."""
        described = describe(replace(TINY, link=PacketStream(width=width)), "core", AXI)
        assert described["ports"][-1] == {
            "name": "m_axis_tkeep",
            "direction": "output",
            "bits": width,
            "meaning": "responses: the bytes of data that belong to the packet, a bit each; holds "
            "with data",
        }
        assert described["interface"]["responses"]["keep"] == "m_axis_tkeep"
        assert "keep" not in described["interface"]["commands"]

    def test_vhdl_names(self):
        """VHDL has no two underscores in a row, none at an end, and does not tell case apart."""
        for config in (TINY, UART):
            for names in (PLAIN, AXI) if config is TINY else (PLAIN,):
                ports = [port["name"].lower() for port in describe(config, "c", names)["ports"]]
                assert len(set(ports)) == len(ports)
                for port in ports:
                    assert check_name(port) == port

    def test_axi_needs_streams(self):
        with pytest.raises(InputError) as error:
            describe(UART, "core", AXI)
        assert str(error.value) == (
            "AXI4-Stream names need packet streams, which this configuration's link does not have; "
            "choose the stream link or leave --axi out"
        )

    def test_uart_ports(self):
        assert describe(UART)["interface"] == {
            "clock": "clk",
            "reset": "rst",
            "reset_active": "high",
        }
        ports = describe(UART)["ports"]
        assert [port["name"] for port in ports[:4]] == ["clk", "rst", "rx", "tx"]
        assert [port["direction"] for port in ports[2:4]] == ["input", "output"]
        assert all(port["meaning"] for port in ports)

    @pytest.mark.parametrize(
        ("key", "packet"),
        [
            ("request", Request(7, 2, 3, 4, 5, 6, b"abc", 0, 1, 200)),
            ("request", Request(63, 0xFFFF, 0xFFFFFF, 255, 0xFFFF, 0xFFFFFFFF, b"", 1, 0, 0)),
            ("response", Response(7, 2, 3, 4, 5, 6, b"abc", 1, 0, 200)),
            ("response", Response(0, 2, 0, 4, 5, 6, b"", 0, 1, 255)),
        ],
    )
    def test_headers(self, key, packet):
        """Every field is read from its bits, and the fields are all bits of the header."""
        fields = describe(TINY)["commands"][key]
        data = packet.pack()
        for field in fields:
            size = field["bytes"]
            whole = int.from_bytes(data[field["offset"] : field["offset"] + size], "little")
            value = whole >> field["shift"] & (1 << field["bits"]) - 1
            name = field["name"]
            assert value == (len(data) if name == "length" else getattr(packet, name)), name
        names = [field["name"] for field in fields]
        assert set(names) == {"length", *type(packet).__slots__} - {"payload"}
        starts = [8 * field["offset"] + field["shift"] for field in fields]
        ends = [start + field["bits"] for start, field in zip(starts, fields, strict=True)]
        assert [0, *ends] == [*starts, 8 * commands.HEADER_BYTES]
        assert all(field["shift"] + field["bits"] <= 8 * field["bytes"] for field in fields)

    def test_derived_are_public(self):
        """Nothing such as the hash of the record, which each process has another of."""
        assert not any(name.startswith("_") for name in describe(TINY)["derived"])

    def test_commands(self):
        content = describe(TINY)["commands"]
        opcodes = {c["name"]: c["value"] for c in content["opcodes"]}
        assert opcodes == {opcode.name: opcode for opcode in checks_of(TINY)}
        vector = describe(replace(TINY, vector=VectorConfig(words=64)))["commands"]
        scaled = describe(replace(TINY, scale=ScaleConfig(kind="float")))["commands"]
        of_vector, of_scales = (
            {c["name"]: c["value"] for c in each["opcodes"]} for each in (vector, scaled)
        )
        assert of_vector | of_scales == Opcode.__members__
        assert (
            of_scales.keys() - opcodes.keys() == {"SCALES"} == of_scales.keys() - of_vector.keys()
        )
        assert vector["counters"]["order"][-1] == "vector_stall_cycles"
        assert vector["counters"]["meaning"].startswith(content["counters"]["meaning"])
        assert "cycles of EXECUTE" in vector["counters"]["meaning"]
        assert {c["name"]: c["value"] for c in content["status"]} == Status.__members__
        assert all(command["meaning"] for command in content["opcodes"])
        checks = {command["name"]: command["checks"] for command in content["opcodes"]}
        assert checks["RESULTS"][2] == {
            "must_hold": "1 ≤ count ≤ max_payload // acc_bytes",
            "status": "BAD_LENGTH",
            "least": 1,
            "most": TINY.max_payload // TINY.acc_bytes,
        }
        assert checks["COMMIT"][-1] == {
            "must_hold": "address = CRC-32 of the layer's words",
            "status": "BAD_CHECKSUM",
        }
        assert content["counters"]["order"] == list(COUNTERS)
        for key, layout in (("layer", LAYER), ("identity", IDENTITY)):
            last = content[key]["fields"][-1]
            assert last["offset"] + last["bytes"] == layout.size
        head = commands.identity(TINY)
        for field in content["identity"]["fields"][3:]:
            digest = head[field["offset"] : field["offset"] + field["bytes"]].hex()
            assert digest == describe(TINY)["digests"][field["name"].removesuffix("_digest")]
        assert content["rules"][0].startswith("The command set: packets, opcodes, status codes.")

    def test_steps(self):
        """The fields of a step are read from their bits."""
        assert "vector" not in describe(TINY)
        unit = describe(VECTOR)["vector"]
        step = Step(
            operation=Operation.PRODUCT,
            factor=Factor.DIVISOR,
            second=Second.SCALAR,
            relu=True,
            codes=True,
            count=259,
            a=1,
            b=515,
            c=4660,
        )
        data = encode_program([step])
        assert len(data) == unit["step_bytes"]
        values = {}
        for field in unit["step"]:
            place = slice(field["offset"], field["offset"] + field["bytes"])
            whole = int.from_bytes(data[place], "little")
            values[field["name"]] = whole >> field["shift"] & (1 << field["bits"]) - 1
        assert values.pop("last") == 258
        assert all(value == getattr(step, name) for name, value in values.items())
        for key, kind in (("operations", Operation), ("factors", Factor), ("seconds", Second)):
            assert {member["name"]: member["value"] for member in unit[key]} == kind.__members__

    def test_crc(self):
        """The parameters told give the checksum that packets have."""
        content = describe(TINY)["commands"]["crc"]
        assert content["reflect_input"] and content["reflect_output"]
        polynomial = int(f"{int(content['polynomial'], 16):032b}"[::-1], 2)
        crc = int(content["initial"], 16)
        for byte in b"123456789":
            crc ^= byte
            for _ in range(8):
                crc = crc >> 1 ^ (polynomial if crc & 1 else 0)
        sealed = commands.seal(b"123456789")[9:]
        assert (crc ^ int(content["xor_output"], 16)).to_bytes(content["bytes"], "little") == sealed

    def test_weights(self):
        """The example is what the packer makes."""
        content = describe(TINY)["weights"]
        assert (content["encoding"], content["trits_per_code"], content["code_bits"]) == (
            "base3x5",
            5,
            8,
        )
        assert content["codes_per_word"] == 2
        trits = np.array([content["example"]["trits"]], np.int8)
        assert pack_weights(TINY, trits)[0] == content["example"]["code"]
        assert set(trits[0].tolist()) == {-1, 0, 1}
        assert encodings["base3x5"].name == content["encoding"]
        assert (content["code_stride"], content["signed"]) == (1, False)

    def test_weights_that_take_turns(self):
        """With the manifest alone: inputs of a code are apart, signs relative to another's."""
        config = replace(TINY, lanes=24, engine="table", encoding="sym6x10", fill=2)
        content = describe(config)["weights"]
        assert (content["code_stride"], content["signed"], content["codes_per_word"]) == (
            2,
            True,
            8,
        )
        assert any("relative" in rule for rule in content["encoding_rules"])
        word = np.zeros(
            (2, 2, 6, 2), np.int8
        )  # rows, parts, trits of a code, codes that take turns
        word[0, 1, :, 0] = np.array(content["example"]["trits"])
        word[0, 1, :, 1] = -word[0, 1, :, 0]
        number = int.from_bytes(pack_weights(config, word.reshape(2, 24)), "little")
        codes = [number >> content["code_bits"] * n & 1023 for n in range(8)]
        example = content["example"]["code"]
        # Code 3 is relative to code 2, which is 0.
        assert codes == [0, example, 0, example ^ 512, 0, 0, 0, 0]
        assert "#define TRITLOOM_CODE_STRIDE 2\n" in c_header(describe(config))
        assert "#define TRITLOOM_CODE_SIGNED 1\n" in c_header(describe(config))

    @pytest.mark.parametrize("act_bits", [4, 8])
    def test_activations_and_results(self, act_bits):
        """With the manifest alone: activations as bytes in, signed results out."""
        config = replace(TINY, act_bits=act_bits)
        described = describe(config)
        content = described["activations"]
        limits = {4: (-8, 7), 8: (-128, 127)}[act_bits]
        assert (content["bytes"], content["least"], content["most"]) == (1, *limits)
        assert pack_activations(config, np.array([-1, 2], np.int8))[:2] == b"\xff\x02"
        content = described["results"]
        sums = [-1, 1, -(1 << 8 * content["bytes"] - 1)]
        sent = pack_results(config, np.array(sums, np.int32))
        size = content["bytes"]
        numbers = [sent[n * size : (n + 1) * size] for n in range(3)]
        assert content["signed"] == "two's complement"
        assert [int.from_bytes(n, content["byte_order"], signed=True) for n in numbers] == sums

    def test_scales_of_activations(self):
        """With the manifest alone: float32, at most one for each tile of a token."""
        content = describe(FLOAT)["activations"]["scales"]
        (request,) = requests.load_scales(0, np.array([-1.5, 2], np.float32), 108)
        assert content["float"] == "IEEE 754 single precision"
        assert len(request.payload) == 2 * content["bytes"]
        order = {"little": "<"}[content["byte_order"]]
        assert struct.unpack(f"{order}2f", request.payload) == (-1.5, 2)
        assert content["per_token"] == 4
        names = {each["name"] for each in describe(FLOAT)["commands"]["opcodes"]}
        assert "SCALES" in names and "TRITLOOM_OP_SCALES 16 " in c_header(describe(FLOAT))
        for scale in (None, ScaleConfig(group=10)):
            other = describe(replace(TINY, scale=scale))
            assert "scales" not in other["activations"]
            assert "SCALE_BYTES" not in c_header(other) and "OP_SCALES" not in c_header(other)

    def test_flow_control(self):
        """The first seq and the window are those of the reference device."""
        content = describe(TINY)["flow_control"]
        device = ReferenceDevice(TINY)
        device.process(Request(Opcode.RESET, session=5).pack())
        request = Request(Opcode.COUNTERS, content["first_seq"], 5).pack()
        assert Response.parse(device.process(request)).status == Status.OK
        assert content["window"] == TINY.slots - 1

    def test_attribute_docs(self):
        assert attribute_docs(Status)["NO_SESSION"] == (
            "The packet belongs to another session; send RESET."
        )
        assert "BAD_OPCODE" not in attribute_docs(Status)
        assert attribute_docs(commands)["LAYER"] == (
            "Payload of DEFINE: base (in words), tiles, row groups."
        )


PROGRAM = r"""
#include <stdio.h>
#include <string.h>
#include "tritloom.h"

static void put(unsigned char *p, unsigned long value, int bytes) {
  int i;
  for (i = 0; i < bytes; i++) p[i] = (unsigned char)(value >> (8 * i));
}
#define PUT(field, value) \
  put(header + TRITLOOM_REQUEST_##field##_OFFSET, value, TRITLOOM_REQUEST_##field##_BYTES)

int main(void) {
  unsigned char header[TRITLOOM_HEADER_BYTES];
  const unsigned char layout[] = TRITLOOM_LAYOUT_DIGEST;
  size_t i;
  memset(header, 0, sizeof header);
  PUT(LENGTH, TRITLOOM_OVERHEAD_BYTES);
  PUT(SEQ, 0x1234);
  PUT(SESSION, 0xabcdefUL);
  PUT(ACKNOWLEDGED, 0x89);
  PUT(OPCODE, TRITLOOM_OP_RESULTS | 1 << TRITLOOM_REQUEST_RESULT_BANK_SHIFT);
  PUT(INDEX, 1);
  PUT(COUNT, TRITLOOM_MAX_OUT_FEATURES);
  PUT(ADDRESS, 0x01020304UL);
  for (i = 0; i < sizeof header; i++) printf("%02x", header[i]);
  printf(" ");
  for (i = 0; i < sizeof layout; i++) printf("%02x", layout[i]);
  printf(" %s %s %d\n", TRITLOOM_MAGIC, TRITLOOM_ENGINE, TRITLOOM_STATUS_BAD_CHECKSUM);
  return 0;
}
"""


class TestHeader:
    @every_config
    def test_macros(self, config):
        """Each once, in ASCII, and none with a comment that does not end on its line."""
        header = c_header(describe(config))
        assert header.isascii()
        header, functions, _ = header.partition("/* Functions for a driver.")
        assert functions and "?" not in header
        names = re.findall(r"^#define (\w+)", header, re.MULTILINE)
        assert len(names) == len(set(names))
        assert all(name.startswith("TRITLOOM_") for name in names)
        assert header.count("/*") == header.count("*/")
        assert all(line.count("/*") == line.count("*/") for line in header.splitlines()[2:])

    @pytest.mark.sim
    @pytest.mark.parametrize("language", ["c", "c++"])
    def test_compiles(self, tmp_path, language):
        """A program that packs a command with it packs what the driver packs."""
        (tmp_path / "tritloom.h").write_text(c_header(describe(TINY)))
        (tmp_path / "main.c").write_text(PROGRAM)
        standard = {"c": "-std=c99", "c++": "-std=c++11"}[language]
        compiler = {"c": "cc", "c++": "c++"}[language]
        command = [compiler] if shutil.which(compiler) else [sys.executable, "-m", "ziglang"]
        if command[0] != compiler:
            command.append(compiler)
        strict = ["-Wall", "-Wextra", "-pedantic", "-Werror"]
        subprocess.run(
            [*command, "-x", language, standard, *strict, "main.c", "-o", "main"],
            cwd=tmp_path,
            check=True,
            timeout=300,
        )
        request = Request(
            Opcode.RESULTS, 0x1234, 0xABCDEF, 1, 16, 0x01020304, b"", 0, 1, 0x89
        ).pack()[:16]
        ran = subprocess.run([tmp_path / "main"], capture_output=True, text=True, check=True)
        assert ran.stdout == f"{request.hex()} {TINY.layout_digest.hex()} TRIT select 7\n"


def texts(svg):
    space = "{http://www.w3.org/2000/svg}"
    for element in svg.iter(f"{space}text"):
        size, x = int(element.get("font-size")), int(element.get("x"))
        # DejaVu Sans, the widest of the usual fonts: 0.56 of its size for a letter, bold 0.66.
        width = len(element.text) * size * (0.66 if element.get("font-weight") else 0.56)
        left = {"start": x, "middle": x - width / 2, "end": x - width}[element.get("text-anchor")]
        yield element.text, left, left + width, int(element.get("y")), size


class TestDiagram:
    @every_config
    def test_fits(self, config):
        """Every text is on the page, those of a block within it, and no two overlap."""
        svg = ET.fromstring(block_diagram(config))
        boxes = [
            tuple(int(rect.get(key)) for key in ("x", "y", "width", "height"))
            for rect in svg.iter("{http://www.w3.org/2000/svg}rect")
            if (rect.get("fill") or "none") not in ("none", "#ffffff")
        ]
        assert len(boxes) == 7 + (config.vector is not None)
        places = list(texts(svg))
        for text, left, right, y, size in places:
            assert left >= 0 and right <= WIDTH and size <= y <= HEIGHT - 5, text
            for x, top, width, height in boxes:
                middle = (left + right) / 2
                if x < middle < x + width and top < y < top + height:
                    assert left >= x and right <= x + width, text
        for index, (text, left, right, y, size) in enumerate(places):
            for other, left_2, right_2, y_2, _ in places[:index]:
                apart = right <= left_2 or right_2 <= left or abs(y - y_2) >= size
                assert apart, (text, other)

    def test_numbers(self):
        config = ULX3S_85F.config
        shown = [text for text, *_ in texts(ET.fromstring(block_diagram(config)))]
        for text in (
            "65 lanes × 4 rows × 1 token: at most 260 MAC/cycle of RUN, 20.80 GMAC/s at 80 MHz",
            "4,608 × 416 bits",
            "base3x5, latency 4 cycles",
            f"latency {config.engine_latency} cycles",
            "416 × 40 bits",
            "512 × 80 bits",
            "results: 4 × 20 bits",
            "10 commands, 7 in flight",
            "1,198,080 weights in 64 layers, each of at most 2,080 inputs and 2,048 outputs",
        ):
            assert text in shown

    def test_vector_unit(self):
        shown = [text for text, *_ in texts(ET.fromstring(block_diagram(VECTOR)))]
        assert {"Vector unit", "2 multipliers, 512 steps", "15 commands, 1 in flight"} <= set(shown)
        assert "65,536 × 32 bits, bfloat16" in shown

    def test_uart(self):
        shown = [text for text, *_ in texts(ET.fromstring(block_diagram(UART)))]
        assert {"rx", "tx"} <= set(shown)
        assert shown[1].endswith(", UART at 1 Mbaud")


@pytest.mark.sim
def test_optimised_python():
    """`python -OO` drops docstrings, from which the manifest takes its texts; it is the same."""
    program = (
        "import json; from tritloom.gen.emit.manifest import describe\n"
        "from tritloom.rtl.spec.config import TINY; print(json.dumps(describe(TINY)))"
    )
    texts = [
        subprocess.run([sys.executable, *options, "-c", program], capture_output=True, check=True)
        for options in ([], ["-OO"])
    ]
    assert texts[0].stdout == texts[1].stdout and len(texts[0].stdout) > 10_000

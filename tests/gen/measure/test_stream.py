"""The measurement of a stream of tokens: its figures agree with each other and the formulas."""

import json
import shlex
from dataclasses import replace

import pytest

from tritloom.boards.ulx3s import ULX3S_25F
from tritloom.gen.cli.main import main
from tritloom.gen.measure import stream
from tritloom.gen.measure.stream import FEATURES, measure_stream, stream_config
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.spec.commands import OVERHEAD_BYTES
from tritloom.rtl.spec.config import TINY, AcceleratorConfig
from tritloom.rtl.spec.errors import ConfigError, InputError
from tritloom.rtl.spec.layer_shape import LayerShape

SMALL = {"lanes": 5, "rows": 2, "fill": 1, "encoding": "base3x5"}
WIDTH = 2
"""Bytes of a beat, so that bytes and cycles differ."""


def small(**options: object) -> AcceleratorConfig:
    return stream_config("ecp5", "select", 12, 20, **{"link_bytes": WIDTH, **SMALL, **options})


def test_the_configuration():
    config = small()
    assert (config.max_out_features, config.max_in_features) == (FEATURES, FEATURES)
    assert config.memory_words == LayerShape.of(config, FEATURES, FEATURES).words
    wide = stream_config("ecp5", "select", FEATURES + 1, 20, **SMALL)
    assert (wide.max_out_features, wide.max_in_features) == (FEATURES + 1, FEATURES)
    assert wide.memory_words == LayerShape.of(wide, FEATURES + 1, FEATURES).words
    board = ULX3S_25F.config
    # As many bytes of buffers as the board has.
    assert (config.packet_bytes, config.slots) == (512, 16)
    assert config.packet_bytes * config.slots == board.packet_bytes * board.slots
    assert (config.clock_hz, config.banks) == (board.clock_hz, board.banks)
    assert config.link == PacketStream(width=WIDTH)
    other = small(packet_bytes=128, slots=2, banks=1)
    assert (other.packet_bytes, other.slots, other.banks) == (128, 2, 1)
    assert stream_config("ecp5", "select", 12, 20, **SMALL).link == PacketStream(width=1)


def test_the_best_known_geometry():
    config = stream_config("ecp5", "table", 256, 512)
    assert (config.encoding, config.lanes, config.rows) == ("sym6x10", 264, 1)


@pytest.mark.parametrize(
    ("engine", "lanes", "rows", "expected"),
    [
        ("select", 55, 4, ("base3x5", 5)),
        ("select", 20, 2, ("base3x5", 5)),
        ("table", 220, 1, ("base3x5", 4)),
        ("table", 35, 1, ("base3x5", 1)),
    ],
)
def test_a_geometry_alone_gets_what_the_boards_have(engine, lanes, rows, expected):
    config = stream_config("ecp5", engine, 256, 512, lanes=lanes, rows=rows)
    assert (config.encoding, config.fill) == expected
    assert (config.lanes, config.rows) == (lanes, rows)


def test_a_geometry_that_there_is_not():
    with pytest.raises(ConfigError, match="lanes must be a multiple of 5, not 12"):
        stream_config("ecp5", "select", 256, 512, lanes=12, rows=2)


def test_a_width_that_there_is_not():
    with pytest.raises(ConfigError, match="link: width must be 1, 2, 4 or 8 bytes, not 3"):
        small(link_bytes=3)


def test_a_memory_that_there_is_not():
    with pytest.raises(ConfigError, match=r"memory must be one of .*bram.*, not 'flash'"):
        small(memory="flash")


def test_a_link_that_is_no_stream():
    config = AcceleratorConfig.from_dict(TINY.to_dict() | {"link": Uart(baud=1_000_000)})
    with pytest.raises(InputError, match="link must be a packet stream to measure a stream, not u"):
        measure_stream(config, 12, 20, 1)


def test_several_tokens_in_a_run():
    with pytest.raises(InputError, match="tokens must be 1 to measure a stream, not 2"):
        measure_stream(replace(small(), tokens=2), 12, 20, 1)


@pytest.fixture
def small_memory(monkeypatch):
    """The size of the shapes that are measured, not of the largest: a short build."""
    monkeypatch.setattr(stream, "FEATURES", 20)


@pytest.mark.usefixtures("small_memory")
@pytest.mark.sim
class TestMeasured:
    def test_figures(self):
        """A LOAD, a RUN and a RESULTS for each token; the share is that of what needs most."""
        config = small()
        result = measure_stream(config, 12, 20, 5)
        sums = 12 * config.acc_bytes
        assert result["run_cycles"] == 5 * config.run_cycles(LayerShape.of(config, 12, 20))
        assert result["bytes_in"] == 5 * (3 * OVERHEAD_BYTES + 20)
        assert result["bytes_out"] == 5 * (3 * OVERHEAD_BYTES + sums)
        needs = {
            "engine": result["run_cycles"],
            "bytes in": result["bytes_in"] / WIDTH,
            "bytes out": result["bytes_out"] / WIDTH,
        }
        most = max(needs.values())
        assert needs[result["bottleneck"]] == most
        assert result["busy_share_of_bottleneck"] == round(most / result["cycles"], 4)
        assert 0.1 < result["busy_share_of_bottleneck"] <= 1
        assert result["mac_per_cycle"] == round(5 * 12 * 20 / result["cycles"], 2)
        assert result["mac_per_cycle_peak"] == 10
        assert (result["exact"], result["tokens"]) == (True, 5)
        assert (result["out_features"], result["in_features"]) == (12, 20)
        assert AcceleratorConfig.from_dict(result["config"]) == config

    def test_the_figures_do_not_depend_on_the_data(self, monkeypatch):
        first = measure_stream(small(), 12, 20, 3)
        monkeypatch.setattr(stream, "SEED", 99)
        assert measure_stream(small(), 12, 20, 3) == first

    def test_the_command_gives_the_same_figures(self, run):
        result = measure_stream(small(), 12, 20, 3)
        words = shlex.split(result["command"])
        assert words[0] == "tritloom"
        status, out, _ = run(*words[1:])
        assert (status, out) == (0, json_line(result))

    def test_for_a_person(self, run):
        status, out, _ = run(*command(), "--tokens", "3")
        result = measure_stream(small(), 12, 20, 3)
        assert status == 0
        assert f"{result['mac_per_cycle']:g} of 10 MAC/cycle" in out.splitlines()[0]
        assert f"{result['cycles']:,} for 3 tokens" in out

    def test_a_wrong_result(self, run, monkeypatch, tmp_path):
        """It is in the figures, and the command fails."""
        matmul = stream.numerics.matmul

        def one_more(trits, codes):
            sums = matmul(trits, codes)
            sums[-1, -1] += 1
            return sums

        monkeypatch.setattr(stream.numerics, "matmul", one_more)
        status, out, err = run(*command(), "--tokens", "2", "--json")
        assert status == 1 and '"exact": false' in out
        line = "a result differs from the golden model; run tritloom verify"
        assert err.splitlines()[-1] == f"tritloom: error: {line}"


def command() -> list[str]:
    options = {"shape": "12x20", "link-bytes": WIDTH, **SMALL}
    return ["measure", "stream", *(w for k, v in options.items() for w in (f"--{k}", str(v)))]


def json_line(result: dict[str, object]) -> str:
    return json.dumps(result) + "\n"


def test_no_folder(run, tmp_path):
    file = tmp_path / "none" / "a.json"
    status, _, err = run(*command(), "--output", file)
    assert (status, err) == (1, f"tritloom: error: --output: there is no folder {file.parent}\n")


@pytest.mark.parametrize("shape", ["1024", "0x5", "5x", "axb", "1024x256x3", "4 x 5"])
def test_a_shape_of_another_form(shape, capsys):
    with pytest.raises(SystemExit) as ended:
        main(["measure", "stream", "--shape", shape])
    assert ended.value.code == 2
    assert "must be OUTxIN, such as 1024x256" in capsys.readouterr().err

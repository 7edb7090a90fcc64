"""What is chosen, on the shipped table; assertions hold for any figures that are like today's."""

import json
import shutil
from dataclasses import replace
from itertools import pairwise, product

import numpy as np
import pytest

from tests.support import ROOT, quick_first
from tritloom.boards.board import Board, board_names, load_board
from tritloom.boards.families.family import Family, load_family
from tritloom.gen.cli.options import read_config
from tritloom.gen.measure import engine as engine_module
from tritloom.gen.measure.table import read_table
from tritloom.gen.plan import auto
from tritloom.gen.plan import search as search_module
from tritloom.gen.plan.auto import LINK, board_part, choose
from tritloom.gen.plan.cost import UNITS, Cost, CostModel, weight_memories
from tritloom.gen.plan.cpu import cpu_name
from tritloom.gen.plan.timing import token_times
from tritloom.gen.workloads import MIXES, Layer, model_layers, utilization
from tritloom.rtl.links.stream_facts import PacketStream
from tritloom.rtl.links.uart_facts import Uart
from tritloom.rtl.memories.bram_facts import BlockRam
from tritloom.rtl.spec import numerics
from tritloom.rtl.spec.config import AcceleratorConfig
from tritloom.rtl.spec.encodings import encodings
from tritloom.rtl.spec.errors import CheckpointError, ConfigError
from tritloom.rtl.spec.layer_shape import LayerShape
from tritloom.rtl.spec.plugins import engines
from tritloom.rtl.spec.scale_facts import ScaleConfig
from tritloom.sim.device.core import CoreSimulation

REMEDY = "give the path of a folder with config.json"
TINYLM = [
    Layer("qkv_proj", 256, 512, 2),
    Layer("o_proj", 256, 256, 2),
    Layer("gate_up_proj", 256, 1024, 2),
    Layer("down_proj", 512, 256, 2),
]
WIDE = [Layer("wide", 6912, 4096)]
SMALL = [Layer("small", 60, 40)]
BIG = model_layers("bitnet-2b-4t")
SHORT = "block RAM is short for two banks: the device loads, computes and reads one after the other"
"""The note of a plan with one bank."""


def core(engine, encoding, lanes, rows, fill, layers, **more):
    """A core for the layers, as `measure engine` has it."""
    return AcceleratorConfig(
        engine=engine,
        encoding=encoding,
        lanes=lanes,
        rows=rows,
        fill=fill,
        memory=BlockRam(words=1),
        max_in_features=max(layer.in_features for layer in layers),
        max_out_features=max(layer.out_features for layer in layers),
        packet_bytes=4096,
        **more,
    )


@pytest.fixture(autouse=True)
def only_what_ships(monkeypatch):
    """Leave out the engines that other tests of this process have added."""
    ours = {name: engines[name] for name in engines if engines.package(name) == "tritloom"}
    monkeypatch.setattr(engines, "_loaded", ours)


class TestLayers:
    def test_of_tinylm(self, monkeypatch):
        """As `tritloom run` runs them."""
        monkeypatch.chdir(ROOT)
        assert model_layers("tinylm") == model_layers("models/tinylm") == TINYLM

    @pytest.mark.sim
    def test_config_alone(self, run, tmp_path):
        """The layers follow from config.json; weights and tokenizer may be elsewhere."""
        shutil.copy(ROOT / "models/tinylm/config.json", tmp_path)
        assert model_layers(str(tmp_path)) == TINYLM
        outputs = [
            run("auto", "--board", "ulx3s-85f", "--model", model, "--json")
            for model in (tmp_path, ROOT / "models/tinylm")
        ]
        plans = [json.loads(out) for _, out, _ in outputs]
        assert [plan.pop("cpu")["macs"] for plan in plans] == [1179648] * 2  # its time is measured
        assert plans[0] == plans[1]

    @pytest.mark.parametrize(
        ("changes", "layers"),
        [
            (
                {"num_key_value_heads": 2, "head_dim": 128, "model_type": "llama"},
                [Layer("qkv_proj", 256, 1024, 4), Layer("o_proj", 512, 256, 4)],
            ),
            (
                {"modules_to_not_convert": ["lm_head", "k_proj"]},
                [Layer("q_proj", 256, 256, 4), Layer("v_proj", 256, 128, 2), *TINYLM[2:]],
            ),
            (
                {"modules_to_not_convert": ["model.layers.*.mlp"]},  # not the head: it is ternary
                [Layer("qkv_proj", 256, 512, 3), TINYLM[1]],
            ),
            (
                {"use_rms_norm": True, "linear_class": "autobitlinear"},
                [
                    *(Layer("q_proj", 256, 256, 4), Layer("k_proj", 256, 128, 4)),
                    *(Layer("gate_proj", 256, 512, 4), TINYLM[3]),
                ],
            ),
        ],
    )
    def test_config_decides(self, tmp_path, changes, layers):
        """Heads, modules that stay floats, and norms inside the layers, which keep them apart."""
        config = json.loads((ROOT / "models/tinylm/config.json").read_text())
        for key, value in changes.items():
            of_layers = key in ("modules_to_not_convert", "use_rms_norm", "linear_class")
            (config["quantization_config"] if of_layers else config)[key] = value
        (tmp_path / "config.json").write_text(json.dumps(config))
        assert model_layers(str(tmp_path)) == layers

    @pytest.mark.parametrize(
        ("content", "message"),
        [
            (None, "no config.json in "),
            ("{", "is not JSON; copy it again"),
            ("[" * 200_000, "is nested too deeply for a model; copy it again"),
            ({"hidden_size": "x"}, "hidden_size must be a positive integer, not 'x'"),
            ({"num_hidden_layers": 10**12}, "num_hidden_layers must be at most 10000, not 1000"),
            ({"quantization_config": None}, "config.json has no quantization_config"),
            (
                {"quantization_config": {"modules_to_not_convert": [".*"]}},
                "config.json describes no ternary layer; check modules_to_not_convert",
            ),
        ],
    )
    def test_bad_config(self, run, tmp_path, content, message):
        if isinstance(content, dict):
            config = json.loads((ROOT / "models/tinylm/config.json").read_text())
            content = json.dumps(config | content)
        if content is not None:
            (tmp_path / "config.json").write_text(content)
        status, out, err = run("auto", "--family", "ecp5", "--model", tmp_path)
        assert (status, out, err.count("\n")) == (1, "", 1)
        assert message in err

    def test_of_a_mix(self):
        assert [(each.name, each.in_features, each.out_features, each.count) for each in BIG] == (
            list(MIXES["bitnet-2b-4t"][1])
        )

    def test_utilization(self):
        """The cycle formula over the layers; many outputs run in parts."""
        config = replace(core("select", "base3x5", 20, 2, 5, TINYLM), max_out_features=300)
        cycles = 0
        for layer in TINYLM:
            outputs = layer.out_features
            parts = [min(300, outputs - start) for start in range(0, outputs, 300)]
            shapes = [LayerShape.of(config, part, layer.in_features) for part in parts]
            cycles += layer.count * sum(config.run_cycles(shape) for shape in shapes)
        macs = sum(each.in_features * each.out_features * each.count for each in TINYLM)
        assert utilization(config, TINYLM) == macs / (cycles * 40)

    def test_too_wide(self):
        config = replace(core("select", "base3x5", 20, 2, 5, TINYLM), max_in_features=300)
        message = "the layer 512 × 256 is wider than max_in_features = 300"
        with pytest.raises(ConfigError, match=message):
            utilization(config, TINYLM)


class TestFilling:
    def test_wide_tables_on_small_layers(self):
        """Filling bounds a table engine there, and it is not what is chosen."""
        wide = utilization(core("table", "sym6x10", 96, 3, 4, TINYLM), TINYLM)
        narrow = utilization(core("table", "base3x5", 80, 1, 16, TINYLM), TINYLM)
        adders = utilization(core("select", "diff2", 32, 8, 4, TINYLM), TINYLM)
        # As docs/reference/engines.md says.
        assert [round(100 * each) for each in (wide, narrow, adders)] == [9, 73, 96]
        plan = choose("ecp5", TINYLM, core_only=True)
        sym6x10 = next(each for each in plan.ranked if each.config.encoding == "sym6x10")
        assert sym6x10.utilization == min(each.utilization for each in plan.ranked)
        assert sym6x10.gmac_per_s < plan.best.gmac_per_s

    def test_said(self):
        """What can only be filled slowly says so."""
        space = search("ecp5", TINYLM)
        config = core("table", "sym6x10", 96, 3, 1, TINYLM)
        candidate = space.candidate(config, space.cost(config))
        assert space.bound(candidate).startswith("filling, 9")


def search(family, layers, **changes):
    """A search with the part's whole core, as `choose` makes it."""
    values = {
        "model": CostModel(family, read_table()),
        "part": load_family(family).part()[0],
        "layers": tuple(layers),
        "tokens": 1,
        "act_bits": 8,
        "alphabet": "ternary",
        "budget": Cost(*load_family(family).part()[1].available[:3]),
        "word_limit": None,
        "memory": BlockRam(words=1),
        "link": LINK,
        "memory_words": 0,
        "core_only": True,
        "inside": False,
        "whole": True,
        "clock_hz": None,
        "base": {"packet_bytes": 4096},
    }
    return search_module.Search(**(values | changes))


class TestBandwidth:
    @pytest.mark.parametrize("bits", [16, 64, 200])
    def test_words_stay_within(self, bits):
        plan = choose("ecp5", WIDE, weight_bits=bits)
        assert all(each.config.word_bits <= bits for each in plan.ranked)

    def test_few_bits_a_weight_where_it_is_low(self):
        plan = choose("ecp5", WIDE, weight_bits=64)
        assert plan.config.encoding == "base3x5" and plan.config.word_bits == 64
        assert plan.config.macs_per_cycle == 40
        assert plan.best.bound == "weight bandwidth, 64 of 64 bits a cycle"
        assert "`memory` must name one" in plan.notes[0]

    def test_weights_outside_take_no_block_ram(self):
        few = choose("ecp5", BIG, weight_bits=64)
        assert few.best.cost.block_rams <= 56
        assert few.config.memory_words == 52_116_480  # all of the model's words

    def test_less_than_any_word(self):
        message = "no engine has weight words of 3 bits or fewer; give more bits a cycle"
        with pytest.raises(ConfigError, match=message):
            choose("ecp5", WIDE, weight_bits=3)


class TestBest:
    @pytest.mark.sim
    def test_wide_layer_with_all_the_bandwidth(self):
        """First is what does the most MAC/s, by the table's clock and the formula's cycles."""
        plan = choose("ecp5", WIDE, core_only=True)
        rates = [each.gmac_per_s for each in plan.ranked]
        assert all(later <= first * 1.011 for first, later in pairwise(rates))
        for each in plan.ranked:
            useful = 6912 * 4096 / each.cycles
            assert each.mac_per_cycle == useful
            assert each.gmac_per_s == useful * each.mhz / 1e3
            assert round(each.utilization, 9) == round(utilization(each.config, WIDE), 9)
        tables = next(each for each in plan.ranked if each.config.encoding == "sym6x10")
        assert tables.utilization > 0.8 and tables.config.macs_per_cycle >= 200

    @pytest.mark.parametrize("limit", [16, 40, None])
    @pytest.mark.parametrize("engine", ["select", "table"])
    def test_nothing_is_better(self, engine, limit):
        """Against all geometries, each tried: the search leaves nothing out that matters."""
        space = search("ecp5", SMALL, word_limit=limit, budget=Cost(900, 2000, 12))
        encoding = "base3x5"
        best = None
        for codes, rows in product(range(1, 13), range(1, 41)):
            for fill in range(1, space.model.most_filled(engine) + 1):
                units = codes if engine == "table" else 5 * codes
                if fill > units or units % fill:
                    continue
                config = core(engine, encoding, 5 * codes, rows, fill, SMALL)
                if limit is not None and config.word_bits > limit:
                    continue
                cost = space.cost(config)
                if space.fits(cost) and space.model.within(config, cost.luts):
                    candidate = space.candidate(config, cost)
                    if best is None or space.rate(candidate) > space.rate(best):
                        best = candidate
        candidate = space.best(engine, encoding)
        assert space.rate(candidate)[0] == space.rate(best)[0]
        assert candidate.cost.luts <= best.cost.luts * 1.02

    def test_ties(self):
        """Within a hundredth, fewer LUTs; then fewer bits a weight."""
        space = search("ecp5", SMALL)
        config = core("select", "base3x5", 20, 1, 1, SMALL)
        one = space.candidate(config, Cost(300, 100, 2))
        cheaper = replace(one, cost=Cost(200, 900, 9), mac_per_cycle=one.mac_per_cycle * 0.9999)
        denser = replace(one, config=core("select", "diff2", 20, 1, 1, SMALL))
        faster = replace(one, mac_per_cycle=one.mac_per_cycle * 1.05, cost=Cost(900, 900, 9))
        order = sorted([denser, one, faster, cheaper], key=space.rate, reverse=True)
        assert order == [faster, cheaper, one, denser]

    def test_tokens(self):
        """As many at once as pays, never more than asked; a pass for every few."""
        plan = choose("ecp5", WIDE, weight_bits=32, tokens=6)
        assert 2 <= plan.config.tokens <= 6
        passes = -(-6 // plan.config.tokens)
        shape = LayerShape.of(plan.config, 4096, 6912)
        parts = -(-4096 // plan.config.max_out_features)
        if parts == 1:
            assert plan.best.cycles == passes * plan.config.run_cycles(shape)
        assert choose("ecp5", WIDE, weight_bits=32).config.tokens == 1

    @pytest.mark.parametrize(
        ("tokens", "expected"),
        [(1, [1]), (6, [1, 2, 3, 6]), (20, [1, 2, 3, 4, 5, 7, 10]), (1 << 20, range(1, 17))],
    )
    def test_tokens_worth_a_try(self, tokens, expected):
        """The least for each number of passes."""
        assert search_module.useful_tokens(tokens) == [*expected]

    def test_binary(self):
        plan = choose("ecp5", WIDE, core_only=True, alphabet="binary")
        assert {encodings[each.config.encoding].alphabet for each in plan.ranked} == {"binary"}

    @pytest.mark.sim
    def test_four_bits(self):
        plan = choose("ecp5", WIDE, core_only=True, act_bits=4)
        assert all(each.config.act_bits == 4 for each in plan.ranked)

    @pytest.mark.sim
    def test_share(self):
        small, large = (choose("ecp5", WIDE, core_only=True, share=n) for n in (10, 80))
        assert small.budget == Cost(2428, 2428, 56, 28)
        for each in small.ranked:
            assert each.cost.luts <= 2428 and each.cost.ffs <= 2428
        assert small.best.gmac_per_s < large.best.gmac_per_s

    def test_only_what_is_like_the_measured(self):
        """Nothing that is much larger than any core that was routed."""
        model = CostModel("ecp5", read_table())
        plan = choose("ecp5", WIDE, part="LFE5U-85F-6", core_only=True)
        for each in plan.ranked:
            routed = [
                p for p in model.points if p.mhz is not None and p.engine == each.config.engine
            ]
            assert each.cost.luts <= 2.05 * max(point.luts for point in routed)
            assert each.config.word_bits <= 2 * max(point.config.word_bits for point in routed)
            same = [point for point in model.points if point.engine == each.config.engine]
            filled = max(point.fill * point.tokens for point in same)
            assert each.config.fill * each.config.tokens <= 2 * filled

    @quick_first("layers", [SMALL, TINYLM])
    def test_deterministic(self, layers):
        one, two = (choose("ecp5", layers, tokens=2).to_dict() for _ in range(2))
        assert json.dumps(one) == json.dumps(two)


class TestParts:
    @quick_first("layers", [TINYLM, BIG])
    def test_ice40(self, layers):
        plan = choose("ice40", layers, weight_bits=64)
        cost = plan.best.cost
        assert cost.luts <= 5280 and cost.ffs <= 5280 and cost.block_rams <= 30
        assert (plan.config.packet_bytes, plan.config.slots) == (256, 4)  # as the iCEBreaker's

    def test_xc7_has_no_clock(self):
        plan = choose("xc7", WIDE, weight_bits=128)
        assert plan.best.mhz is None and plan.best.gmac_per_s is None
        rates = [each.mac_per_cycle for each in plan.ranked]
        assert all(later <= first * 1.011 for first, later in pairwise(rates))
        assert plan.notes[-1] == (
            "no clock was measured for this family: ranked by MAC/cycle, and no time is known"
        )
        assert plan.best.times is None and plan.to_dict()["candidates"][0]["end_to_end"] is None

    def test_board(self):
        board = load_board("ulx3s-85f")
        plan = choose("", TINYLM, board=board)
        assert (plan.family, plan.part) == ("ecp5", "LFE5U-85F-6")
        facts = {"clock_hz": 80_000_000, "packet_bytes": 1024, "slots": 8, "max_layers": 64}
        assert {name: getattr(plan.config, name) for name in facts} == facts
        assert all(each.mhz == 80 for each in plan.ranked)
        assert plan.config.link == PacketStream() and not plan.notes

    def test_boards_have_parts(self):
        for name in ("ulx3s-12f", "ulx3s-25f", "ulx3s-45f", "ulx3s-85f", "icebreaker"):
            board = load_board(name)
            part, _ = board_part(board)
            assert part in load_family(board.family).parts

    def test_board_of_an_unknown_part(self):
        board: Board = replace(load_board("ulx3s-85f"), part="LFE5UM-85F")
        message = "the LFE5UM-85F of ulx3s-85f is not among the parts that are known: LFE5U-25F-6, "
        with pytest.raises(ConfigError, match=message):
            choose("", TINYLM, board=board)

    @pytest.mark.sim
    def test_engine_slower_than_the_board(self):
        board = load_board("ulx3s-85f")
        fast = replace(board, config=replace(board.config, clock_hz=400_000_000))
        plan = choose("", TINYLM, board=fast)
        assert plan.best.mhz < 400
        assert (
            plan.notes[-1] == f"the engine reaches {plan.best.mhz:g} MHz: set clock_hz to no more"
        )


class TestMemory:
    def test_whole_model(self):
        """All words are in the chip where they fit, each layer in its own place."""
        plan = choose("", TINYLM, board=load_board("ulx3s-85f"))
        config = plan.config
        words = sum(
            layer.count * LayerShape.of(config, layer.out_features, layer.in_features).words
            for layer in TINYLM
        )
        assert config.memory_words >= words and config.max_layers >= 8
        blocks = sum(each.number for each in weight_memories(config))
        assert blocks == -(-config.memory_words // BlockRam.BANK_WORDS)

    @pytest.mark.sim
    @pytest.mark.parametrize(("family", "blocks"), [("ice40", 30), ("ecp5", 56)])
    def test_piece_by_piece(self, family, blocks):
        plan = choose(family, BIG)
        config, best = plan.config, plan.best
        assert "loaded piece by piece" in plan.notes[0]
        assert f"planned with {config.memory_words:,}," in plan.notes[0]
        assert best.cost.block_rams <= blocks
        # A piece is as many rows as the memory holds, and a run of its own.
        cycles = 0
        for layer in BIG:
            tiles = -(-layer.in_features // config.lanes)
            most = min(config.max_out_features, config.memory_words // tiles * config.rows)
            for start in range(0, layer.out_features, most):
                part = min(most, layer.out_features - start)
                shape = LayerShape.of(config, part, layer.in_features)
                cycles += layer.count * config.run_cycles(shape)
        assert best.cycles == cycles
        for each in plan.ranked:
            assert each.times is None or each.times.run_cycles == each.cycles

    def test_pieces_of_several_rows(self):
        """24 words of 3 tiles: 8 groups of 4 rows at a time."""
        space = search("ecp5", SMALL, inside=True, whole=False, core_only=False)
        config = core("select", "diff2", 20, 4, 4, SMALL).with_words(24)
        pieces = [LayerShape(3, 8), LayerShape(3, 2)]
        assert space.cycles(config) == sum(config.run_cycles(shape) for shape in pieces)
        assert space.cycles(config.with_words(2)) is None

    @pytest.mark.sim
    def test_banks(self):
        """Two, unless one gives more than twice the rate; of a core alone always one."""
        layers = [Layer("wide", 1024, 1024)]
        two = choose("ecp5", layers, memory_words=600)
        assert {each.config.banks for each in two.ranked} == {2} and SHORT not in two.notes
        few = choose("ice40", [Layer("wide", 2560, 2560)], memory_words=2600)
        assert few.config.banks == 1 and few.notes[-1] == SHORT
        assert few.best.cost.block_rams <= few.budget.block_rams
        core_alone = choose("ecp5", layers, core_only=True)
        assert {each.config.banks for each in core_alone.ranked} == {1}

    @pytest.mark.sim
    def test_words_given(self):
        plan = choose("ice40", BIG, memory_words=600)
        assert all(each.config.memory_words == 600 for each in plan.ranked)
        assert "planned with 600," in plan.notes[0]

    def test_words_given_that_hold_all(self):
        plan = choose("ecp5", SMALL, memory_words=4096)
        assert plan.config.memory_words == 4096 and not plan.notes


class TestTimes:
    """End to end; what a time consists of is tested in test_timing.py."""

    def test_board(self):
        """Its link and clock; RUN takes the cycles that decided."""
        board = load_board("ulx3s-85f")
        plan = choose("", TINYLM, board=board, tokens=3)
        for each in plan.ranked:
            config = replace(each.config, link=board.link)
            assert each.times == token_times(config, TINYLM, tokens=3)
            assert each.times.run_cycles == each.cycles and each.times.loading_s == 0
        content = plan.to_dict()
        assert content["link"] == {"kind": "uart", "baud": 3_000_000}
        first = content["candidates"][0]
        assert first["end_to_end"] == plan.best.times.to_dict()
        assert first["run_cycles"] == first["end_to_end"]["run_cycles"]
        assert first["end_to_end"]["bound"] == "link out"

    def test_loading(self):
        """With less memory than the model has words, a part of it is loaded for every token."""
        plan = choose("", TINYLM, board=load_board("ulx3s-85f"), memory_words=800)
        assert plan.best.times.loading_s > 0 and plan.best.times.run_cycles == plan.best.cycles
        assert "loaded piece by piece for every token" in plan.notes[0]

    def test_no_board(self):
        """A link is assumed, and the measured clock."""
        plan = choose("ecp5", BIG, weight_bits=64)
        assert plan.link == LINK
        config = replace(plan.config, link=LINK, clock_hz=round(plan.best.mhz * 1e6))
        assert plan.best.times == token_times(config, BIG, holds_all=True)
        assert plan.best.times.loading_s == 0

    def test_core_has_no_link(self):
        assert choose("ecp5", SMALL, core_only=True).best.times is None

    @pytest.mark.parametrize(
        ("clock_hz", "expected"),
        [
            (80_000_000, 80_000_000),
            (31_400_000, 30_458_000),  # a tenth must be three million, within 2 %
            (10_000_000, None),
        ],
    )
    def test_clock_of_a_link(self, clock_hz, expected):
        """The highest clock at which the link works."""
        config = core("select", "base3x5", 20, 1, 1, SMALL)
        found = auto._at_clock(config, Uart(baud=3_000_000), clock_hz)
        assert (None if found is None else found.clock_hz) == expected


class TestErrors:
    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"family": "ecp6"}, "family must be one of ecp5, gowin, ice40, xc7, not 'ecp6'"),
            (
                {"family": "ice40", "part": "HX8K"},
                "part of ice40 must be one of iCE40UP5K-SG48, not 'HX8K'",
            ),
            ({"layers": []}, "layers must be at least one, not none"),
            (
                {"layers": [Layer("up", 20000, 8)]},
                "in_features of up must be 1 to 16384, not 20000",
            ),
            ({"layers": [Layer("up", 8, 0)]}, "out_features of up must be 1 to 262144, not 0"),
            ({"tokens": 0}, "tokens must be 1 to 1048576, not 0"),
            ({"share": 101}, "share must be 1 to 100, not 101"),
            ({"alphabet": "quinary"}, "alphabet must be one of ternary, binary, not 'quinary'"),
            ({"act_bits": 5}, "act_bits must be 4 or 8, not 5"),
        ],
    )
    def test_said(self, arguments, message):
        values = {"family": "ecp5", "layers": SMALL} | arguments
        with pytest.raises(ConfigError) as caught:
            choose(values.pop("family"), values.pop("layers"), **values)
        assert str(caught.value) == message

    def test_too_few_luts(self):
        with pytest.raises(ConfigError) as caught:
            choose("ecp5", SMALL, share=3)
        text = str(caught.value)
        assert text.startswith("nothing fits the LFE5U-25F-6: even ")
        assert " of 728 LUTs; take a larger part or a larger share of it" in text

    @pytest.mark.sim
    def test_too_little_block_ram(self):
        with pytest.raises(ConfigError) as caught:
            choose("ice40", TINYLM, memory_words=100_000)
        assert " of 30 block RAM; take a larger part, fewer memory words or " in str(caught.value)


@pytest.mark.sim
def test_chosen_is_exact():
    """What is chosen for a small layer takes the cycles that were foretold, and is right."""
    layers = [Layer("small", 47, 50)]
    for each in choose("ecp5", layers, core_only=True, share=5, tokens=2).ranked[:3]:
        rng = np.random.default_rng(3)
        trits = rng.integers(-1, 2, (50, 47)).astype(np.int8)
        tokens = rng.integers(-128, 128, (2, 47)).astype(np.int8)
        config = each.config
        results, cycles = zip(*CoreSimulation(config).layer(trits, tokens), strict=True)
        assert (np.concatenate(results) == numerics.matmul(trits, tokens)).all()
        assert sum(cycles) == each.cycles


class TestCommand:
    def test_text(self, run):
        status, out, err = run("auto", "--board", "ulx3s-85f", "--model", "tinylm")
        assert (status, err) == (0, "")
        lines = out.splitlines()
        plan = choose("", TINYLM, board=load_board("ulx3s-85f"))
        best = plan.config
        assert lines[0].startswith(f"LFE5U-85F-6: {best.engine} {best.encoding}, {best.lanes} lan")
        assert lines[2].startswith("End to end: ") and lines[2].endswith("link out binds")
        parts = ["loading", "link in", "link out", "front end", "engine", "host"]
        assert [line.split("  ")[0] for line in lines[5:11]] == parts
        assert ["binds" in line for line in lines[5:11]] == [part == "link out" for part in parts]
        beside = " ".join(lines[12:15])
        assert f"This computer's CPU ({cpu_name()}, NumPy, float32, measured now): " in beside
        assert "faster" in beside
        heading = next(number for number, line in enumerate(lines) if "encoding" in line)
        assert lines[heading + 1].split()[:2] == [best.engine, best.encoding]
        assert lines[-1].split() == ["may", "take", "66,912", "66,912", "208"]

    @pytest.mark.sim
    def test_json(self, run):
        status, out, err = run(
            *("auto", "--family", "ecp5", "--model", "bitnet-2b-4t", "--weight-bits", 64),
            *("--tokens", 2, "--json"),
        )
        assert (status, err) == (0, "")
        content = json.loads(out)
        assert (content["family"], content["part"]) == ("ecp5", "LFE5U-25F-6")
        first = content["candidates"][0]
        assert first["bound"].startswith("weight bandwidth")
        assert all(
            first[key] == content["config"][key] for key in ("engine", "lanes", "rows", "banks")
        )
        assert len(content["candidates"]) == 5 and len(content["notes"]) == 1
        assert first["banks"] == 2
        assert content["link"] == {"kind": "uart", "baud": 1_000_000}
        assert first["end_to_end"]["tokens"] == content["cpu"]["tokens"] == 2
        assert first["end_to_end"]["macs"] == content["cpu"]["macs"] == 2 * 2_084_044_800

    @pytest.mark.sim
    def test_file_is_a_configuration(self, run, tmp_path):
        """What generate and build take, and nothing lost on the way."""
        file = tmp_path / "mine.json"
        status, _, _ = run(*("auto", "--board", "ulx3s-85f", "--model", "tinylm", "-o", file))
        config = AcceleratorConfig.from_json(file.read_text())
        assert status == 0 and config == choose("", TINYLM, board=load_board("ulx3s-85f")).config
        assert AcceleratorConfig.from_json(config.to_json()) == config
        assert read_config(file) == config

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            (
                ["--board", "ulx4s", "--model", "tinylm"],
                f"unknown board 'ulx4s'; known are {', '.join(board_names())}",
            ),
            (
                ["--family", "ecp5", "--model", "tiny"],
                f"no model directory tiny or models/tiny; {REMEDY}",
            ),
            (
                ["--board", "ulx3s-85f", "--part", "LFE5U-25F-6", "--model", "tinylm"],
                "--part goes with --family; a board has its own part",
            ),
            (
                ["--family", "ecp5", "--model", "tinylm", "-o", "no/such/mine.json"],
                "--output: there is no folder no/such",
            ),
        ],
    )
    def test_errors(self, run, arguments, message):
        assert run("auto", *arguments) == (1, "", f"tritloom: error: {message}\n")

    @pytest.mark.parametrize("arguments", [[], ["--board", "x", "--family", "ecp5"]])
    def test_usage(self, run, arguments):
        assert run("auto", "--model", "tinylm", *arguments)[0] == 2

    def test_unreadable_model(self):
        with pytest.raises(CheckpointError):
            model_layers("nothing")


class TestMeasureEngine:
    @pytest.fixture
    def measured(self, run, monkeypatch):
        """Runs the command; gives the configuration that is to be measured."""
        space = []

        def measure_engine(family, config, **options):
            space.append(config)
            raise ConfigError("far enough")

        monkeypatch.setattr(engine_module, "measure_engine", measure_engine)

        def measured(*arguments):
            status, _, err = run("measure", "engine", "--engine", "auto", *arguments)
            return space.pop() if space else (status, err)

        return measured

    def test_layer(self, measured):
        options = ("--family", "ecp5", "--in-features", 256, "--out-features", 512)
        plan = choose("ecp5", [Layer("a", 256, 512)], core_only=True)
        assert measured(*options) == plan.config
        part = ("--part", "LFE5U-85F-6", "--tokens", 2, "--act-bits", 4)
        space = {"part": "LFE5U-85F-6", "tokens": 2, "act_bits": 4}
        assert measured(*options, *part) == (
            choose("ecp5", [Layer("a", 256, 512)], core_only=True, **space).config
        )

    def test_default_layer(self, measured):
        config = measured("--family", "ice40")
        assert (config.max_in_features, config.max_out_features) == (2560, 640)

    @pytest.mark.sim
    def test_mix(self, measured):
        config = measured("--family", "ecp5", "--mix", "bitnet-2b-4t")
        assert config == choose("ecp5", BIG, core_only=True).config

    @pytest.mark.parametrize("option", ["encoding", "lanes", "rows", "fill"])
    def test_what_it_chooses_is_not_given(self, measured, option):
        candidate = measured("--family", "ecp5", f"--{option}", "2")
        message = f"--{option} is what --engine auto chooses; leave it out"
        assert candidate == (1, f"tritloom: error: {message}\n")

    def test_mix_has_the_features(self, measured):
        options = ("--family", "ecp5", "--mix", "bitnet-2b-4t", "--in-features", 8)
        message = "--mix names the layers of --engine auto; leave the features out"
        assert measured(*options) == (1, f"tritloom: error: {message}\n")


def test_engine_that_is_not_measured(monkeypatch):
    """It is named, not silently left out, and never counted as another engine."""
    monkeypatch.setattr(auto, "engines", ["select", "systolic", "table"])
    plan = choose("ecp5", SMALL, core_only=True)
    assert plan.notes == ("not considered, as nothing of it is measured on ecp5: systolic",)
    assert all(each.config.engine != "systolic" for each in plan.ranked)


class TestGroups:
    """The choice for a model whose inputs are in groups."""

    @staticmethod
    def layers(group):
        return [Layer("a", 256, 512, 2, group), Layer("b", 512, 256, 2, group)]

    @pytest.mark.sim
    @pytest.mark.parametrize("group", [64, 32, 128, 256])
    def test_geometry_suits_the_group(self, group):
        """Cycles are those of the layers with their padding, and the driver cuts no layer."""
        layers = self.layers(group)
        plan = choose("ecp5", layers)
        for candidate in plan.ranked:
            config = candidate.config
            shapes = [
                LayerShape.of(config, each.out_features, each.in_features, group) for each in layers
            ]
            assert candidate.cycles == 2 * sum(map(config.run_cycles, shapes))
            assert all(shape.tiles <= config.max_tiles for shape in shapes)
            assert max(s.result_row_groups for s in shapes) == config.result_row_groups
            padded = sum(shape.tiles for shape in shapes) * config.lanes
            assert padded <= 1.13 * sum(each.in_features for each in layers)

    @pytest.mark.sim
    def test_a_geometry_for_whole_rows_is_not_taken(self):
        """55 lanes would fill a group of 64 up to 110."""
        whole = {each.config.lanes for each in choose("ecp5", self.layers(0)).ranked}
        grouped = {each.config.lanes for each in choose("ecp5", self.layers(64)).ranked}
        assert whole != grouped
        for lanes in grouped:
            assert -(-64 // lanes) * lanes <= 66

    @staticmethod
    def large(group):
        return [Layer("a", 2048, 2048, 2, group), Layer("b", 2048, 6144, 2, group)]

    @pytest.mark.parametrize(
        ("group", "weight_bits", "scale", "lanes"),
        [
            (64, 112, None, 65),
            (64, 128, "fixed", 65),
            (64, 512, "fixed", 65),
            (128, 512, "fixed", 65),
            (256, 512, "fixed", 260),  # a unit for each row, and they set the clock
            (64, 512, "float", 65),
            (256, 512, "float", 130),
            (32, 128, None, 32),
            (32, 128, "fixed", 32),
        ],
    )
    def test_weights_outside_have_little_padding(
        self, group, weight_bits, scale, lanes, monkeypatch
    ):
        """66 lanes take fewer LUTs than 65, but more of the memory's bandwidth."""
        facts = {"part": "LFE5U-85F-6", "weight_bits": weight_bits, "scale": scale}
        best = choose("ecp5", self.large(group), **facts).best
        assert best.config.lanes == lanes
        assert -(-group // lanes) * lanes <= 1.016 * group
        monkeypatch.setattr(search_module, "PADDING_WORTH", 0)
        fastest = choose("ecp5", self.large(group), **facts).best
        assert best.speed >= 0.98 * fastest.speed

    def test_padding_counts_less_than_speed(self):
        """Codes of 3 trits have no lanes with less padding, and are faster by far."""
        best = choose("ecp5", self.large(64), part="LFE5U-85F-6").best
        assert (best.config.encoding, best.config.lanes) == ("sym3x5", 66)

    def test_without_groups_padding_is_worth_nothing(self, monkeypatch):
        plan = choose("ecp5", self.large(0), weight_bits=112)
        monkeypatch.setattr(search_module, "PADDING_WORTH", 1)
        assert choose("ecp5", self.large(0), weight_bits=112) == plan

    @pytest.mark.parametrize("group", [32, 64, 256])
    def test_scales_are_part_of_a_word_from_outside(self, group):
        for candidate in choose("ecp5", self.large(group), weight_bits=128, scale="fixed").ranked:
            assert candidate.config.word_bits <= 128

    @pytest.mark.sim
    def test_times_count_every_sum(self):
        """A link brings a sum for each group."""
        plain = choose("ecp5", self.layers(0)).best.times
        times = choose("ecp5", self.layers(64)).best.times
        assert times.bytes_out > 3 * plain.bytes_out

    @pytest.mark.sim
    def test_scales(self):
        """A word has scales, and a bank a total for each row, which is one number on the link."""
        plan = choose("ecp5", self.layers(64), scale="fixed")
        for config in (each.config for each in plan.ranked):
            assert config.scale == ScaleConfig(group=64) and config.max_group_sums == 0
            assert config.word_bits >= config.codes_bits + 16 * config.rows
            assert config.max_tiles == LayerShape.of(config, 1, 512, 64).tiles
            assert config.result_row_groups == config.max_row_groups
            assert config.acc_bytes == 4
        with pytest.raises(ConfigError) as error:
            choose("ecp5", self.layers(0), scale="fixed")
        assert str(error.value) == "scale needs layers with groups of inputs; give their group"

    @pytest.mark.sim
    def test_scales_of_activations(self):
        """Their units set the clock, and take multipliers."""
        plan = choose("ecp5", self.layers(64), part="LFE5U-25F-6", scale="float")
        exact = choose("ecp5", self.layers(64), part="LFE5U-25F-6", scale="fixed")
        for each in plan.ranked:
            assert each.config.scale == ScaleConfig(kind="float", group=64)
            units = each.config.rows * each.config.tokens
            assert each.cost.multipliers == 4 * units <= 28
            assert each.mhz <= UNITS["float"].mhz == 129.38
        assert all(each.mhz <= UNITS["fixed"].mhz for each in exact.ranked)
        assert {each.cost.multipliers for each in choose("ecp5", self.layers(64)).ranked} == {0}

    def test_few_multipliers(self):
        """They are what bounds it, and no geometry has more units."""
        budget = Cost(*load_family("ecp5").part("LFE5U-85F-6")[1].available[:3], 11)
        space = search("ecp5", self.large(64), scale="float", budget=budget)
        best = space.best("table", "base3x5")
        assert best.config.rows * best.config.tokens == 2 and best.cost.multipliers == 8
        budget = replace(budget, multipliers=8)
        space = search("ecp5", self.large(64), scale="float", budget=budget)
        assert space.best("table", "base3x5") == best
        assert space.bound(best) == "multipliers, 100% of what it may take"

    def test_a_part_without_multipliers(self, monkeypatch):
        name, part = load_family("ecp5").part()
        none = replace(part, available=(*part.available[:3], 0))
        monkeypatch.setattr(Family, "part", lambda family, wanted: (name, none))
        assert choose("ecp5", self.layers(64)).best
        with pytest.raises(ConfigError) as error:
            choose("ecp5", self.layers(64), scale="float")
        assert str(error.value).startswith("nothing fits the LFE5U-25F-6: even ")
        assert str(error.value).endswith(" takes 4 of 0 multipliers; take a larger part")

    def test_an_unknown_kind(self):
        with pytest.raises(ConfigError) as error:
            choose("ecp5", self.layers(64), scale="half")
        assert str(error.value) == "scale must be one of fixed, float, not 'half'"

    def test_kinds_on_the_command_line(self, run):
        """Without a kind it is `fixed`, also before another option."""
        file = ROOT / "models" / "tinygroup.gguf"
        for words, kind in (
            (["--scale"], "fixed"),
            (["--scale", "fixed"], "fixed"),
            (["--scale", "float"], "float"),
        ):
            _, out, _ = run("auto", *words, "--board", "ulx3s-85f", "--model", file, "--json")
            plan = json.loads(out)
            assert plan["config"]["scale"] == {"kind": kind, "group": 64}
            units = plan["config"]["rows"] * plan["config"]["tokens"]
            assert plan["candidates"][0]["multipliers"] == units * UNITS[kind].multipliers
            assert plan["budget"]["multipliers"] == 156
        status, _, err = run("auto", "--board", "ulx3s-85f", "--model", file, "--scale", "half")
        assert status == 2 and "invalid choice: 'half' (choose from" in err

    def test_group_that_does_not_divide(self):
        with pytest.raises(ConfigError) as error:
            choose("ecp5", self.layers(100))
        assert str(error.value) == "group must divide the 256 inputs of a, not be 100"

"""The `select` engine: each lane adds x, −x or 0, in a pipelined tree; no memories."""

from amaranth.hdl import Cat, Const, Module, Signal, Value, signed
from amaranth.lib import data

from tritloom.rtl.engines.contract import ACT_LATENCY, DotEngine, create_decoder
from tritloom.rtl.lib.adder_tree import add_under, adder_tree, delay, offset_binary
from tritloom.rtl.spec.encodings import encodings


class SelectEngine(DotEngine):
    """Portable dot engine of adders alone.

    Lanes are added in pairs. A trit of 0 costs no logic: it resets the register of an even lane,
    and in an odd lane it uses spare inputs of the adder. Signs are deferred (`adder_tree`).

    Latency: the decoder's cycles, one for the lanes' registers, one for each level of the tree, the
    level that adds the pairs included.

    Members: see `tritloom.rtl.engines.contract`.
    """

    def elaborate(self, platform: object) -> Module:
        m = Module()
        config = self.config
        encoding = encodings[config.encoding]
        lanes, fill, tokens = config.lanes, config.fill, config.tokens
        act = signed(config.act_bits)

        # A tile is loaded in words of `fill` activations, low inputs first. Each word enters at the
        # top and moves the earlier ones down.
        loaded = Signal(data.ArrayLayout(data.ArrayLayout(act, lanes), tokens), reset_less=True)
        current = Signal(data.ArrayLayout(data.ArrayLayout(act, lanes), tokens), reset_less=True)
        words = Signal(range(lanes // fill + 1))  # words of the next tile that were asked for
        full = Signal()  # all of them
        pending = Signal()  # a swap was announced and has not happened yet
        run = Signal()  # `act_address` is read in this cycle
        # The swap waits as long as the decoder takes: codes of the previous tile are still in the
        # decoder when the first code of the next tile comes.
        swap = delay(m, self.i_swap, encoding.decoder_cycles - 1)
        arriving = Cat(delay(m, run, n + 1) for n in range(ACT_LATENCY))
        m.d.comb += [
            full.eq(words == lanes // fill),
            run.eq(self.i_more & ~full & ~pending),
            self.ready.eq(full & ~pending & ~arriving.any()),
        ]
        with m.If(self.i_start):
            m.d.sync += self.act_address.eq(0)
        with m.Elif(run):
            m.d.sync += [self.act_address.eq(self.act_address + 1), words.eq(words + 1)]
        with m.If(arriving[-1]):
            for token in range(tokens):
                for lane in range(lanes):
                    source = (
                        loaded[token][lane + fill]
                        if lane + fill < lanes
                        else self.i_act[token * fill + lane + fill - lanes]
                    )
                    m.d.sync += loaded[token][lane].eq(source)
        with m.If(swap):
            m.d.sync += [current.eq(loaded), words.eq(0), pending.eq(0)]
        with m.Elif(self.i_swap):
            m.d.sync += pending.eq(1)

        for row in range(config.rows):
            zeros, nonzeros, relatives = self._trits(m, row)
            # Binary weights have no zeros: their bits are constants and take no registers.
            keeps = [
                bit if isinstance(bit, Const) else delay(m, bit, 1, reset_less=True)
                for bit in nonzeros
            ]
            late = [delay(m, relative, 1, reset_less=True) for relative in relatives]
            sums: list[tuple[Value, Value | None]] = []
            for token in range(tokens):
                pairs: list[Value] = []
                for lane in range(0, lanes, 2):
                    even = Signal(act, name="even", reset_less=True)
                    with m.If(zeros[lane // 2]):
                        m.d.sync += even.eq(0)
                    with m.Else():
                        m.d.sync += even.eq(current[token][lane])
                    pair = Signal(config.act_bits + 1, name="pair", reset_less=True)
                    left = Cat(even, even[-1])
                    if lane + 1 < lanes:
                        odd = Signal(act, name="odd", reset_less=True)
                        m.d.sync += odd.eq(current[token][lane + 1])
                        right = odd.as_unsigned() & keeps[lane // 2].replicate(len(odd))
                        total = add_under(left, Cat(right, right[-1]), late[lane + 1])
                        m.d.sync += pair.eq(total)
                    else:
                        m.d.sync += pair.eq(left)
                    # Converted behind the register: the next adder inverts an input at no cost,
                    # this one could not invert its sum.
                    pairs.append(offset_binary(pair))
                negatives = [delay(m, bit, 1, reset_less=True) for bit in late[::2]]
                sums.append(adder_tree(m, pairs, negatives))
            for token, (total, _) in enumerate(sums):
                m.d.comb += self.o_sums[token * config.rows + row].eq(
                    offset_binary(total).as_signed()
                )
            m.d.comb += self.o_negative[row].eq(sums[0][1])
        return m

    def _trits(self, m: Module, row: int) -> tuple[list[Value], list[Value], list[Value]]:
        """Decode the codes of a row.

        Parameters
        ----------
        m : module that the decoders are added to
        row : number of the row

        Returns
        -------
        One bit for each even lane: its trit is 0. One bit for each odd lane: its trit is not 0. One
        bit for each lane: its sign in the form of `adder_tree`. They follow the weight word by the
        decoder's cycles.
        """
        config = self.config
        encoding = encodings[config.encoding]
        codes = config.lanes // encoding.trits_per_code
        if not encoding.decoder:
            word = Signal(codes * encoding.code_bits, name=f"word_{row}", reset_less=True)
            m.d.sync += word.eq(self.i_word.word_select(row, len(word)))
            if encoding.alphabet == "binary":
                zeros, nonzeros = [Const(0, 1)] * codes, [Const(1, 1)] * codes
            else:
                zeros, nonzeros = list(word[0::4]), list(word[1::4])
            bits = encoding.code_bits
            differ, signs = word[bits - 2 :: bits], word[bits - 1 :: bits]
            pairs = zip(signs, differ, strict=True)
            return zeros, nonzeros, [bit for pair in pairs for bit in pair]
        nonzero: list[Value] = []
        negative: list[Value] = []
        for n in range(row * codes, (row + 1) * codes):
            decoder = create_decoder(encoding)
            m.submodules[f"decoder_{n}"] = decoder
            m.d.comb += decoder.i.eq(self.i_word.word_select(n, encoding.code_bits))
            nonzero += list(decoder.nonzero)
            negative += list(decoder.negative)
        signs = [negative[n] ^ negative[n & (n - 1)] for n in range(1, config.lanes)]
        return [~bit for bit in nonzero[::2]], nonzero[1::2], [negative[0], *signs]

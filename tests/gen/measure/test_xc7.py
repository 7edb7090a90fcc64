from tritloom.gen.measure.xc7 import route_throughs
from tritloom.gen.passes.netlist import Netlist


def test_route_throughs():
    def cell(kind, **ports):
        directions = {port: "output" if port == "O" else "input" for port in ports}
        return {"type": kind, "port_directions": directions, "connections": ports}

    cells = {
        "lut": cell("LUT2", I0=[5], O=[6]),
        "first": cell("CARRY4", S=[6, 7, "0", "x"]),  # 7 is no LUT's
        "second": cell("CARRY4", S=[6, "0", "0", "0"]),  # the LUT is beside the first
    }
    netlist = Netlist({"modules": {"top": {"ports": {}, "cells": cells}}}, "top")
    assert route_throughs(netlist) == 2

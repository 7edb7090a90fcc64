from tritloom.gen.passes.netlist import Netlist


def test_new_bit() -> None:
    document = {
        "modules": {
            "top": {
                "ports": {"a": {"direction": "input", "bits": [2]}},
                "cells": {"b": {"connections": {"C": [7, "0"]}}},
            }
        }
    }
    netlist = Netlist(document, "top")
    assert [netlist.new_bit(), netlist.new_bit()] == [8, 9]

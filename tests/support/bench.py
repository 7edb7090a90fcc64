"""Old names of what now stands beside this file and in `tritloom.sim.conformance`."""

from tests.support.core import check_core, last_numbers, loads_of, run_core, run_layer  # noqa: F401
from tests.support.geometries import KINDS, extreme_vectors, geometry, random_vectors, two_codes  # noqa: F401
from tests.support.packets import Inputs, comparable, is_counters, run_packets  # noqa: F401
from tritloom.sim.conformance.engine import check_engine, run_words  # noqa: F401
from tritloom.sim.conformance.memory import check_memory  # noqa: F401
from tritloom.sim.conformance.operands import random_codes, random_trits, weight_words  # noqa: F401
from tritloom.sim.conformance.streams import FLOWS, noise, plain, simulate, sink, source  # noqa: F401
from tritloom.sim.verify.traffic import Traffic  # noqa: F401

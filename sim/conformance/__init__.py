"""Checks for the author of an engine or a weight memory: does it keep its contract?

Each check simulates the component alone, with Amaranth's simulator, and raises `ContractError` with
one line that says what is wrong. A plug-in's test calls it for several geometries and seeds:

    from tritloom.sim.conformance.engine import check_engine
    from tritloom.sim.conformance.memory import check_memory

The component is the one that the configuration names, so the plug-in must be registered first.
"""

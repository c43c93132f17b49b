"""Figures of juju-dr against stated baselines, side by side in one run: ``python -m bench``, or ``make bench``.

Nothing here is a gate: machines differ. What must hold everywhere is locked by tests.
"""

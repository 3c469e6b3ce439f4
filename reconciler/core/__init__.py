"""Given these facts, what follows? Frozen values in, frozen values out.

No I/O, no clock, no randomness, no threads, no logging: time and ids come in as arguments. State
machines are `step(state, event, now) -> (state, effects)`; the effects are values that a
controller performs.
"""

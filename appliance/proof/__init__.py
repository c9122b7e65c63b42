"""Proof that nothing gets out: the journey of a bundle in closed networks, every attempt recorded twice, a signed report.

Way: ``tools`` (what the proof needs) → ``chamber`` (fresh namespaces) → ``inside`` (network, counters, recorder) → ``driver`` (the recorded
process) → ``journey`` (what it does) → ``trace``, ``attempts`` (what was recorded) → ``report`` → ``envelope``. Reasons: ``docs/adr/0019``.

Not here: installing, smoke tests, the box. The proof calls their commands as an operator would.
"""

"""A stand-in for jujud, for the lab only: it checks and does what a real one was seen and read to check and do.

A drill that forgets a rewrite fails here as it would in the field. It is no Juju: units run no hooks, and agents talk to the
API in a protocol of their own.
"""

"""Tests of whole servers: real processes, real sockets, real signals."""

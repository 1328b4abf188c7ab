"""Imported by a probe before it locks itself down: a machine without Landlock."""

from runtime.sandbox import landlock

landlock.abi = lambda: 0

"""How well rollouts decide: false alarms, delays, rivals on the same streams, and what it costs."""

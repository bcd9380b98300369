"""Statistics that stay valid while they are watched. Pure functions of mergeable counters."""

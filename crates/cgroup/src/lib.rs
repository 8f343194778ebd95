//! Resource groups over cgroup v1, hybrid and v2: one vocabulary on every layout.

"""A broker in a diagram: its sessions, connections and packets."""

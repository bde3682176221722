"""Stand-ins for the servers Citadel talks to; they speak the real wire protocols, errors included."""

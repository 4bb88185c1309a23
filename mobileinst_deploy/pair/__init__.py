"""From a network to two proven graphs: export, the parity ladder, and what finds a fault."""

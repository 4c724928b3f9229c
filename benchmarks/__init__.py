"""How claims are shown: one script per group, ours and the peer interleaved in one go."""

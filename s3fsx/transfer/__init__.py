"""How bytes move: parts, windows, places, memory."""

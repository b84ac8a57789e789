"""Planted faults: subjects and samplers with one real mistake each. Tests plant them, and sampling bets on those of samplers."""

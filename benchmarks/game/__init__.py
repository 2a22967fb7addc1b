"""A game that is drawn to measure what models as its last pass do to it: `velatura bench --game`."""

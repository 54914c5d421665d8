"""How far a judge can be trusted: its verdicts beside people's labels, as figures."""

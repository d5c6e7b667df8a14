"""The registered experiment of docs/experiment.md: samples, compact results, decision rule and results page."""

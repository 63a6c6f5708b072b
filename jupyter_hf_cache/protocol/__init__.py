"""The Hub's protocol as pure functions: no input or output, no clock, no web framework."""

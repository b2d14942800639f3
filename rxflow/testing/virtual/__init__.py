"""Virtual time: a clock, and the loop and scheduler that go by it."""

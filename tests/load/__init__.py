"""The load run: what a large team asks of the services and of our code at once (`python -m tests.load`)."""

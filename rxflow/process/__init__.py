"""The process: its threads, turns of its loop, forks, a disk that may hang."""

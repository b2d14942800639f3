"""What this process has: threads, turns of its loop, forks, a disk that may hang."""

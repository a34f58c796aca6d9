"""Keeps the processes of one installation running: what `segzero up` is made of.

- `restarts`: when to start again what has ended; pure.
- `lines`: what a process wrote → what is shown of it; pure.
- `console`: the one place that writes to the terminal or the log.
- `service`, `redis_service`: a process that is kept running.
- `supervise`: the loop.
- `plan`: which processes there are, and the lock on the data folder.
"""

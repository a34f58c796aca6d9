"""From an event of Label Studio to the store of corrections.

A webhook is kept in the spool before it is acknowledged (`receiver`), handed over to the queue
by a thread of the backend (`drainer`), and turned into a write to the store by a job
(`ingest_job`).
"""

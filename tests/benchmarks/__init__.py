"""Benchmarks: the cache beside nginx, beside a direct download, and beside a bare Tornado handler.

    python -m tests.benchmarks             some minutes; wants a machine with nothing else to do
    python -m tests.benchmarks --quick     about a minute; for working on the benchmark itself
    python -m tests.benchmarks --json FILE [--only warm cold rate ui snapshot]

Not part of the tests. Needs `nginx` and `curl` (Debian: `apt install nginx-light curl`), uses `wrk`
where it is installed, about 5 GiB of disk, and loopback ports only. The client of the snapshot rows
is the environment `hub2` below $HF_CACHE_TEST_CLIENTS, else below `.venvs/clients`, where
`bash .ci/test` makes it; without one these rows are left out, with a word.

What runs: the suite's own Hub in a process of its own as the upstream; the cache twice, as
`jupyter hf-cache serve` (called `serve` in the table) and inside a real `jupyter server`
(`jupyter`); nginx with a static file (`nginx`) and with proxy_cache before the same Hub
(`nginx proxy_cache`). Clients are curl for downloads, and wrk or a small loop for many requests.

How to read the table:

- A line is one figure. `median` is over the rounds, `range` the lowest and highest of them. Rounds
  are interleaved: ours, then its neighbour, then the next round, so that a machine that becomes
  slower meanwhile becomes so for both.
- `beside` is what it is compared with, in the same run, and `ratio` is ours divided by that.
  Ratios can be compared between machines, the figures themselves cannot.
- `goal` is what the project holds itself to, on 2 cores; `met` says yes or NO. A line without a
  goal is there to explain others.
- MiB/s are of all clients together, from the start of the first to the end of the last. CPU seconds
  per GiB are of the server's processes alone. Anonymous memory (RssAnon) is the highest seen while
  downloads ran; it does not count the page cache.
- Cold means that the cache forgot the repo, metadata and bytes, before each download.
- Latencies of the UI are of `GET /api/status` of the Jupyter server, once every few milliseconds on
  one kept connection; beside them the same server is asked while nginx does the same downloads.
- With a loaded machine, p99 and everything with 8 clients suffers first: look at `range`.
"""

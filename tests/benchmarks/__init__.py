"""Benchmarks: the cache beside nginx, olah, a direct download, and a bare Tornado handler.

    python -m tests.benchmarks             ten minutes; wants a machine with nothing else to do
    python -m tests.benchmarks --quick     three minutes; for working on the benchmark itself
    python -m tests.benchmarks --json FILE [--only startup warm rate ui cold lines snapshot]

Not part of the tests. Needs `curl`, about 8 GiB of disk, and loopback ports only; uses `nginx`
(Debian: `apt install nginx-light`) and `wrk` where they are installed. olah is installed once from
PyPI into `.venvs/peers/olah`, or is found in $HF_CACHE_BENCH_OLAH. The client of the snapshot rows
is the environment `hub2` below $HF_CACHE_TEST_CLIENTS, else below `.venvs/clients`, where
`bash .ci/test` makes it. What is missing is named in the table, and the rest is measured.

What runs: the suite's own Hub in a process of its own as the upstream; the cache twice, as
`jupyter hf-cache serve` (called `serve` in the table) and inside a real `jupyter server`
(`jupyter`); nginx with static files (`nginx`), and as people put it before a Hub, with proxy_cache
for the Hub and its CDN (`nginx proxy_cache`); olah as it comes. Clients are curl for downloads, wrk
for many GETs and a small loop for many HEADs, and `snapshot_download`.

How to read the table:

- A line is one figure. `median` is over the rounds, `range` the lowest and highest of them. Rounds
  are interleaved: ours, then its neighbour, then the next round, so that a machine that becomes
  slower meanwhile becomes so for both. Peers that are slow take part in one round.
- `beside` is what it is compared with, in the same run, and `ratio` is ours divided by that.
  Ratios can be compared between machines, the figures themselves cannot.
- `goal` is what the project holds itself to, on 2 cores; `met` says yes, NO, or "not judged" where
  what it is compared with was not there. A line without a goal is there to explain others, or to
  show what others reach.
- "not measured [1]": it failed, and note 1 below the table says how. The exit code is 1 only if
  something of the cache could not be measured.
- MiB/s are of all clients together, from the start of the first to the end of the last; with "each"
  they are of the slowest. CPU seconds per GiB are of the server's processes alone. RssAnon
  (anonymous memory, without the page cache) is the highest seen while downloads ran.
- Cold means that the cache forgot the repo, metadata and bytes, before each download. "sent by the
  Hub" is 1 when the Hub sent each byte once, for however many clients. The CPU of a cold download
  includes checking its digest, which nginx and olah do not do.
- "Hub at 40 MiB/s per connection": the direct download has one connection, as every client of the
  Hub has; `beside` is that.
- Latencies of the UI are of `GET /api/status` of the Jupyter server, once every few milliseconds on
  one kept connection; beside them the same server is asked while nginx does the same downloads.
- "the client was the limit" below a row of requests per second: it used a core of its own up, and
  the server may do more.
- With a loaded machine, p99 and everything with 8 clients suffers first: look at `range`, and at
  the load before and after above the table.
"""

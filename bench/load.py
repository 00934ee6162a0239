"""A load generator in a process of its own: keep-alive POSTs over raw sockets, as many at a time as asked.

`python -m bench.load HOST PORT PATH CONNECTIONS SECONDS KEY`, the body on standard input; prints answers/s and the
latencies' p50 and p99 in ms, of answers with status 202.
"""

import asyncio
import sys
import time

import uvloop

from bench.figures import quantile


async def client(host: str, port: int, request: bytes, until: float, latencies: list[float]) -> None:
    reader, writer = await asyncio.open_connection(host, port)
    while (begun := time.perf_counter()) < until:
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        assert head.startswith(b"HTTP/1.1 202"), head
        start = head.lower().index(b"content-length: ") + 16
        await reader.readexactly(int(head[start : head.index(b"\r\n", start)]))
        latencies.append(1000 * (time.perf_counter() - begun))
    writer.close()


async def main(host: str, port: str, path: str, connections: str, seconds: str, key: str) -> None:
    body = sys.stdin.buffer.read()
    request = (
        f"POST {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\n"
        f"Content-Length: {len(body)}\r\n\r\n"
    ).encode() + body
    latencies: list[float] = []
    begun = time.perf_counter()
    until = begun + float(seconds)
    await asyncio.gather(*(client(host, int(port), request, until, latencies) for _ in range(int(connections))))
    took = time.perf_counter() - begun
    print(len(latencies) / took, quantile(latencies, 0.5), quantile(latencies, 0.99))


if __name__ == "__main__":
    uvloop.run(main(*sys.argv[1:]))

"""A server with the batch routes of OpenAI and Anthropic: it keeps files and batches, and plants faults.

In a test: `async with BatchServer(answer) as server`. A batch ends at the `looks`-th look at it.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import random
import re
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any, Literal

from aiohttp import web

from tests.server import Body, Reply, answer

Fate = Literal["completed", "expired", "cancelled", "failed"]


@dataclass
class Stored:
    """A batch: its lines in their order, and, once it has ended, the results in another."""

    id: str
    calls: list[tuple[str, Body]]
    made_at: float
    metadata: dict[str, str] | None = None
    file: str = ""
    status: str = "in_progress"
    looks: int = 0
    results: list[Body] = field(default_factory=list)
    errors: list[Body] = field(default_factory=list)
    refusals: list[Body] = field(default_factory=list)


@dataclass
class BatchServer:
    """`answer` gives a line's reply, as a live route would.

    `fates` are those of the next batches, `done_before` the lines that an expired or cancelled one has answered;
    if `silent`, no file speaks of its other lines.
    `faults` are what comes of the next "METHOD /path": a status in place of the reply to what was done, 598 for
    a connection cut then; below 0 nothing is done. 0 is no fault.
    `room` is how many calls may be under way; a batch above it is refused when it is looked at, as OpenAI does.
    """

    answer: Callable[[Body], Reply] = answer
    key: str | None = None
    looks: int = 1
    fates: list[Fate] = field(default_factory=list)
    done_before: int = 0
    silent: bool = False
    faults: dict[str, list[int]] = field(default_factory=dict)
    room: int | None = None
    max_calls: int = 100_000
    max_bytes: int = 256_000_000
    on_created: Callable[[Stored], None] = lambda batch: None  # before the reply
    keep_metadata: bool = True
    batches: dict[str, Stored] = field(default_factory=dict)
    files: dict[str, bytes] = field(default_factory=dict)
    asked: list[str] = field(default_factory=list)

    async def __aenter__(self) -> BatchServer:
        self._ids = itertools.count(1)
        app = web.Application(middlewares=[self._faulty], client_max_size=2**30)
        app.router.add_post("/v1/chat/completions", self._live)
        app.router.add_post("/v1/files", self._upload)
        app.router.add_get("/v1/files/{id}/content", self._content)
        app.router.add_post("/v1/batches", self._create)
        app.router.add_get("/v1/batches", self._list)
        app.router.add_get("/v1/batches/{id}", self._retrieve)
        app.router.add_post("/v1/batches/{id}/cancel", self._cancel)
        app.router.add_post("/v1/messages/batches", self._create_messages)
        app.router.add_get("/v1/messages/batches", self._list_messages)
        app.router.add_get("/v1/messages/batches/{id}", self._retrieve_messages)
        app.router.add_post("/v1/messages/batches/{id}/cancel", self._cancel_messages)
        app.router.add_get("/v1/messages/batches/{id}/results", self._results)
        self._runner = web.AppRunner(app)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port: int = self._runner.addresses[0][1]
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._runner.cleanup()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def submitted(self) -> list[list[str]]:
        """The custom ids of every batch, in the order they came."""
        return [[name for name, _ in batch.calls] for batch in self.batches.values()]

    def times(self, asked: str) -> int:
        return self.asked.count(asked)

    @web.middleware
    async def _faulty(self, request: web.Request, handler: Any) -> web.StreamResponse:
        asked = f"{request.method} {re.sub(r'/(file|batch|msgbatch)[-_][^/]+', '/ID', request.path)}"
        self.asked.append(asked)
        if self.key is not None and self.key not in request.headers.get("Authorization", ""):
            return _error(401, "Incorrect API key provided: " + request.headers.get("Authorization", ""))
        faults = self.faults.get(asked, [])
        status = faults.pop(0) if faults else 0
        if status < 0:
            return _error(-status, "planted")
        reply: web.StreamResponse = await handler(request)
        if status == 598:  # done, and the connection cut
            assert request.transport is not None
            request.transport.abort()
            await asyncio.sleep(0)
        return _error(status, "planted") if status else reply

    # Files and batches as OpenAI has them

    async def _live(self, request: web.Request) -> web.Response:
        reply = self.answer(await request.json())
        assert isinstance(reply, dict)
        return web.json_response(reply)

    async def _upload(self, request: web.Request) -> web.Response:
        form = await request.post()
        assert form["purpose"] == "batch"
        upload = form["file"]
        assert isinstance(upload, web.FileField)
        content = upload.file.read()
        name = self._keep(content)
        shown = {
            "id": name,
            "object": "file",
            "bytes": len(content),
            "created_at": int(time.time()),
            "purpose": "batch",
        }
        return web.json_response(shown | {"filename": upload.filename, "status": "processed"})

    def _keep(self, content: bytes) -> str:
        name = f"file-{next(self._ids)}"
        self.files[name] = content
        return name

    async def _content(self, request: web.Request) -> web.Response:
        content = self.files.get(request.match_info["id"])
        return _error(404, "No such File object") if content is None else web.Response(body=content)

    async def _create(self, request: web.Request) -> web.Response:
        asked = await request.json()
        assert asked["completion_window"] == "24h"
        assert asked["endpoint"] == "/v1/chat/completions"
        content = self.files.get(asked["input_file_id"])
        if content is None:
            return _error(400, "No such File object")
        batch = Stored(f"batch_{next(self._ids)}", [], time.time(), file=asked["input_file_id"], status="validating")
        batch.metadata = asked.get("metadata") if self.keep_metadata else None
        names: set[str] = set()
        for number, raw in enumerate(content.splitlines(), 1):
            line = json.loads(raw)
            assert line["method"] == "POST"
            if line["url"] != asked["endpoint"] or line["custom_id"] in names:
                batch.refusals.append(_refusal("invalid_request", "a line that cannot be taken", number))
            if line["body"].get("stop") == ["refuse"]:
                batch.refusals.append(_refusal("invalid_value", "Invalid 'stop'", number, "stop"))
            names.add(line["custom_id"])
            batch.calls.append((line["custom_id"], line["body"]))
        if len(batch.calls) > self.max_calls or len(content) > self.max_bytes:
            batch.refusals.append(_refusal("request_limit_exceeded", "too many", None))
        self.batches[batch.id] = batch
        self.on_created(batch)
        return web.json_response(self._shown(batch))

    async def _list(self, request: web.Request) -> web.Response:
        found = self._newest_first("batch_")
        page, more = _page(found, request.query.get("after"), int(request.query.get("limit", 20)))
        data = [self._shown(batch) for batch in page]
        ends = {"first_id": page[0].id, "last_id": page[-1].id} if page else {}
        return web.json_response({"object": "list", "data": data, "has_more": more} | ends)

    async def _retrieve(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _error(404, "No batch found")
        batch.looks += 1
        if batch.status in ("validating", "in_progress"):
            self._advance(batch)
        return web.json_response(self._shown(batch))

    async def _cancel(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        self._end(batch, "cancelled")
        return web.json_response(self._shown(batch))

    def _advance(self, batch: Stored) -> None:
        under_way = sum(len(other.calls) for other in self.batches.values() if other.status == "in_progress")
        if batch.status == "validating":
            if self.room is not None and under_way + len(batch.calls) > self.room:
                text = (
                    "Enqueued token limit reached for gpt-test. Please try again once some batches have been completed."
                )
                batch.refusals.append(_refusal("token_limit_exceeded", text, None))
            if batch.refusals:
                batch.status = "failed"
                return
            batch.status = "in_progress"
        if batch.looks >= self.looks:
            self._end(batch, self.fates.pop(0) if self.fates else "completed")

    def _end(self, batch: Stored, fate: Fate) -> None:
        batch.status = fate
        if fate == "failed":
            batch.refusals.append(_refusal("server_error", "planted", None))
            return
        done = len(batch.calls) if fate == "completed" else self.done_before
        for name, body in batch.calls[:done]:
            status, content = _reply(self.answer(body))
            line = {"id": f"batch_req_{name[:6]}", "custom_id": name, "error": None}
            line["response"] = {"status_code": status, "request_id": f"req_{name[:6]}", "body": content}
            (batch.results if status == 200 else batch.errors).append(line)
        for name, _ in [] if self.silent else batch.calls[done:]:
            error = {"code": f"batch_{fate}", "message": f"The batch {fate} before this request was executed."}
            batch.errors.append({"id": f"batch_req_{name[:6]}", "custom_id": name, "response": None, "error": error})
        random.Random(batch.id).shuffle(batch.results)

    def _shown(self, batch: Stored) -> Body:
        ended = batch.status in ("completed", "expired", "cancelled")
        shown = {
            "id": batch.id,
            "object": "batch",
            "endpoint": "/v1/chat/completions",
            "errors": {"object": "list", "data": batch.refusals} if batch.status == "failed" else None,
            "input_file_id": batch.file,
            "completion_window": "24h",
            "status": batch.status,
            "created_at": int(batch.made_at),
            "expires_at": int(batch.made_at) + 86400,
            "metadata": batch.metadata,
            "request_counts": {"total": len(batch.calls), "completed": len(batch.results), "failed": len(batch.errors)},
        }
        for name, lines in (("output_file_id", batch.results), ("error_file_id", batch.errors)):
            if ended and lines:
                self.files[f"file-{name}-{batch.id}"] = b"\n".join(json.dumps(line).encode() for line in lines)
                shown[name] = f"file-{name}-{batch.id}"
        return shown

    # Message batches as Anthropic has them

    async def _create_messages(self, request: web.Request) -> web.Response:
        raw = await request.read()
        calls = [(one["custom_id"], one["params"]) for one in json.loads(raw)["requests"]]
        if any(not re.fullmatch(r"[a-zA-Z0-9_-]{1,64}", name) for name, _ in calls):
            return _error(400, "requests.0.custom_id: String should match pattern", "invalid_request_error")
        if len(calls) > self.max_calls or len(raw) > self.max_bytes:
            return _error(413, "Request exceeds the maximum size", "request_too_large")
        batch = Stored(f"msgbatch_{next(self._ids)}", calls, time.time())
        self.batches[batch.id] = batch
        self.on_created(batch)
        return web.json_response(self._shown_messages(batch))

    async def _list_messages(self, request: web.Request) -> web.Response:
        found = self._newest_first("msgbatch_")
        page, more = _page(found, request.query.get("after_id"), int(request.query.get("limit", 20)))
        data = [self._shown_messages(batch) for batch in page]
        first, last = (page[0].id, page[-1].id) if page else (None, None)
        return web.json_response({"data": data, "has_more": more, "first_id": first, "last_id": last})

    async def _retrieve_messages(self, request: web.Request) -> web.Response:
        batch = self.batches.get(request.match_info["id"])
        if batch is None:
            return _error(404, "Not found", "not_found_error")
        batch.looks += 1
        if batch.status == "in_progress" and batch.looks >= self.looks:
            self.end_messages(batch, self.fates.pop(0) if self.fates else "completed")
        return web.json_response(self._shown_messages(batch))

    async def _cancel_messages(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        self.end_messages(batch, "cancelled")
        return web.json_response(self._shown_messages(batch))

    async def _results(self, request: web.Request) -> web.Response:
        batch = self.batches[request.match_info["id"]]
        return web.Response(body="".join(json.dumps(line) + "\n" for line in batch.results).encode())

    def end_messages(self, batch: Stored, fate: Fate) -> None:
        batch.status = "ended"
        done = len(batch.calls) if fate == "completed" else self.done_before
        for name, body in batch.calls[:done]:
            status, content = _reply(self.answer(body))
            result = (
                {"type": "succeeded", "message": content} if status == 200 else {"type": "errored", "error": content}
            )
            batch.results.append({"custom_id": name, "result": result})
        for name, _ in batch.calls[done:]:
            kind = "canceled" if fate == "cancelled" else "expired"
            batch.results.append({"custom_id": name, "result": {"type": kind}})
        random.Random(batch.id).shuffle(batch.results)

    def _shown_messages(self, batch: Stored) -> Body:
        ended = batch.status == "ended"
        counts = dict.fromkeys(("processing", "succeeded", "errored", "canceled", "expired"), 0)
        for line in batch.results:
            counts[line["result"]["type"]] += 1
        counts["processing"] = 0 if ended else len(batch.calls)
        made = datetime.fromtimestamp(batch.made_at, UTC)
        return {
            "id": batch.id,
            "type": "message_batch",
            "processing_status": batch.status,
            "request_counts": counts,
            "created_at": made.isoformat(),
            "expires_at": (made + timedelta(days=1)).isoformat(),
            "ended_at": made.isoformat() if ended else None,
            "archived_at": None,
            "cancel_initiated_at": None,
            "results_url": f"{self.url}/messages/batches/{batch.id}/results" if ended else None,
        }

    def _newest_first(self, kind: str) -> list[Stored]:
        return [batch for batch in reversed(self.batches.values()) if batch.id.startswith(kind)]


def _reply(reply: Reply) -> tuple[int, Any]:
    return (reply[0], reply[1]) if isinstance(reply, tuple) else (200, reply)


def _page(found: list[Stored], after: str | None, limit: int) -> tuple[list[Stored], bool]:
    start = next((i + 1 for i, batch in enumerate(found) if batch.id == after), 0)
    return found[start : start + limit], len(found) > start + limit


def _refusal(code: str, message: str, line: int | None, param: str | None = None) -> Body:
    return {"code": code, "message": message, "line": line, "param": param}


def _error(status: int, message: str, kind: str = "invalid_request_error") -> web.Response:
    error = {"type": kind, "code": None, "message": message, "param": None}
    return web.json_response({"type": "error", "error": error}, status=status)

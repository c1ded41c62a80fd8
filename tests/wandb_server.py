"""As much of a W&B server as wandb 0.31 needs, on 127.0.0.1: runs, their history, a sweep and its agents; what goes wrong.

Where a run exists, the answer to `UpsertBucket` counts its history, and the client appends: a second writing of a run
that is not resumed doubles it here, as it would on a server that appends.
"""

import json
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import yaml

ANSWERS, HANGS, REFUSES, FAILS, TOO_MANY, DIES = "answers", "hangs", "refuses", "fails", "too many", "dies"
STATUS = {REFUSES: 401, FAILS: 500, TOO_MANY: 429}
OWNER = {"id": "ZW50", "name": "someone"}


class WandbServer(ThreadingHTTPServer):
    """`part` says what becomes of a call; `calls` are the names of all calls so far, `runs` what was uploaded, by id."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.part: Callable[[str], str] = lambda _: ANSWERS
        self.calls: list[str] = []
        self.runs: dict[str, dict[str, Any]] = {}
        self.sweep_config = ""
        self.trials: list[dict[str, Any]] = []
        self.closed = threading.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def handle_error(self, request: object, client_address: object) -> None:
        """Clients whose service was killed leave broken connections behind."""

    def die(self) -> None:
        """Nobody listens any more."""
        if not self.closed.is_set():
            self.closed.set()
            self.shutdown()
            self.server_close()

    def graphql(self, call: str, variables: dict[str, Any]) -> dict[str, Any]:
        if call == "UpsertBucket":
            found = variables["name"] in self.runs
            run = self.runs.setdefault(variables["name"], {"history": [], "summary": {}, "complete": 0})
            run.update({name: value for name, value in variables.items() if value is not None})
            return {"upsertBucket": {"bucket": self.bucket(run), "inserted": not found}}
        if call == "RunResumeStatus":
            run = self.runs.get(variables["name"])
            return {"model": {**OWNER, "entity": OWNER, "bucket": run and self.bucket(run)}}
        if call == "CreateRunFiles":
            files = [{"name": name, "uploadUrl": f"{self.url}/upload"} for name in variables["files"]]
            return {"createRunFiles": {"runID": "cnVu", "uploadHeaders": [], "files": files}}
        if call == "UpsertSweep":
            self.sweep_config = variables["config"]
            project = {"id": "cHJq", "name": variables["projectName"], "entity": OWNER}
            return {"upsertSweep": {"sweep": {"name": "sweep1", "project": project}, "configValidationWarnings": []}}
        if call == "SweepWithRuns":
            return {"project": {"sweep": {"id": "c3dl", "name": "sweep1", "config": self.sweep_config, "runs": {"edges": []}}}}
        if call == "CreateAgent":
            return {"createAgent": {"agent": {"id": "YWdl"}}}
        if call == "Heartbeat":
            commands, self.trials = self.trials[:1], self.trials[1:]
            if not commands and not json.loads(variables["runState"]):
                commands = [{"type": "exit"}]
            return {"agentHeartbeat": {"agent": {"id": "YWdl"}, "commands": json.dumps(commands)}}
        viewer = {"id": "dXNl", "username": "someone", "entity": "someone", "flags": "{}", "teams": {"edges": []}}
        return {"viewer": viewer, "serverInfo": {"features": []}}

    def bucket(self, run: dict[str, Any]) -> dict[str, Any]:
        history = run["history"]
        return {
            "id": "YnVj",
            "name": run["name"],
            "displayName": run.get("displayName"),
            "project": {"id": "cHJq", "name": run["project"], "entity": OWNER},
            "sweepName": run.get("sweep"),
            "config": run.get("config", "{}"),
            # By this the client knows a run that was written into from one that an agent's server has only planned.
            "wandbConfig": json.dumps({"t": {"1": 1}} if "config" in run else {}),
            "historyLineCount": len(history),
            "historyTail": json.dumps([json.dumps(row) for row in history[-1:]]),
            "summaryMetrics": json.dumps(run["summary"]),
            "eventsLineCount": 0,
            "logLineCount": 0,
            "eventsTail": "[]",
            "tags": run.get("tags", []),
        }

    def stream(self, run_id: str, content: dict[str, Any]) -> None:
        run, files = self.runs[run_id], content.get("files") or {}
        history = files.get("wandb-history.jsonl")
        if history:
            rows = [json.loads(line) for line in history["content"]]
            run["history"][history["offset"] : history["offset"] + len(rows)] = rows
        if "wandb-summary.json" in files:
            run["summary"] = json.loads(files["wandb-summary.json"]["content"][-1])
        run["complete"] += bool(content.get("complete"))

    def add_trial(self, run_id: str, parameters: dict[str, Any]) -> None:
        """What an agent is told to run next."""
        self.runs[run_id] = {"name": run_id, "project": "planned", "history": [], "summary": {}, "complete": 0}
        arguments = {name: {"value": value} for name, value in parameters.items()}
        program = yaml.safe_load(self.sweep_config)["program"]
        self.trials.append({"type": "run", "run_id": run_id, "program": program, "args": arguments})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: WandbServer  # pyright: ignore[reportIncompatibleVariableOverride]

    def log_message(self, format: str, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        is_json = self.headers.get("Content-Type", "").startswith("application/json")
        content: dict[str, Any] = json.loads(body) if is_json else {}
        place = self.path.split("/")
        call = content.get("operationName") or _first_name(content.get("query", "")) or place[-1]
        self.server.calls.append(call)
        part = DIES if self.server.closed.is_set() else self.server.part(call)
        if part == DIES:
            self.close_connection = True
            self.server.die()
        elif part == HANGS:
            self.server.closed.wait()
        elif part in STATUS:
            self.reply({"errors": [{"message": f"the server {part}"}]}, STATUS[part])
        elif place[-1] == "graphql":
            self.reply({"data": self.server.graphql(call, content.get("variables") or {})})
        else:
            if call == "file_stream":
                self.server.stream(place[-2], content)
            self.reply({})

    do_GET = do_PUT = do_POST  # noqa: N815

    def reply(self, content: dict[str, Any], status: int = 200) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


def _first_name(query: str) -> str:
    """Of `mutation Heartbeat($id: ID!) {...}` the word Heartbeat."""
    return query.split("(")[0].split("{")[0].split()[-1] if query.split() else ""


@contextmanager
def serving() -> Iterator[WandbServer]:
    server = WandbServer()
    threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
    try:
        yield server
    finally:
        server.die()

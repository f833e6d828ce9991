"""A small HTTP service that runs the lm-evaluation-harness against a completions server.

One job at a time, each in a process of its own (worker.py), which writes its result as a whole file. The wire is versioned (API);
see README.md for the routes. Only the standard library is used here: the harness is loaded by the worker alone.
"""

import argparse
import hmac
import importlib.metadata
import json
import os
import platform
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.parse
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

API = 1
ADAPTER = "0.1.0"
BODY_BYTES = 1 << 20
STDERR_LINES = 40
WORKER = Path(__file__).with_name("worker.py")
STATUS = {
    "bad_request": 400,
    "unauthorized": 401,
    "unknown_job": 404,
    "unknown_task": 404,
    "unknown_route": 404,
    "busy": 409,
    "not_ready": 409,
    "unsupported": 422,
    "model_unreachable": 424,
    "dataset_missing": 424,
    "api_version": 426,
    "harness_failed": 500,
}


class Failure(Exception):
    """An answer that is an error."""

    def __init__(self, code, message, detail=None):
        super().__init__(message)
        self.code, self.message, self.detail = code, message, detail

    def body(self):
        return {"code": self.code, "message": self.message, "detail": self.detail}


def version(package):
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def versions():
    return {
        "lm_eval": version("lm_eval"),
        "datasets": version("datasets"),
        "transformers": version("transformers"),
        "python": platform.python_version(),
    }


def environment(folder, api_key=None):
    """The worker's environment: no hub, no proxy, no bars."""
    settings = {
        "HF_HUB_OFFLINE": "1",
        "HF_DATASETS_OFFLINE": "1",
        "HF_HOME": str(folder / "hf"),
        "NO_PROXY": "127.0.0.1,localhost",
        "no_proxy": "127.0.0.1,localhost",
        "TQDM_DISABLE": "1",
        "TOKENIZERS_PARALLELISM": "false",
        "LMEVAL_LOG_LEVEL": "WARNING",
        "OPENAI_API_KEY": api_key or "none",
    }
    return {**os.environ, **settings}


def require(value, kinds, name):
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in (kinds if isinstance(kinds, tuple) else (kinds,))):
        raise Failure("bad_request", f"`{name}` is missing or of the wrong type")
    return value


def optional(value, kinds, name):
    return value if value is None else require(value, kinds, name)


def check(job):
    """Refuses a job that cannot be run; returns it."""
    if not isinstance(job, dict):
        raise Failure("bad_request", "the body is no JSON object")
    if job.get("api") != API:
        raise Failure("api_version", f"this service speaks api {API}, the request says {job.get('api')!r}")
    require(job.get("key"), str, "key")
    tasks = require(job.get("tasks"), list, "tasks")
    if not tasks or not all(isinstance(task, str) and task for task in tasks):
        raise Failure("bad_request", "`tasks` must be a list of names")
    optional(job.get("num_fewshot"), int, "num_fewshot")
    optional(job.get("limit"), int, "limit")
    check_model(require(job.get("model"), dict, "model"))
    check_tokenizer(require(job.get("tokenizer"), dict, "tokenizer"))
    check_data(optional(job.get("data"), dict, "data") or {})
    optional(job.get("run"), dict, "run")
    return job


def check_model(model):
    require(model.get("name"), str, "model.name")
    require(model.get("context_len"), int, "model.context_len")
    optional(model.get("api_key"), str, "model.api_key")
    url = urllib.parse.urlsplit(require(model.get("completions_url"), str, "model.completions_url"))
    if url.scheme not in ("http", "https") or not url.hostname:
        raise Failure("bad_request", "`model.completions_url` is no http address")
    port = url.port or (443 if url.scheme == "https" else 80)
    try:
        socket.create_connection((url.hostname, port), timeout=5).close()
    except OSError as error:
        raise Failure("model_unreachable", f"nothing answers at {url.hostname}:{port}: {error}") from error


def check_tokenizer(tokenizer):
    backend, add_bos = tokenizer.get("backend"), tokenizer.get("add_bos", False)
    require(add_bos, bool, "tokenizer.add_bos")
    optional(tokenizer.get("prefix_token_id"), int, "tokenizer.prefix_token_id")
    if backend not in ("remote", "huggingface"):
        raise Failure("bad_request", "`tokenizer.backend` must be remote or huggingface")
    if backend == "remote" and add_bos:
        raise Failure("unsupported", "the harness cannot add a BOS token with the remote tokenizer: use the huggingface backend")
    if backend == "huggingface":
        require(tokenizer.get("path"), str, "tokenizer.path")
        if version("transformers") is None:
            raise Failure("unsupported", "the huggingface tokenizer backend needs the transformers package")


def check_data(data):
    for name in ("root", "include_path"):
        path = optional(data.get(name), str, f"data.{name}")
        if path is not None and not (os.path.isabs(path) and os.path.isdir(path)):
            raise Failure("dataset_missing", f"`data.{name}` is no absolute path of a folder: {path}")


class Job:
    """One run of the harness in a process of its own."""

    def __init__(self, request, folder):
        self.id, self.key, self.folder = secrets.token_hex(8), request["key"], folder
        self.started, self.ended, self.cancelled = time.monotonic(), None, False
        folder.mkdir()
        (folder / "job.json").write_text(json.dumps(request), "utf-8")
        self.stderr = open(folder / "stderr.txt", "wb")
        command = [sys.executable, str(WORKER), "run", str(folder)]
        api_key = request["model"].get("api_key")
        pipes = {"stdin": subprocess.DEVNULL, "stdout": self.stderr, "stderr": self.stderr}
        self.process = subprocess.Popen(command, env=environment(folder, api_key), cwd=folder, **pipes)
        threading.Thread(target=self.wait, daemon=True).start()

    def wait(self):
        self.process.wait()
        self.ended = time.monotonic()
        self.stderr.close()

    def state(self):
        if self.ended is None:
            return "running"
        if self.cancelled:
            return "cancelled"
        return "succeeded" if (self.folder / "result.json").exists() else "failed"

    def error(self):
        if self.state() != "failed":
            return None
        try:
            return json.loads((self.folder / "error.json").read_text("utf-8"))
        except (OSError, ValueError):
            message = f"the harness process ended with status {self.process.returncode}"
            return Failure("harness_failed", message, self.last_lines()).body()

    def last_lines(self):
        text = (self.folder / "stderr.txt").read_text("utf-8", "replace")
        return "\n".join(text.splitlines()[-STDERR_LINES:])

    def stage(self):
        try:
            return (self.folder / "stage").read_text("utf-8")
        except OSError:
            return "load"

    def status(self):
        elapsed = (self.ended or time.monotonic()) - self.started
        return {"job_id": self.id, "state": self.state(), "stage": self.stage(), "elapsed_s": elapsed, "error": self.error()}

    def result(self):
        state = self.state()
        if state == "failed":
            error = self.error()
            raise Failure(error["code"], error["message"], error["detail"])
        if state != "succeeded":
            raise Failure("not_ready", f"the job is {state}")
        return json.loads((self.folder / "result.json").read_text("utf-8"))

    def samples(self, task):
        self.result()
        names = json.loads((self.folder / "samples.json").read_text("utf-8"))
        if task not in names:
            raise Failure("unknown_task", f"the job has no samples of `{task}`")
        return (self.folder / names[task]).read_bytes()

    def cancel(self):
        if self.ended is None:
            self.cancelled = True
            self.process.terminate()
            try:
                self.process.wait(5)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait()
            while self.ended is None:
                time.sleep(0.01)


class Desk:
    """All jobs of this service, newest last."""

    KEPT = 20

    def __init__(self, folder):
        self.folder, self.lock, self.jobs, self.tasks = folder, threading.Lock(), {}, None

    def running(self):
        return next((job for job in self.jobs.values() if job.ended is None), None)

    def submit(self, request):
        """The job and whether it is new."""
        with self.lock:
            same = next((job for job in self.jobs.values() if job.key == request["key"]), None)
            if same is not None:
                return same, False
            if self.running() is not None:
                raise Failure("busy", f"job {self.running().id} is running", self.running().id)
            self.forget()
            job = Job(request, self.folder / f"job-{len(os.listdir(self.folder))}-{secrets.token_hex(4)}")
            self.jobs[job.id] = job
            return job, True

    def forget(self):
        while len(self.jobs) >= self.KEPT:
            old = self.jobs.pop(next(iter(self.jobs)))
            shutil.rmtree(old.folder, ignore_errors=True)

    def find(self, job_id):
        if job_id not in self.jobs:
            raise Failure("unknown_job", f"there is no job `{job_id}`")
        return self.jobs[job_id]

    def list_tasks(self):
        with self.lock:
            if self.tasks is None:
                command = [sys.executable, str(WORKER), "tasks"]
                done = subprocess.run(command, env=environment(self.folder), cwd=self.folder, capture_output=True, timeout=300)
                if done.returncode != 0:
                    raise Failure("harness_failed", "the tasks cannot be listed", done.stderr.decode("utf-8", "replace")[-4000:])
                self.tasks = json.loads(done.stdout)
            return self.tasks

    def close(self):
        for job in self.jobs.values():
            job.cancel()
        shutil.rmtree(self.folder, ignore_errors=True)


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    timeout = 30

    def log_message(self, *_):
        pass

    def do_GET(self):
        self.answer(self.get)

    def do_POST(self):
        self.answer(self.post)

    def do_DELETE(self):
        self.answer(self.delete)

    def answer(self, route):
        try:
            self.authorize()
            status, body = route([urllib.parse.unquote(part) for part in self.path.split("?")[0].strip("/").split("/")])
        except Failure as failure:
            status, body = STATUS.get(failure.code, 500), {"error": failure.body()}
        except Exception as error:  # noqa: BLE001 - the service outlives any request
            status, body = 500, {"error": Failure("harness_failed", f"{type(error).__name__}: {error}").body()}
        self.send(status, body)

    def send(self, status, body):
        kind = "application/x-ndjson" if isinstance(body, bytes) else "application/json"
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(data)))
        if status >= 400:  # a body may lie unread
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(data)

    def authorize(self):
        token = self.server.token
        given = self.headers.get("Authorization", "")
        if token and not hmac.compare_digest(given.encode(), f"Bearer {token}".encode()):
            raise Failure("unauthorized", "a bearer token is needed, and it must be the right one")

    def body(self):
        try:
            length = int(self.headers.get("Content-Length", ""))
        except ValueError:
            raise Failure("bad_request", "the length of the body is not given") from None
        if not 0 <= length <= BODY_BYTES:
            raise Failure("bad_request", f"the body is larger than {BODY_BYTES} bytes")
        try:
            return json.loads(self.rfile.read(length))
        except ValueError as error:
            raise Failure("bad_request", f"the body is not JSON: {error}") from error

    def get(self, path):
        desk = self.server.desk
        match path:
            case ["v1", "health"]:
                return 200, {"api": API, "adapter": ADAPTER, **versions(), "busy": desk.running() is not None}
            case ["v1", "tasks"]:
                return 200, {"tasks": desk.list_tasks()}
            case ["v1", "jobs", job]:
                return 200, desk.find(job).status()
            case ["v1", "jobs", job, "result"]:
                return 200, desk.find(job).result()
            case ["v1", "jobs", job, "samples", task]:
                return 200, desk.find(job).samples(task)
        raise Failure("unknown_route", "there is no such route")

    def post(self, path):
        if path != ["v1", "jobs"]:
            raise Failure("unknown_route", "there is no such route")
        job, new = self.server.desk.submit(check(self.body()))
        return 202 if new else 200, {"job_id": job.id, "state": "queued" if new else job.state()}

    def delete(self, path):
        match path:
            case ["v1", "jobs", job]:
                self.server.desk.find(job).cancel()
                return 202, self.server.desk.find(job).status()
        raise Failure("unknown_route", "there is no such route")


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def __init__(self, address, token, desk):
        super().__init__(address, Handler)
        self.token, self.desk = token, desk


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--while-stdin", action="store_true", help="end when standard input is closed")
    args = parser.parse_args()
    desk = Desk(Path(tempfile.mkdtemp(prefix="tyr-lm-eval-")))
    server = Server((args.host, args.port), os.environ.pop("TYR_LM_EVAL_TOKEN", None), desk)

    def stop(*_):
        threading.Thread(target=server.shutdown, daemon=True).start()

    def watch_stdin():
        while sys.stdin.buffer.read(1):
            pass
        stop()

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)
    if args.while_stdin:
        threading.Thread(target=watch_stdin, daemon=True).start()
    print(json.dumps({"url": f"http://{args.host}:{server.server_address[1]}"}), flush=True)
    try:
        server.serve_forever(poll_interval=0.1)
    finally:
        desk.close()


if __name__ == "__main__":
    main()

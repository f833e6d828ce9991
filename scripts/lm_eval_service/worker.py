"""One run of the harness, or the list of its tasks; started by service.py in a process of its own."""

import json
import os
import platform
import re
import sys
import threading
import time
import traceback
import urllib.request
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

STDERR_LINES = 40
DEFAULTS = {
    "batch_size": 16,
    "num_concurrent": 1,
    "timeout_s": 600,
    "max_retries": 3,
    "seeds": [0, 1234, 1234, 1234],
    "bootstrap_iters": 1000,
}


class Unsupported(Exception):
    pass


class UnknownTask(Exception):
    pass


def write(path, text):
    """Writes a file that appears whole."""
    partial = path.with_name(path.name + ".partial")
    with open(partial, "w", encoding="utf-8") as out:
        out.write(text)
        out.flush()
        os.fsync(out.fileno())
    os.replace(partial, path)


def end_with_parent():
    """Ends this process when the service is gone."""
    parent = os.getppid()

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(1)

    threading.Thread(target=watch, daemon=True).start()


def installed(package):
    try:
        return version(package)
    except PackageNotFoundError:
        return None


def model_args(job):
    model, tokenizer, run = job["model"], job["tokenizer"], {**DEFAULTS, **(job.get("run") or {})}
    args = {
        "model": model["name"],
        "base_url": model["completions_url"],
        "tokenizer_backend": tokenizer["backend"],
        "tokenizer": tokenizer.get("path"),
        "tokenized_requests": True,
        "max_length": model["context_len"] + 2,  # the harness keeps one id less, and the last one is not read
        "num_concurrent": run["num_concurrent"],
        "timeout": run["timeout_s"],
        "max_retries": run["max_retries"],
        "add_bos_token": tokenizer.get("add_bos", False),
    }
    if tokenizer.get("prefix_token_id") is not None:
        args["custom_prefix_token_id"] = tokenizer["prefix_token_id"]
    if model.get("api_key"):
        args["auth_token"] = model["api_key"]  # for the tokenizer's routes; completions take it from the environment
    return args, run


def check_prefix(job):
    """The harness takes a BOS id of 0 for none: then the prefix must be given."""
    tokenizer = job["tokenizer"]
    if tokenizer["backend"] != "remote" or tokenizer.get("prefix_token_id") is not None:
        return
    root = job["model"]["completions_url"].rsplit("/v1/", 1)[0]
    headers = {"Authorization": f"Bearer {job['model'].get('api_key') or ''}", "Content-Type": "application/json"}

    def ask(route, body=None):
        data = None if body is None else json.dumps(body).encode()
        opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
        with opener.open(urllib.request.Request(root + route, data, headers), timeout=30) as answer:
            return json.load(answer)

    bos = ask("/tokenizer_info").get("bos_token")
    if bos and ask("/tokenize", {"prompt": bos, "add_special_tokens": False})["tokens"] == [0]:
        raise Unsupported("the BOS token has id 0, which the harness takes for none: give tokenizer.prefix_token_id")


def declarations(names, root):
    """The YAML files that give a task or a group one of these names, by name."""
    either = "|".join(re.escape(name) for name in names)
    line = re.compile(rf"^[\"']?(?:task|group)[\"']?:\s*[\"']?({either})[\"']?\s*$", re.MULTILINE)
    found = {name: [] for name in names}
    for file in root.rglob("*.yaml"):
        for name in line.findall(file.read_text("utf-8", errors="replace")):
            found[name].append(file)
    return found


def complete(manager, name):
    """Whether a task is known, or a group with all that it names."""
    entry = manager.task_index.get(name)
    if entry is None:
        return False
    members = (entry.cfg or {}).get("task") if entry.kind.name == "GROUP" else []
    return isinstance(members, list) and all(isinstance(m, str) and complete(manager, m) for m in members)


def task_manager(names, include_path):
    """Knows these tasks. Reading all of the harness's thirteen thousand task files takes ten seconds, so only the folders that declare
    the names are read where that is enough."""
    import lm_eval.tasks

    root = Path(lm_eval.tasks.__file__).parent
    found = {} if include_path else declarations(names, root)
    if found and all(len(files) == 1 for files in found.values()):
        folders = sorted({root / files[0].relative_to(root).parts[0] for files in found.values()})
        manager = lm_eval.tasks.TaskManager(include_defaults=False, include_path=folders)
        if all(complete(manager, name) for name in names):
            return manager
    return lm_eval.tasks.TaskManager(include_path=include_path)


def evaluate(job, folder):
    from lm_eval import simple_evaluate

    data = job.get("data") or {}
    if data.get("root"):
        os.chdir(data["root"])
    args, run = model_args(job)
    seeds = run["seeds"]
    manager = task_manager(job["tasks"], data.get("include_path"))
    unknown = [name for name in job["tasks"] if name not in manager.task_index]
    if unknown:
        raise UnknownTask(f"the harness has no task {', '.join(unknown)}")
    write(folder / "stage", "score")
    results = simple_evaluate(
        model="local-completions",
        model_args=args,
        tasks=job["tasks"],
        num_fewshot=job.get("num_fewshot"),
        batch_size=run["batch_size"],
        limit=job.get("limit"),
        bootstrap_iters=run["bootstrap_iters"],
        log_samples=bool(job.get("samples")),
        task_manager=manager,
        random_seed=seeds[0],
        numpy_random_seed=seeds[1],
        torch_random_seed=seeds[2],
        fewshot_random_seed=seeds[3],
    )
    write(folder / "stage", "aggregate")
    args.pop("auth_token", None)
    return results, {"model_args": args, "run": run, "num_fewshot": job.get("num_fewshot"), "limit": job.get("limit")}


def number(value):
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def metrics(entry):
    """`acc,none` becomes `acc`; errors go to their metric, "N/A" becomes null."""
    found = {}
    for key, value in entry.items():
        name, _, kind = key.partition(",")
        if not kind or name.endswith("_stderr") or number(value) is None:
            continue
        label = name if kind == "none" else key
        found[label] = {"value": number(value), "stderr": number(entry.get(f"{name}_stderr,{kind}"))}
    return found


def report(results, effective):
    groups = results.get("groups") or {}
    packages = {name: installed(name) for name in ("lm_eval", "datasets", "transformers")}
    return {
        "results": {task: metrics(entry) for task, entry in results["results"].items() if task not in groups},
        "groups": {group: metrics(entry) for group, entry in groups.items()},
        "group_tasks": {group: results.get("group_subtasks", {}).get(group, []) for group in groups},
        "n_samples": results.get("n-samples", {}),
        "task_versions": results.get("versions", {}),
        "n_shot": results.get("n-shot", {}),
        "env": {**packages, "python": platform.python_version()},
        "effective_args": effective,
    }


def sample_line(sample):
    responses = sample.get("filtered_resps") or []
    requests = []
    for arguments, response in zip(sample["arguments"], responses):
        request = {"context": arguments[0], "continuation": arguments[1] if len(arguments) > 1 else None}
        if isinstance(response, (list, tuple)):
            request |= {"loglikelihood": float(response[0]), "greedy": bool(response[1])}
        elif isinstance(response, float):  # of a whole text
            request |= {"loglikelihood": response, "greedy": None}
        else:
            request["response"] = response
        requests.append(request)
    values = {name: sample[name] for name in sample.get("metrics", []) if name in sample}
    line = {"doc_id": sample["doc_id"], "requests": requests, "target": sample["target"], "metrics": values}
    return json.dumps(line | {"prompt_hash": sample["prompt_hash"]}, default=str)


def write_samples(results, folder):
    names = {}
    for i, (task, samples) in enumerate(sorted((results.get("samples") or {}).items())):
        names[task] = f"samples-{i}.ndjson"
        write(folder / names[task], "".join(sample_line(sample) + "\n" for sample in samples))
    write(folder / "samples.json", json.dumps(names))


CODES = {
    "ConnectionError": "model_unreachable",
    "ConnectTimeout": "model_unreachable",
    "ReadTimeout": "model_unreachable",
    "ClientConnectorError": "model_unreachable",
    "ServerDisconnectedError": "model_unreachable",
    "URLError": "model_unreachable",
    "DatasetNotFoundError": "dataset_missing",
    "DataFilesNotFoundError": "dataset_missing",
    "OfflineModeIsEnabled": "dataset_missing",
    "LocalEntryNotFoundError": "dataset_missing",
    "Unsupported": "unsupported",
    "UnknownTask": "unknown_task",
}


def causes(error):
    while error is not None:
        yield error
        last = getattr(error, "last_attempt", None)  # of a retry
        inner = last.exception() if last is not None else None
        error = inner or error.__cause__ or error.__context__


def code(error):
    names = [type(cause).__name__ for cause in causes(error)]
    text = " ".join(str(cause) for cause in causes(error))
    if isinstance(error, KeyError) and error.args[:1] and error.args[0] in ("train", "validation", "test", "dev"):
        return "dataset_missing"  # a task looks at all its splits, also those that it does not score
    # A hub that is not to be asked is a data set that is not there, whatever else was tried.
    found = [CODES[name] for name in names if name in CODES]
    if "dataset_missing" in found or "offline" in text.lower() or "huggingface.co" in text:
        return "dataset_missing"
    return found[0] if found else "harness_failed"


def run(folder):
    end_with_parent()
    job = json.loads((folder / "job.json").read_text("utf-8"))
    try:
        write(folder / "stage", "load")
        check_prefix(job)
        results, effective = evaluate(job, folder)
        write_samples(results, folder)
        write(folder / "result.json", json.dumps(report(results, effective), default=str))
    except BaseException as error:  # noqa: BLE001 - whatever it is, the service must be told
        lines = "".join(traceback.format_exception(error)).splitlines()[-STDERR_LINES:]
        message = f"{type(error).__name__}: {error}"
        write(folder / "error.json", json.dumps({"code": code(error), "message": message, "detail": "\n".join(lines)}))
        raise


def tasks():
    """Every task of the harness; what its own file leaves to an included one is null."""
    from lm_eval.tasks import TaskManager

    manager = TaskManager()
    index = manager.task_index
    json.dump([task(name, getattr(index.get(name), "cfg", None) or {}) for name in manager.all_subtasks], sys.stdout)


def task(name, config):
    metrics = [entry.get("metric") for entry in config.get("metric_list") or [] if isinstance(entry, dict)]
    return {
        "name": name,
        "version": (config.get("metadata") or {}).get("version"),
        "output_type": config.get("output_type"),
        "metrics": [str(metric) for metric in metrics],
        "num_fewshot": config.get("num_fewshot"),
    }


if __name__ == "__main__":
    if sys.argv[1:2] == ["run"] and len(sys.argv) == 3:
        run(Path(sys.argv[2]))
    elif sys.argv[1:] == ["tasks"]:
        tasks()
    else:
        sys.exit("usage: worker.py run FOLDER | worker.py tasks")

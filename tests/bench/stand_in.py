"""Stands for a virtual environment's python: measures nothing, and is where `dlbench.bench` thinks
that ``pytest benchmarks/`` or `dlbench.train` run. Needs no package, so that it starts at once.

It notes each launch in $JOURNAL and leaves $TEMPLATE (a benchmark JSON) or its first record, with
the name of the setup, where it is told to. Launch $FAIL_AT fails, launch $HANG_AT never ends; of
every launch benchmark $WRONG fails, whose others are there.
"""

import json
import os
import subprocess
import sys
import time
from datetime import UTC, datetime
from pathlib import Path

journal = Path(os.environ["JOURNAL"])
options = dict(word.split("=", 1) for word in sys.argv if "=" in word)
name = options.get("--setup-name", "experiment")
with journal.open("a") as file:
    file.write(f"{name}\n")
count = len(journal.read_text().splitlines())
print("arguments", json.dumps(sys.argv[1:]))
print("variables", os.environ.get("TF_ENABLE_ONEDNN_OPTS"), os.environ.get("CUDA_VISIBLE_DEVICES"))
if count == int(os.environ.get("FAIL_AT", 0)):
    print("E   AssertionError: the output is wrong")
    sys.exit(1)
if count == int(os.environ.get("HANG_AT", 0)):
    child = subprocess.Popen(["sleep", "600"], start_new_session=True)  # as Horovod's ranks are
    journal.with_name("hanging").write_text(str(child.pid))
    time.sleep(600)
content = json.loads(Path(os.environ["TEMPLATE"]).read_text())
# Not the same for the two of an A B A B order, and yet alike in the mean.
speed = 1.0 + 0.001 * (count * 5 % 12)
if count % 2 == 0:
    speed *= float(os.environ.get("SLOWER_EVEN", 1))
for benchmark in content["benchmarks"]:
    record = benchmark["extra_info"]["record"]
    record["created"] = datetime.now(UTC).isoformat()
    record["setup"]["name"] = options.get("--setup-name")
    for rank in record["ranks"]:
        rank["wall_s"] *= speed * float(os.environ.get("SLOWER", 1))
if "WRONG" in os.environ:
    content["failed"] = [os.environ["WRONG"]]
if "--benchmark-json" in options:
    Path(options["--benchmark-json"]).write_text(
        json.dumps(content)[: int(os.environ.get("CUT", 10**9))]
    )
    if "WRONG" in os.environ:
        sys.exit(1)
else:
    target = Path(json.loads(options["output"])) / options["name"] / "record.json"
    target.parent.mkdir()
    target.write_text(json.dumps(content["benchmarks"][0]["extra_info"]["record"]))

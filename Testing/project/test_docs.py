"""What the pages in docs show is what the program understands."""

from __future__ import annotations

import json
import re
from pathlib import Path

from SAMFineTuneLib.interactive.protocol import SessionSettings, parse_request
from SAMFineTuneLib.jobs.schema import read_job
from SAMFineTuneLib.worker.events import Log, parse_line
from Testing.support.repository import REPOSITORY

DOCS = REPOSITORY / "docs"


def json_blocks() -> list[str]:
    text = (DOCS / "protocol.md").read_text(encoding="utf-8")
    return re.findall(r"```json\n(.*?)```", text, re.DOTALL)


def test_the_jobs_of_the_protocol_are_jobs(tmp_path: Path) -> None:
    jobs = [block for block in json_blocks() if '"schema_version"' in block]
    for block in jobs:
        (tmp_path / "job.json").write_text(block, encoding="utf-8")
        assert read_job(tmp_path).kind == json.loads(block)["kind"]
    assert {json.loads(block)["kind"] for block in jobs} == {
        "finetune", "apply", "evaluate", "checkpoint",
    }  # fmt: skip


def test_the_lines_of_the_protocol_are_events_and_requests() -> None:
    lines = [line for block in json_blocks() for line in block.splitlines()]
    events = [line for line in lines if line.startswith('{"type"')]
    assert len(events) == 2 and not any(isinstance(parse_line(line), Log) for line in events)
    (request,) = [line for line in lines if '"id"' in line]
    assert parse_request(request).kind == "find_mask"
    (session,) = [line for line in lines if '"axis"' in line]
    SessionSettings.model_validate_json(session)

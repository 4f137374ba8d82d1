"""Every error is documented, with the status it has."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from rbee.errors import CATALOGUE, OutOfMemoryError
from rbee.hive.workers.preflight import check_memory
from rbee.wire.error_body import to_body

DOCUMENT = Path(__file__).parents[2] / "docs" / "errors.md"
ROW = re.compile(r"^\| `([A-Z_]+)` \| (\d{3}) \| (.+) \| (.+) \|$", re.MULTILINE)


def test_the_document_lists_the_catalogue_and_nothing_else() -> None:
    rows = ROW.findall(DOCUMENT.read_text())
    assert {code: int(status) for code, status, _, _ in rows} == {code: cls.status for code, cls in CATALOGUE.items()}


def test_the_document_is_sorted_and_without_gaps() -> None:
    rows = ROW.findall(DOCUMENT.read_text())
    codes = [code for code, *_ in rows]
    assert codes == sorted(set(codes))
    assert all(when.strip() and advice.strip() for _, _, when, advice in rows)


def test_the_documents_example_is_what_is_sent() -> None:
    block = re.search(r"```json\n(.*?)```", DOCUMENT.read_text(), re.DOTALL)
    assert block is not None
    example = json.loads(block[1])
    with pytest.raises(OutOfMemoryError) as caught:
        check_memory(6_000_000_000, 4_000_000_000, "ram")
    assert to_body(caught.value, example["error"]["correlation_id"]) == example

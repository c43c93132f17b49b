from __future__ import annotations

import re
import tarfile
from pathlib import Path

import pytest
from ansible.module_utils.juju_dr.collection_metadata import collection_of, file_stem, format_metadata, parse_metadata
from ansible.module_utils.juju_dr.errors import JujuDrError
from hypothesis import given
from hypothesis import strategies as st

FIXTURES = Path(__file__).resolve().parent.parent / "data" / "fixtures"


@pytest.mark.parametrize("archive", sorted(FIXTURES.glob("*-single.tar.gz")), ids=lambda p: p.name)
def test_metadata_is_written_as_mongodump_wrote_it(archive: Path) -> None:
    seen = 0
    with tarfile.open(archive) as tar:
        for member in tar:
            if not member.name.endswith(".metadata.json"):
                continue
            content = tar.extractfile(member)
            assert content is not None
            text = content.read().decode()
            read = parse_metadata(text, member.name)
            assert file_stem(read["collectionName"]) == re.sub(r"\.metadata\.json$", "", Path(member.name).name)
            again = format_metadata(read["collectionName"], read["options"], read["indexes"], read["uuid"], read["type"])
            assert again == text
            seen += 1
    assert seen > 90


@given(st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1, max_size=30))
def test_collection_names_survive_as_file_names(name: str) -> None:
    assert collection_of(file_stem(name)) == name
    assert "/" not in file_stem(name)


@pytest.mark.parametrize("text", ["", "[]", "{", "nonsense"])
def test_what_is_no_metadata_is_refused(text: str) -> None:
    with pytest.raises(JujuDrError, match=r"x\.metadata\.json is not metadata"):
        parse_metadata(text, "x.metadata.json")

"""Any request is answered, or refused in one line, and leaves the server as it was."""

from __future__ import annotations

import json

import numpy as np
import pytest
import requests
from fuzz.attempts import attempt
from hypothesis import given
from hypothesis import strategies as st
from running import server

KNOWN = [
    "m3ae", "random", "series", "name", "..", "/etc/passwd", "final", "dicom", "null", "image", "tag", "params",
    "label",
]  # fmt: skip
WORDS = st.sampled_from(KNOWN) | st.text(max_size=8)
ATOMS = st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), WORDS)
JSON = st.recursive(ATOMS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(WORDS, inner, max_size=3))
PLACES = [
    "", "healthz", "static/{}", "segment/{}", "studies", "studies/{}", "studies/{}/files", "studies/{}/read",
    "studies/{}/segment/m3ae", "info/", "datastore/", "datastore/image", "datastore/label", "infer/{}",
]  # fmt: skip
PATHS = st.builds(str.format, st.sampled_from([f"/{place}" for place in PLACES]), WORDS)
FILES = [b"PK\3\4", b"NRRD0004\ndata file: /etc/passwd\n\n", b"\x1f\x8b", b"ElementDataFile = /etc/passwd\n"]
BODIES = st.one_of(
    st.none(),
    st.builds(lambda value: {"json": value}, JSON),
    st.builds(lambda text: {"data": text}, st.binary(max_size=40)),
    st.builds(
        lambda content, name, params: {"files": {"label": (name, content)}, "data": {"params": params}},
        st.sampled_from(FILES) | st.binary(max_size=400),
        st.sampled_from(["label.nii.gz", "x.mha", "../x.nii"]) | st.text(min_size=1, max_size=6),
        st.builds(json.dumps, JSON) | WORDS,
    ),
)
HEADERS = st.dictionaries(
    st.sampled_from(["Origin", "Sec-Fetch-Site", "Content-Type", "Accept", "X-Forwarded-For"]),
    st.sampled_from(["null", "http://evil.example", "cross-site", "application/json", "multipart/form-data", "\x7f"]),
    max_size=2,
)


@pytest.fixture(scope="module")
def served(tmp_path_factory):
    """The address of a server and its store, with one study that cannot be read."""
    place = tmp_path_factory.mktemp("server")
    (place / "store" / "study").mkdir(parents=True)
    (place / "store" / "study" / "x_t1.nii.gz").write_bytes(np.zeros(99, np.uint8).tobytes())
    with server(place, place / "store", models="m3ae") as address:
        yield address, place / "store"
    assert "ERROR" not in (place / "server.log").read_text()


METHODS = st.sampled_from(["GET", "PUT", "POST", "DELETE", "PATCH", "HEAD"])
QUERIES = st.dictionaries(WORDS, WORDS, max_size=3)


@given(METHODS, PATHS, QUERIES, BODIES, HEADERS)
def test_requests(served, method, path, query, body, headers):
    url, store = served
    before = sorted(store.rglob("*"))

    def ask() -> requests.Response:
        answer = requests.request(method, url + path, params=query, headers=headers, timeout=15, **(body or {}))
        if answer.status_code in (*range(400, 500), 503):
            raise ValueError(answer.text if method == "HEAD" else answer.json()["detail"])
        assert answer.headers["x-content-type-options"] == "nosniff"
        return answer

    def is_right(answer: requests.Response) -> bool:
        return answer.ok and "root:" not in answer.text and sorted(store.rglob("*")) == before

    attempt(ask, is_right)
    assert requests.get(f"{url}/info/", timeout=15).ok

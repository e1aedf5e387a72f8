"""Studies that clients send: what leaves its folder, is too large or damaged is refused, and nothing stays."""

from __future__ import annotations

import asyncio
import io
import shutil
import struct
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
from dicom_studies import study, write_study
from fastapi import HTTPException
from pydantic import ValidationError
from starlette.requests import ClientDisconnect

from common.cohorts.registry import PHANTOM
from mmb.clinic.recognise.claims import read_headers
from mmb.clinic.report.pictures import thumbnail
from mmb.errors import StudyError
from mmb.server import upload_reading, upload_store
from mmb.server.limits import FILES_AT_ONCE
from mmb.server.options import SegmentOptions, options_for, series_numbers
from mmb.server.routes_page import _receive, _segment, read
from mmb.server.upload_reading import recognise_upload, require_sequences
from mmb.server.upload_store import Upload, Uploads, created, require_free_disk
from mmb.server.worker import Turns, Worker


def receive(upload: Upload, content: bytes, name: str) -> None:
    async def pieces():
        for start in range(0, len(content), 100):
            yield content[start : start + 100]

    asyncio.run(upload.receive(pieces(), name))


@pytest.fixture
def upload():
    one = Upload()
    yield one
    one.close()
    assert not one.folder.exists()


def packed(files: dict[str | zipfile.ZipInfo, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, held in files.items():
            archive.writestr(name, held)
    return content.getvalue()


OUTSIDE = [
    "../escaped", "/etc/escaped", "a/../../escaped", "..", "..\\escaped", "a/" * 20 + "x", "x" * 300, "a\nb", "a\0b",
    "",
]  # fmt: skip


@pytest.mark.parametrize("name", OUTSIDE)
def test_no_name_leads_out_of_the_folder(upload, name):
    with pytest.raises(ValueError, match="leads out of the study's folder"):
        receive(upload, b"x", name)
    assert list(upload.folder.rglob("*")) == [upload.study]


@pytest.mark.parametrize("name", ["Patient\u00a01", "Doe\u200e", "\u202eenod", "\uf022", "Ärztin"])
def test_names_of_macs_windows_and_french_are_names(upload, name):
    receive(upload, b"x", f"{name}/a")
    receive(upload, packed({f"{name}/x_t1.nii": b"x"}), "study.zip")
    recognise_upload(upload.study, PHANTOM)
    assert (upload.study / name / "a").read_bytes() == (upload.study / "study.zip" / name / "x_t1.nii").read_bytes()


@pytest.mark.parametrize("name", OUTSIDE[:6])
def test_nor_does_one_in_a_zip(upload, name):
    receive(upload, packed({name: b"x"}), "study.zip")
    with pytest.raises(StudyError, match="leads out of the study's folder") as refused:
        recognise_upload(upload.study, PHANTOM)
    assert refused.value.public.startswith(f'"{name}"')  # its own client is told which file it is
    assert not [path for path in upload.folder.rglob("*") if path.is_file() and path.name != "packed"]
    assert not (upload.folder.parent / "escaped").exists()


def test_a_link_in_a_zip_is_none(upload):
    link = zipfile.ZipInfo("x_t1.nii.gz")
    link.external_attr = 0o120777 << 16
    receive(upload, packed({link: b"/etc/passwd"}), "study.zip")
    recognise_upload(upload.study, PHANTOM)
    assert (upload.study / "study.zip" / "x_t1.nii.gz").read_bytes() == b"/etc/passwd"
    assert not [path for path in upload.folder.rglob("*") if path.is_symlink()]


def test_two_files_of_one_name(upload):
    receive(upload, b"x", "a")
    (upload.study / "study.zip").write_bytes(packed({"b": b"x", "b/c": b"x"}))
    with pytest.raises(StudyError, match="same name") as refused:
        recognise_upload(upload.study, PHANTOM)
    assert refused.value.public.startswith('"c"')
    for name in ("a", "a/b"):
        with pytest.raises(ValueError, match="same name"):
            receive(upload, b"x", name)


def test_what_is_sent_is_bounded(upload, monkeypatch):
    monkeypatch.setattr(upload_store, "UPLOAD_BYTES", 1000)
    receive(upload, b"x" * 600, "a")
    with pytest.raises(HTTPException, match="the limit for a study") as refused:
        receive(upload, b"x" * 600, "b")
    assert refused.value.status_code == 413
    assert sum(path.stat().st_size for path in upload.study.iterdir()) <= 1000
    monkeypatch.setattr(upload_store, "UPLOAD_FILES", 2)
    with pytest.raises(HTTPException, match="more than 2 files"):
        receive(upload, b"x", "c")


def understated(content: bytes) -> bytes:
    """Return a zip that states in both places that its file is of 10 bytes."""
    changed = bytearray(content)
    changed[22:26] = struct.pack("<L", 10)
    at = changed.index(b"PK\1\2")
    changed[at + 24 : at + 28] = struct.pack("<L", 10)
    return bytes(changed)


def test_what_a_zip_holds_is_bounded(upload, monkeypatch):
    monkeypatch.setattr(upload_reading, "UNPACKED_BYTES", 1 << 16)
    monkeypatch.setattr(upload_reading, "CHUNK", 1 << 10)
    bomb = packed({"x_t1.nii": bytes(1 << 24)})
    large = packed({"a": bytes(1 << 15), "b": bytes(1 << 16)})
    for number, content in enumerate([bomb, packed({"a.zip": bomb}), large]):
        shutil.rmtree(upload.study)
        receive(upload, content, "study.zip")
        with pytest.raises(ValueError, match=r"exceeds|unpack it") as refused:
            recognise_upload(upload.study, PHANTOM)
        assert ("exceeds" in str(refused.value)) == (number != 1)  # a zip in a zip is not unpacked
        assert sum(path.stat().st_size for path in upload.folder.rglob("*") if path.is_file()) < 1 << 18
    for content in (understated(bomb), bomb[:-30], bomb[:2000] + bytes(100) + bomb[2100:]):
        shutil.rmtree(upload.study)
        receive(upload, content, "study.zip")
        with pytest.raises(ValueError, match=r"damaged|exceeds"):
            recognise_upload(upload.study, PHANTOM)


def test_a_long_list_of_files_is_not_read(upload, monkeypatch):
    monkeypatch.setattr(upload_reading, "DIRECTORY_BYTES", 4096)
    monkeypatch.setattr(upload_reading, "CHUNK", 1024)
    receive(upload, packed({f"{number:099d}": b"" for number in range(100)}), "study.zip")
    with pytest.raises(ValueError, match="exceeds"):
        recognise_upload(upload.study, PHANTOM)


def test_studies_vanish_and_are_not_too_many(monkeypatch):
    monkeypatch.setattr(upload_store, "STUDIES", 2)
    held = Uploads()
    (name, first), (other, second) = held.new(), held.new()
    with pytest.raises(HTTPException, match="its limit"):
        held.new()
    first.used -= upload_store.KEPT_SECONDS + 1
    with second.in_use():
        second.used -= upload_store.KEPT_SECONDS + 1
        with pytest.raises(FileNotFoundError):
            held[name]
        assert (first.folder.exists(), held[other]) == (False, second)
        held.remove(other)
        assert second.folder.exists()  # until it is not used any more
    assert not second.folder.exists()
    _, third = held.new()
    held.close()
    assert not third.folder.exists()


def test_a_study_that_arrives_is_in_use_and_ends_when_it_is_removed(monkeypatch):
    monkeypatch.setattr(upload_store, "KEPT_SECONDS", -1)
    held = Uploads()
    name, upload = held.new()

    async def slow():
        yield b"x"
        held.expire()
        assert (upload.study / "a").exists()
        held.remove(name)
        yield b"y"

    with pytest.raises(FileNotFoundError, match="send it again"):
        asyncio.run(upload.receive(slow(), "a"))
    assert not upload.folder.exists()


def test_a_study_is_sent_a_few_files_at_a_time_and_half_of_the_places_are_the_pages(upload, monkeypatch):
    async def slow():
        await asyncio.sleep(0.1)
        yield b"x"

    async def more() -> list[object]:
        sent = (upload.receive(slow(), str(number)) for number in range(FILES_AT_ONCE + 2))
        return await asyncio.gather(*sent, return_exceptions=True)

    statuses = [getattr(answer, "status_code", 200) for answer in asyncio.run(more())]
    assert sorted(statuses) == [200] * FILES_AT_ONCE + [503] * 2
    monkeypatch.setattr(upload_store, "STUDIES", 4)
    held = Uploads()
    held.new(), held.new()
    held.new(in_one=True), held.new(in_one=True)
    for in_one in (True, False):
        with pytest.raises(HTTPException, match="its limit"):
            held.new(in_one)
    held.close()


def test_nothing_to_segment_is_said_before_the_queue():
    found = {"automatic": {"t1c": "6"}, "open": ["t1"]}
    for by_hand, modalities in (({}, ["t1c"]), ({}, ["t1"]), ({"t2": "3"}, ["t2"])):
        require_sequences(found, by_hand, modalities)
    for by_hand, modalities in (({}, ["t2", "flair"]), ({"t2": "none"}, ["t2"]), ({"t1c": "6"}, ["t2"])):
        with pytest.raises(StudyError, match="No sequence was recognised"):
            require_sequences(found, by_hand, modalities)
    with pytest.raises(ValidationError, match="6 is given for two modalities"):
        options_for(SegmentOptions, ("t1", "t1c")).model_validate({"series": {"t1": "6", "t1c": 6}})


def test_series_are_named_as_people_and_messages_do():
    for said in ("t1c=9, t2=3-10", {"t1c": "9", "t2": "3-10"}):
        assert series_numbers(said) == {"t1c": "9", "t2": "3-10"}
    assert series_numbers("") is None
    with pytest.raises(ValueError, match="given twice"):
        series_numbers("t1=6, t1=7")


def test_a_study_that_is_removed_while_it_is_read_leaves_nothing():
    held = Uploads()
    name, upload = held.new()

    def recognise(reader: Worker, folder: Path) -> dict:
        held.remove(name)
        with created(upload.study / "unpacked" / "x_t1.nii.gz"):
            return {}

    app = SimpleNamespace(uploads=held, reading=Turns(), recognise_upload=recognise)
    asyncio.run(read(app, name))
    assert not upload.folder.exists()


def test_all_studies_together_have_a_limit_and_leave_room_on_the_disk(monkeypatch):
    monkeypatch.setattr(upload_store, "HELD_BYTES", 1000)
    held = Uploads()
    (_, first), (_, second) = held.new(), held.new()
    receive(first, b"x" * 600, "a")
    receive(second, b"x" * 400, "a")
    with pytest.raises(HTTPException, match="exceed") as refused:
        receive(second, b"x", "b")
    assert refused.value.status_code == 503
    (first.study / "a").write_bytes(b"x" * 599)
    first.measure()  # as after a zip was unpacked
    receive(second, b"x", "c")
    monkeypatch.setattr(upload_store, "SPARE_BYTES", shutil.disk_usage(first.folder).total)
    with pytest.raises(OSError, match="No space left"):
        require_free_disk(first.folder, 1)
    (second.study / "study.zip").write_bytes(packed({"x_t1.nii": bytes(100)}))
    with pytest.raises(OSError, match="No space left"):
        recognise_upload(second.study, PHANTOM)
    held.close()


def test_room_is_asked_for_before_anything_is_read(monkeypatch):
    async def unread():
        pytest.fail("The upload was read.")
        yield b""

    monkeypatch.setattr(upload_store, "HELD_BYTES", 1000)
    held = Uploads()
    _, upload = held.new()
    with pytest.raises(HTTPException, match="exceed"):
        asyncio.run(upload.receive(unread(), "a", 1001))
    form = {"content-type": "multipart/form-data; boundary=x", "content-length": "501"}  # is on the disk twice
    with pytest.raises(HTTPException, match="exceed"):
        asyncio.run(_receive(SimpleNamespace(headers=form, form=lambda **_: pytest.fail("It was read.")), upload))
    held.close()


def test_a_file_that_ends_early_can_be_sent_again(upload):
    async def broken():
        yield b"half"
        raise ClientDisconnect

    with pytest.raises(ClientDisconnect):
        asyncio.run(upload.receive(broken(), "inner/x_t1.nii"))
    receive(upload, b"whole", "inner/x_t1.nii")
    assert (upload.study / "inner" / "x_t1.nii").read_bytes() == b"whole"


def test_a_study_whose_tab_is_closed_is_not_segmented():
    held = Uploads()
    name, upload = held.new()
    model = SimpleNamespace(segment_upload=lambda *_: pytest.fail("It was segmented."))

    async def closed_while_it_waits():
        none = {"send": None, "took": [], "worker": SimpleNamespace(close=lambda: None)}
        app = SimpleNamespace(uploads=held, model=lambda name: model, segmenting=Turns(), **none)
        async with app.segmenting._free:
            waiting = asyncio.create_task(_segment(app, "m3ae", upload, None, False, upload.require_wanted))
            await asyncio.sleep(0.1)
            held.remove(name)
            assert upload.folder.exists()
            await waiting  # it leaves at once, before its turn comes

    with pytest.raises(FileNotFoundError, match="send it again"):
        asyncio.run(closed_while_it_waits())
    assert not upload.folder.exists()


class TestRecognition:
    def test_series(self, upload, subject):
        write_study(upload.study / "inner", subject, study(("t1c", "t2")))
        told = recognise_upload(upload.study, PHANTOM)
        taken = {each["name"]: each["modality"] for each in told["candidates"]}
        assert (told["automatic"], taken["series 6"], taken["series 3"]) == ({"t1c": "6", "t2": "3"}, "t1c", "t2")
        assert told["sequences"] == {"t1": "T1", "t1c": "T1c", "t2": "T2", "flair": "FLAIR"}

    def test_each_series_is_shown_in_the_plane_of_most(self, upload, subject):
        scans = [replace(scan, plane="coronal") if scan.image == "t1" else scan for scan in study()]
        write_study(upload.study, subject, [replace(scan, tilt=(0, 0, 0), moved=None) for scan in scans])
        shown = recognise_upload(upload.study, PHANTOM)["candidates"]
        series = [each for each in read_headers(upload.study, PHANTOM).candidates if not each.problem]
        assert [each.across for each in series].count(2) < len(series)
        pictures = {each.name: thumbnail(each.read()[0], 2) for each in series}
        assert {each["name"]: each["picture"] for each in shown if each["usable"]} == pictures

    def test_a_sequence_without_a_usable_series_is_left_out_and_it_is_said_why(self, upload, subject):
        write_study(upload.study, subject, study(("t1", "t1c", "t2")))
        told = recognise_upload(upload.study, PHANTOM)
        for path in (upload.study / f"{int(told['automatic'].pop('t1')):03d}").glob("*05*"):
            path.unlink()
        damaged = recognise_upload(upload.study, PHANTOM)
        assert [*damaged["refused"]] == ["t1"]
        assert damaged["automatic"] == told["automatic"]
        assert not told["refused"]

    def test_files_are_named_as_a_person_says(self, upload, subject):
        for name, held in (("Doe_t2", "t1ce"), ("MRI brain post contrast", "t2"), ("serie_7", "flair")):
            shutil.copy(subject / f"Doe_{held}.nii.gz", upload.study / f"{name}.nii.gz")
        assert recognise_upload(upload.study, PHANTOM)["automatic"] == {"t2": "Doe_t2.nii.gz"}
        found = read_headers(upload.study, PHANTOM, by_hand={"t1c": "Doe_t2.nii.gz"}).candidates
        assert {each.key for each in found if each.says.modality == "t1c"} == {"Doe_t2.nii.gz"}
        with pytest.raises(ValueError, match="there is no such file; expected one of"):
            read_headers(upload.study, PHANTOM, by_hand={"t1": "../../etc/passwd"})

    def test_what_is_no_study(self, upload):
        for content in (b"", b"text", packed({"a.txt": b"text"})):
            receive(upload, content, f"Doe {len(content)}")
        with pytest.raises(StudyError) as refused:
            recognise_upload(upload.study, PHANTOM)
        assert refused.value.public.startswith("The study: none of its 3 files is a DICOM file")
        assert not [text for text in ("Doe", str(upload.folder)) if text in refused.value.public]

    def test_a_damaged_file_is_named_to_who_has_sent_it(self, upload):
        receive(upload, b"\0" * 128 + b"DICM" + b"\xff" * 100, "Doe 7.dcm")
        with pytest.raises(StudyError) as refused:
            recognise_upload(upload.study, PHANTOM)
        assert "number 1 in alphabetical order" in refused.value.text
        assert "alphabetical" not in refused.value.public
        assert refused.value.public.endswith('The file: "Doe 7.dcm".')

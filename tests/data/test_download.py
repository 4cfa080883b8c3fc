"""Downloads from a server that drops, truncates, ignores Range, is busy, or serves other bytes."""

import hashlib
import http.server
import resource
import threading
from collections.abc import Callable
from email.utils import formatdate

import pytest

from rootstock.data import download as module
from rootstock.data.download import DownloadError, download

BODY = bytes(range(256)) * 2000
NUM_BYTES = len(BODY)
MD5 = hashlib.md5(BODY).hexdigest()
HALF = len(BODY) // 2


class Server:
    """Answers with `body`; each entry of `faults` spoils one request, in order."""

    def __init__(self):
        self.body, self.etag, self.last_modified = BODY, '"v1"', None
        self.faults: list[Callable | None] = []
        self.ranges: list[str | None] = []  # the Range header of each request
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                outer.ranges.append(self.headers.get("Range"))
                self.close_connection = True
                fault = outer.faults.pop(0) if outer.faults else None
                (fault or outer.answer)(self)

            def log_message(self, *arguments):
                pass

        self._http = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._thread = threading.Thread(target=self._http.serve_forever, kwargs={"poll_interval": 0.01})
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._http.server_port}/file.tgz"

    def close(self):
        self._http.shutdown()
        self._thread.join()
        self._http.server_close()

    def answer(self, handler, *, stop=None, ignore_range=False, claim=None, length=True, body=None):
        """Send the body from the asked byte; `stop` bytes of it, then the connection is dropped."""
        body = self.body if body is None else body
        asked = handler.headers.get("Range")
        same = handler.headers.get("If-Range") in (self.etag, self.last_modified)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and same and not ignore_range else 0
        if start >= len(body):
            return status(416)(handler)
        handler.send_response(206 if start else 200)
        if start:
            handler.send_header("Content-Range", claim or f"bytes {start}-{len(body) - 1}/{len(body)}")
        if self.etag:
            handler.send_header("ETag", self.etag)
        if self.last_modified:
            handler.send_header("Last-Modified", self.last_modified)
        if length:
            handler.send_header("Content-Length", str(len(body) - start))
        handler.end_headers()
        handler.wfile.write(body[start:] if stop is None else body[start : start + stop])
        return None

    def spoiled(self, **how):
        return lambda handler: self.answer(handler, **how)


def status(code):
    def answer(handler):
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()

    return answer


@pytest.fixture(autouse=True)
def _direct(monkeypatch):
    monkeypatch.setenv("no_proxy", "*")  # this machine may reach the net through a proxy


@pytest.fixture
def server():
    server = Server()
    yield server
    server.close()


@pytest.fixture
def fetch(server, tmp_path):
    """Downloads without waiting; `fetch.waits` holds what it would have waited."""

    def fetch(*, md5=MD5, num_bytes=NUM_BYTES):
        return download(
            server.url,
            tmp_path / "in" / "file.tgz",
            md5=md5,
            num_bytes=num_bytes,
            progress=False,
            sleep=fetch.waits.append,
        )

    fetch.waits = []
    return fetch


def left(tmp_path):
    return sorted(path.name for path in (tmp_path / "in").iterdir())


def test_a_file_arrives_whole_and_alone(server, fetch, tmp_path):
    assert fetch() == tmp_path / "in" / "file.tgz"
    assert fetch().read_bytes() == BODY
    assert left(tmp_path) == ["file.tgz"]
    assert fetch.waits == []


@pytest.mark.parametrize("published", [{}, {"md5": None}, {"num_bytes": None}, {"md5": None, "num_bytes": None}])
def test_a_drop_is_resumed_where_it_broke_off(server, fetch, tmp_path, published):
    server.faults = [server.spoiled(stop=HALF), server.spoiled(stop=1000)]
    assert fetch(**published).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", f"bytes={HALF + 1000}-"]
    assert left(tmp_path) == ["file.tgz"]


def test_the_next_call_resumes_too(server, fetch, tmp_path):
    server.faults = [server.spoiled(stop=HALF)] + [status(503)] * module.MAX_TRIES
    with pytest.raises(DownloadError, match=f"503 Service Unavailable; gave up after .*; {HALF} bytes are kept in"):
        fetch()
    assert left(tmp_path) == ["file.tgz.part", "file.tgz.part.json"]
    server.ranges.clear()
    server.faults.clear()
    assert fetch().read_bytes() == BODY
    assert server.ranges == [f"bytes={HALF}-"]


def test_a_server_that_ignores_range_is_not_appended(server, fetch):
    server.faults = [server.spoiled(stop=HALF), server.spoiled(ignore_range=True)]
    assert fetch(md5=None, num_bytes=None).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_a_file_that_changed_meanwhile_is_not_mixed_with_the_old_one(server, fetch):
    def change(handler):
        server.body, server.etag = BODY[::-1], '"v2"'
        server.answer(handler)

    server.faults = [server.spoiled(stop=HALF), change]
    assert fetch(md5=None).read_bytes() == BODY[::-1]


def test_a_date_is_a_validator_too(server, fetch):
    server.etag, server.last_modified = 'W/"weak"', formatdate(1_000_000_000, usegmt=True)
    server.faults = [server.spoiled(stop=HALF)]
    assert fetch().read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-"]


def test_without_a_validator_a_drop_starts_over(server, fetch):
    server.etag = None
    server.faults = [server.spoiled(stop=HALF)]
    assert fetch().read_bytes() == BODY
    assert server.ranges == [None, None]


@pytest.mark.parametrize("note", [None, "{", '{"url": "http://other/", "validator": "v"}', "[]"])
def test_a_part_of_unknown_origin_is_not_trusted(server, fetch, tmp_path, note):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file.tgz.part").write_bytes(b"x" * 100)
    if note is not None:
        (tmp_path / "in" / "file.tgz.part.json").write_text(note)
    assert fetch(md5=None, num_bytes=None).read_bytes() == BODY
    assert server.ranges == [None]


def test_a_wrong_content_range_starts_over(server, fetch):
    server.faults = [server.spoiled(stop=HALF), server.spoiled(claim=f"bytes 0-{len(BODY) - 1}/{len(BODY)}")]
    assert fetch().read_bytes() == BODY
    assert server.ranges == [None, f"bytes={HALF}-", None]


def test_a_part_longer_than_the_file_starts_over(server, fetch, tmp_path):
    server.faults = [server.spoiled(body=BODY * 2, stop=len(BODY) + 5)]
    assert fetch(num_bytes=None).read_bytes() == BODY
    assert server.ranges == [None, f"bytes={len(BODY) + 5}-", None]


def test_a_part_that_is_whole_needs_no_request(server, fetch, tmp_path):
    server.faults = [server.spoiled(body=BODY + b"x", stop=len(BODY))] + [status(503)] * module.MAX_TRIES
    assert fetch().read_bytes() == BODY
    assert server.ranges == [None]


def test_a_busy_server_is_asked_again_after_longer_and_longer_waits(server, fetch):
    server.faults = [status(503), status(429), status(500), status(502)]
    assert fetch().read_bytes() == BODY
    assert fetch.waits == [1.0, 2.0, 4.0, 8.0]


def test_it_gives_up_naming_url_and_reason(server, fetch, tmp_path):
    server.faults = [status(503)] * 99
    with pytest.raises(DownloadError) as caught:
        fetch()
    assert str(caught.value) == (
        f"{server.url}: the server answered 503 Service Unavailable; gave up after 5 tries that got no further; "
        f"0 bytes are kept in {tmp_path}/in/file.tgz.part"
    )
    assert len(server.ranges) == 5


def test_progress_renews_patience_but_the_same_bytes_again_do_not(server, fetch):
    step = len(BODY) // 20 + 1
    server.faults = [server.spoiled(stop=step)] * 19
    assert fetch().read_bytes() == BODY
    assert set(fetch.waits) == {1.0}

    server.ranges.clear()
    server.etag = None  # every try starts over and breaks at the same byte
    server.faults = [server.spoiled(stop=HALF)] * 99
    with pytest.raises(DownloadError, match=f"the body ended after {HALF} of {len(BODY)} bytes; gave up after 5 tries"):
        fetch()
    assert len(server.ranges) == 5


@pytest.mark.parametrize("code", [404, 403, 410])
def test_a_final_answer_is_not_repeated(server, fetch, tmp_path, code):
    server.faults = [status(code)] * 9
    with pytest.raises(DownloadError, match=rf"file\.tgz: the server answered {code} "):
        fetch()
    assert len(server.ranges) == 1
    assert left(tmp_path) == []


def test_a_short_body_without_a_length_is_found_by_the_published_size(server, fetch):
    server.faults = [server.spoiled(stop=HALF, length=False)]
    assert fetch(md5=None).read_bytes() == BODY
    assert len(server.ranges) == 2


def test_wrong_bytes_are_fetched_once_more_then_refused(server, fetch, tmp_path):
    wrong = BODY[::-1]
    server.faults = [server.spoiled(body=wrong)]
    assert fetch().read_bytes() == BODY
    (tmp_path / "in" / "file.tgz").unlink()

    server.ranges.clear()
    server.body = wrong
    with pytest.raises(DownloadError) as caught:
        fetch()
    assert str(caught.value) == f"{server.url}: found md5 {hashlib.md5(wrong).hexdigest()}, wanted {MD5}"
    assert server.ranges == [None, None]
    assert left(tmp_path) == []


def test_another_size_than_published_is_refused(server, fetch):
    server.body = BODY[:-1]
    with pytest.raises(DownloadError, match=f"found {len(BODY) - 1} bytes, wanted {len(BODY)}"):
        fetch(md5=None)


def test_a_silent_server_times_out_and_is_asked_again(server, fetch, monkeypatch):
    monkeypatch.setattr(module, "TIMEOUT_SECONDS", 0.2)
    release = threading.Event()
    server.faults = [lambda handler: release.wait(5)]
    try:
        assert fetch().read_bytes() == BODY
    finally:
        release.set()


def test_no_server_at_all(tmp_path):
    waits = []
    with pytest.raises(
        DownloadError, match=r"^http://127\.0\.0\.1:9/x: the connection broke: .*refused.*gave up after 5"
    ):
        download("http://127.0.0.1:9/x", tmp_path / "x", md5=None, num_bytes=None, progress=False, sleep=waits.append)
    assert waits == [1.0, 2.0, 4.0, 8.0]


def test_a_full_disk_names_the_file_and_the_next_call_goes_on(server, fetch, tmp_path):
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, hard))  # the kernel refuses writes as a full disk does
    try:
        with pytest.raises(OSError, match=r"file\.tgz\.part"):
            fetch()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    kept = (tmp_path / "in" / "file.tgz.part").stat().st_size
    assert 0 < kept <= 200_000
    assert fetch().read_bytes() == BODY
    assert server.ranges[-1] == f"bytes={kept}-"


def test_ctrl_c_keeps_what_came(server, fetch, tmp_path, monkeypatch):
    read, calls = module._read, []

    def interrupted(response):
        calls.append(1)
        if len(calls) == 3:
            raise KeyboardInterrupt
        return read(response)

    monkeypatch.setattr(module, "_read", interrupted)
    with pytest.raises(KeyboardInterrupt):
        fetch()
    monkeypatch.undo()
    assert left(tmp_path) == ["file.tgz.part", "file.tgz.part.json"]
    assert fetch().read_bytes() == BODY
    assert server.ranges[-1].startswith("bytes=")

"""The server over real HTTP: right answers under load, what is refused, and processes that end."""

import base64
import hashlib
import json
import os
import re
import shlex
import shutil
import signal
import socket
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

import diffmiczoo
from diffmiczoo.cli import main
from diffmiczoo.hub.companions import weights_digest

pytest.importorskip("fastapi", reason="the extra serve is not installed")
pytest.importorskip("uvicorn", reason="the extra serve is not installed")
pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="signals and /proc are those of Linux")


@pytest.fixture(scope="module")
def expected(weights: str, contents: list[bytes]) -> dict[str, list[float]]:
    """What `predict` says of each picture, by its sha256."""
    model = diffmiczoo.create_model(weights, pretrained=True)
    probs = model.predict(contents[:8], batch_size=8).probs.tolist()
    return {hashlib.sha256(content).hexdigest(): row for content, row in zip(contents[:8], probs, strict=True)}


def form(*named: tuple[str, bytes]) -> dict:
    return {"files": [("files", pair) for pair in named]}


def test_answers_are_those_of_predict_under_load(server, contents, expected) -> None:
    """Eight clients send 500 requests of good and bad pictures; every answer is of the right picture, to the bit."""
    bad = [b"", b"no picture", contents[0][:60], b"%PDF-1.7"]

    def ask(client_number: int) -> int:
        rng, answered = np.random.default_rng(client_number), 0
        with server.client() as client:
            for _ in range(63 if client_number < 4 else 62):
                sent = [contents[k] for k in rng.integers(0, 8, 1 + (rng.random() < 0.2))]
                if rng.random() < 0.3:
                    sent.insert(int(rng.integers(0, len(sent) + 1)), bad[rng.integers(0, len(bad))])
                if rng.random() < 0.5:
                    response = client.post("/predict", **form(*((f"{k}.png", each) for k, each in enumerate(sent))))
                else:
                    images = [{"name": f"{k}.png", "base64": base64.b64encode(e).decode()} for k, e in enumerate(sent)]
                    response = client.post("/predict", json={"images": images})
                broken = [each in bad for each in sent]
                assert response.status_code == (207 if any(broken) else 200)
                for k, (content, image) in enumerate(zip(sent, response.json()["images"], strict=True)):
                    assert image["name"] == f"{k}.png"
                    if broken[k]:
                        assert image["status"] == 422 and image["error"].startswith(f"{k}.png: ")
                        assert image["label"] is None and image["probs"] is None
                    else:
                        digest = hashlib.sha256(content).hexdigest()
                        assert image["sha256"] == digest and list(image["probs"].values()) == expected[digest]
                answered += 1
        return answered

    with ThreadPoolExecutor(8) as pool:
        assert sum(pool.map(ask, range(8))) == 500


def test_every_answer_names_the_weights(server, weights, contents) -> None:
    digest = weights_digest(diffmiczoo.create_model(weights, pretrained=True))
    with server.client() as client:
        answers = [client.get("/info"), client.get("/health"), client.post("/predict", **form(("a.png", contents[0])))]
        answers.append(client.post("/predict", json={"images": []}))
    for answer in answers:
        found = answer.json()
        assert found["weights_sha256"] == digest and found["version"] == diffmiczoo.__version__ and found["model"]
    assert answers[0].json()["labels"] == ["class_0", "class_1", "class_2"]
    assert answers[2].json()["notice"] == "Research only. Not for clinical use."


def test_dicom_is_read(server, make_dicom, tmp_path) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (80, 90), dtype=np.uint8)
    path = make_dicom(tmp_path / "scan.dcm", pixels)
    with server.client() as client:
        found = client.post("/predict", **form(("scan.dcm", path.read_bytes()))).json()["images"][0]
    assert (found["status"], found["height"], found["width"]) == (200, 80, 90)


@pytest.mark.parametrize(
    ("body", "status", "message"),
    [
        ({"json": {"images": []}}, 400, "has no picture"),
        ({"json": {"picture": 3}}, 400, 'no list "images"'),
        ({"json": [1]}, 400, 'no list "images"'),
        ({"content": b"{", "headers": {"content-type": "application/json"}}, 400, "is no JSON"),
        ({"content": b"x"}, 400, "of no named kind"),
        ({"content": b"x", "headers": {"content-type": "image/png"}}, 400, "is image/png; expected files"),
        ({"content": b"x", "headers": {"content-type": "multipart/form-data"}}, 400, "the form cannot be read"),
        ({"data": {"files": "/etc/passwd"}}, 400, "of no named kind|expected files as"),
        ({"json": {"images": ["aaaa"] * 6}}, 413, "6 pictures; this server takes 5"),
        (form(*(("a.png", b"x"),) * 6), 413, "6 pictures; this server takes 5"),
        (form(*(("a.png", b"x"),) * 9), 413, "more pictures than the 5"),
        (form(("a.png", bytes(2_100_000))), 413, "more than 2,000,000 bytes"),
    ],
)
def test_what_is_no_request_is_refused_in_a_sentence(server, body: dict, status: int, message: str) -> None:
    with server.client() as client:
        response = client.post("/predict", **body)
    assert response.status_code == status
    assert re.search(message, response.json()["error"])


def test_clients_cannot_name_files(server) -> None:
    named = [{"name": "a", "path": "/etc/passwd"}, "/etc/passwd", "https://example.org/a.png", {"base64": "file:///a"}]
    with server.client() as client:
        response = client.post("/predict", json={"images": named})
    assert response.status_code == 422
    for image in response.json()["images"]:
        assert "paths and addresses are not opened" in image["error"]


def test_its_own_description_needs_no_other_host(server) -> None:
    with server.client() as client:
        page, schema = client.get("/docs"), client.get("/openapi.json").json()
        assert client.get("/").headers["location"] == "/docs"
    assert "script" not in page.text and "http://" not in page.text and "https://" not in page.text
    assert "default-src 'self'" in page.headers["content-security-policy"]
    assert "POST /predict" in page.text
    assert set(schema["paths"]) == {"/health", "/info", "/predict"}
    content = schema["paths"]["/predict"]["post"]["requestBody"]["content"]
    assert set(content) == {"multipart/form-data", "application/json"}
    assert "207" in schema["paths"]["/predict"]["post"]["responses"]


def test_the_lines_of_the_documentation_ask_it(server, contents, make_dicom, tmp_path) -> None:
    """docs/deployment.md: the three lines of curl, and the options of the service's unit."""
    text = (Path(__file__).resolve().parents[2] / "docs" / "deployment.md").read_text("utf-8")
    start = shlex.split(re.search(r"^ExecStart=\S+/diffmiczoo serve (.+)$", text, re.M)[1])
    main.commands["serve"].make_context("serve", start)
    if shutil.which("curl") is None:
        pytest.skip("no curl here")
    (tmp_path / "scan.png").write_bytes(contents[0])
    make_dicom(tmp_path / "scan.dcm", np.zeros((70, 80), np.uint8))
    found = []
    for line in re.findall(r"^curl .*http://127.0.0.1:8000.*$", text, re.M):
        words = shlex.split(line.replace("http://127.0.0.1:8000", server.address))
        found.append(json.loads(subprocess.run([*words, "--silent"], cwd=tmp_path, capture_output=True).stdout))
    predicted, info, health = found
    assert [image["status"] for image in predicted["images"]] == [200, 200]
    assert info["labels"] and health["status"] == "ok"


def in_background(function) -> tuple[threading.Thread, list]:
    found: list = []
    thread = threading.Thread(target=lambda: found.append(function()))
    thread.start()
    return thread, found


def test_a_worker_that_is_killed_is_said_and_started_again(server, contents, expected) -> None:
    worker = server.worker()
    os.kill(worker, signal.SIGSTOP)
    with server.client() as client:
        thread, found = in_background(lambda: client.post("/predict", **form(("a.png", contents[0]))))
        time.sleep(0.3)  # until the picture is in its hands
        os.kill(worker, signal.SIGKILL)
        thread.join(20)
    assert found[0].status_code == 503
    assert "was ended by signal 9 (SIGKILL); a new one starts" in found[0].json()["error"]
    server.until_healthy()
    with server.client() as client:
        image = client.post("/predict", **form(("a.png", contents[0]))).json()["images"][0]
    assert list(image["probs"].values()) == expected[image["sha256"]]


def test_a_port_in_use_is_one_sentence(weights) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = CliRunner().invoke(main, ["serve", weights, "--port", str(port)])
    assert result.exit_code == 2
    advice = "take another with --port, or 0 for any"
    assert result.stderr == f"Error: port {port} of 127.0.0.1 is in use by another program; {advice}\n"


def test_short_keys_and_unknown_hosts_are_refused(weights) -> None:
    result = CliRunner().invoke(main, ["serve", weights, "--api-key", "1234"])
    assert result.exit_code == 2 and "has 4 characters; give at least 8" in result.stderr
    result = CliRunner().invoke(main, ["serve", weights, "--host", "no.such.host.invalid"])
    assert result.exit_code == 2 and "--host no.such.host.invalid is no address that is known" in result.stderr


def test_methods_and_places_that_programs_try_by_themselves(server) -> None:
    with server.client() as client:
        for path in ("/health", "/info", "/docs"):
            assert client.head(path).status_code == 200 and not client.head(path).content
        assert client.get("/favicon.ico").status_code == 204
        for method, path, status in [("GET", "/nowhere", 404), ("OPTIONS", "/predict", 405), ("GET", "/predict", 405)]:
            refused = client.request(method, path)
            assert refused.status_code == status and refused.json()["error"] and refused.json()["weights_sha256"]
        assert client.request("PUT", "/predict").headers["allow"] == "POST"


def test_any_name_is_answered(server, contents) -> None:
    names = ["L\u00e4sion 1 \u4e2d.png", "../../etc/passwd", "a\0b", "\ud800.png", ""]  # the fourth is half a character
    images = [{"name": name, "base64": base64.b64encode(contents[0]).decode()} for name in names]
    with server.client() as client:
        content, headers = json.dumps({"images": images}), {"content-type": "application/json"}
        response = client.post("/predict", content=content, headers=headers)
    assert response.status_code == 200
    assert [image["name"] for image in response.json()["images"]] == [*names[:3], "?.png", "images[4]"]


def test_spread_is_that_of_the_prediction(server, weights, contents) -> None:
    known = diffmiczoo.create_model(weights, pretrained=True).predict([contents[0]])
    with server.client() as client:
        (answer,) = client.post("/predict", **form(("a.png", contents[0]))).json()["images"]
    spread = None if known.spread is None else pytest.approx(known.spread[0].tolist(), abs=1e-6)
    assert (None if answer["spread"] is None else list(answer["spread"].values())) == spread


def test_a_client_that_leaves_while_it_sends_takes_nothing_down(server) -> None:
    host, port = server.address.removeprefix("http://").split(":")
    with socket.create_connection((host, int(port))) as connection:
        head = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{"
        connection.sendall(head.encode())
        time.sleep(0.2)
    server.until_healthy()  # that no traceback is left is seen where the server ends


def test_requests_are_answered_before_it_ends(server, contents, expected) -> None:
    """The last one: it ends the server."""
    worker = server.worker()
    os.kill(worker, signal.SIGSTOP)
    with server.client() as client:
        sent = form(*((f"{k}.png", content) for k, content in enumerate(contents[:3])))
        thread, found = in_background(lambda: client.post("/predict", **sent))
        time.sleep(0.3)
        server.process.send_signal(signal.SIGTERM)
        os.kill(worker, signal.SIGTERM)  # as service managers do, to all processes
        time.sleep(0.3)
        assert server.process.poll() is None and not found
        os.kill(worker, signal.SIGCONT)
        thread.join(20)
    assert found[0].status_code == 200
    for image in found[0].json()["images"]:
        assert list(image["probs"].values()) == expected[image["sha256"]]
    assert server.process.wait(20) == -signal.SIGTERM
    assert not os.path.exists(f"/proc/{worker}")
    assert "ClientDisconnect" not in server.process.stdout.read()

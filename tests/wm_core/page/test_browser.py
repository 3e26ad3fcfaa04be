"""The page in a real browser: Chromium without a window, where there is one."""

from __future__ import annotations

import base64
import io
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from wm_core.link.trainer.tokens import add_token

pytestmark = pytest.mark.slow  # apt-get install chromium; pytest -m slow tests/wm_core/page
ROOT = Path(__file__).parents[3]


def jpeg(level):
    file = io.BytesIO()
    Image.fromarray(np.full((8, 8, 3), level, np.uint8)).save(file, "JPEG")
    return base64.b64encode(file.getvalue()).decode()


def robot(age_s=0.1, **said):
    pictures = {"image": {"t_ns": 1, "jpeg": jpeg(said.pop("level", 100))}}
    report = {"t_ns": 1_000_000_000, "mode": "acts", "cameras": pictures, **said}
    return {"age_s": age_s, "report": report}


def test_it_loads_and_updates_without_anything_from_elsewhere(page, service, browser):
    service.robots = {"kitchen": robot(policy=1, action=[0.5], action_names=["forward"])}
    server = page(trainer=service.url)
    browser.open(server.url)
    browser.wait("document.body.innerText.includes('version 1')")
    before = browser.wait("document.querySelector('#robot-0-camera-0')?.src")
    browser.wait("document.querySelector('#robot-0-camera-0').naturalWidth === 8")
    service.robots = {"kitchen": robot(policy=2, level=200)}
    browser.wait("document.body.innerText.includes('version 2')")
    assert browser.run("document.querySelector('#robot-0-camera-0').src") != before
    origin = server.url.removesuffix("/ui/")
    assert {url for url in browser.requests if not url.startswith(origin)} == set()
    assert browser.complaints == []


def test_no_script_runs_that_a_robot_smuggles_in(page, service, browser):
    evil = "<img src=x onerror=\"document.title='taken'\"><script>document.title='taken'</script>"
    service.robots = {evil: robot(mode=evil, counters={evil: 1.0})}
    browser.open(page(trainer=service.url).url)
    browser.wait("document.body.innerText.includes('<img src=x')")
    handler = "<img src=x onerror=\"document.title='taken'\">"
    browser.run(f"document.body.insertAdjacentHTML('beforeend', `{handler}`)")
    browser.wait("document.body.dataset.news > 3")
    assert browser.run("document.title") == "wm_ros"
    assert browser.complaints  # the browser refused the handler that the test put there


def report(what, begin_s):
    """Say how fast it was, for who reads; how fast it has to be is in ``test_bounds``."""
    sys.stdout.write(f"{what} showed after {time.monotonic() - begin_s:.2f} s\n")


def test_a_lost_robot_and_a_lost_service_show_and_come_back(page, service, browser):
    service.robots = {"kitchen": robot()}
    browser.open(page(trainer=service.url).url)
    browser.wait("document.querySelector('#links').innerText.includes('1 robot')")
    service.robots = {"kitchen": robot(age_s=1.7)}
    begin_s = time.monotonic()
    browser.wait("document.querySelector('#links').innerText.includes('robot lost: kitchen')")
    report("a robot that is heard no more", begin_s)
    assert "Not heard for" in browser.text("#robots")
    service.close()
    begin_s = time.monotonic()
    browser.wait("document.querySelector('#links').innerText.includes('service lost')")
    report("a lost service", begin_s)
    browser.wait("document.querySelector('#robots').innerText.includes('does not answer')")
    service.robots = {"kitchen": robot()}
    service.open()
    browser.wait("document.querySelector('#links').innerText.includes('1 robot')")


def start(root, port):
    command = [sys.executable, "-m", "wm_core.cli", "ui", "--root", str(root), "--port", str(port)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    return process, process.stdout.readline()


def test_a_restart_of_the_page_is_survived(tmp_path, browser):
    process, line = start(tmp_path, 0)
    try:
        url = line.split()[1]
        browser.open(url)
        browser.wait("document.body.dataset.news > 0")
        process.terminate()
        assert process.wait(60) == 0
        begin_s = time.monotonic()
        browser.wait("!document.querySelector('#silence').hidden")
        report("a lost page", begin_s)
        assert "goes on by itself" in browser.text("#silence")
        process.communicate(timeout=60)
        process, _ = start(tmp_path, int(url.split(":")[2].split("/")[0]))
        browser.wait("document.querySelector('#silence').hidden")
    finally:
        process.kill()
        process.communicate(timeout=60)


def test_without_a_token_there_is_only_the_form_for_one(page, tmp_path, browser):
    token = add_token(tmp_path / "tokens", "anna", may_look=True)
    url = page(tokens=tmp_path / "tokens").url
    browser.open(url)
    browser.wait("!!document.querySelector('input[name=token]')")
    assert "Is it better" not in browser.text()
    browser.run("document.querySelector('input').value = 'wrong'")
    browser.run("document.querySelector('button').click()")
    browser.wait("document.body.innerText.includes('not in the tokens file')")
    browser.run(f"document.querySelector('input').value = '{token}'")
    browser.run("document.querySelector('button').click()")
    browser.wait("document.body.dataset.news > 0")
    assert browser.run("document.cookie") == ""  # no script sees it
    (tmp_path / "tokens").write_text("")  # taken away: the form comes back
    browser.wait("!!document.querySelector('input[name=token]')")


@pytest.mark.parametrize(("width", "height"), [(1440, 900), (390, 844)])
def test_nothing_hangs_over_the_edge_of_the_screen(page, service, browser, width, height):
    service.robots = {
        f"robot_{i}": robot(action=[0.1] * 7, mode_text="word " * 60) for i in range(3)
    }
    browser.size(width, height)
    browser.open(page(trainer=service.url).url)
    browser.wait("document.body.dataset.news > 1")
    assert browser.run("document.documentElement.scrollWidth") <= width

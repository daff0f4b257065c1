"""The report in a real browser: drawn, without a complaint and without the network."""

import os
import re
import shutil
import subprocess

import numpy as np
import pytest
from PIL import Image
from report_folders import make_run

from mq_jax.report import write_report

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "chrome"))), None)
FLAGS = (
    *("--headless", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--enable-logging=stderr", "--virtual-time-budget=20000", "--window-size=1200,900"),
    # Any request would end in a line of the console.
    "--host-resolver-rules=MAP * ~NOTFOUND",
)
SCHEMES = {"dark": 0, "light": 1}

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(BROWSER is None, reason="needs Chromium on the path"),
]


def browse(page, tmp_path, *flags):
    """Opens a page; returns the standard output and the lines of the console."""
    sandbox = ["--no-sandbox"] if os.geteuid() == 0 else []
    profile = tmp_path / f"profile-{len(list(tmp_path.iterdir()))}"
    done = subprocess.run(
        [BROWSER, *FLAGS, *sandbox, f"--user-data-dir={profile}", *flags, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@pytest.fixture(params=[1, 2], ids=["one run", "two runs"])
def page(request, tmp_path):
    names = ["first", "<second>"][: request.param]
    write_report([make_run(tmp_path / name) for name in names], tmp_path / "page.html")
    return tmp_path / "page.html"


def test_every_plot_is_drawn_without_a_complaint(page, tmp_path):
    html, console = browse(page, tmp_path, "--dump-dom")
    assert console == []
    assert 'data-drawn="yes"' in html
    plots = page.read_text().count("data-plot=")
    assert plots > 5 and html.count('class="plot-container plotly"') == plots
    # Lines and points have been given colours of the theme.
    assert len(re.findall(r'class="js-line"[^>]*stroke: rgb', html)) >= plots - 2


def test_a_complaint_would_be_seen(page, tmp_path):
    broken = tmp_path / "broken.html"
    text = page.read_text()
    for addition in ("<script>nothing.there()</script>", '<img src="https://example.org/a.png">'):
        broken.write_text(text.replace("</main>", f"{addition}</main>"))
        assert browse(broken, tmp_path, "--dump-dom")[1]


def test_it_is_light_or_dark_as_the_reader_prefers_until_the_button_is_pressed(page, tmp_path):
    pressed = tmp_path / "pressed.html"
    click = '<script>document.getElementById("theme").click()</script></body>'
    pressed.write_text(page.read_text().replace("</body>", click))
    seen = {}
    for scheme, number in SCHEMES.items():
        for opened in (page, pressed):
            path = tmp_path / f"{scheme}-{opened.stem}.png"
            flags = f"--screenshot={path}", f"--blink-settings=preferredColorScheme={number}"
            assert browse(opened, tmp_path, *flags)[1] == []
            pixels = np.asarray(Image.open(path).convert("RGB"))
            assert pixels.shape == (900, 1200, 3) and len(np.unique(pixels)) > 50
            seen[scheme, opened.stem] = pixels[2, 2].tolist()
    dark, light = [0x14, 0x16, 0x1A], [0xFB, 0xFA, 0xF7]
    assert seen[("dark", "page")] == seen[("light", "pressed")] == dark
    assert seen[("light", "page")] == seen[("dark", "pressed")] == light

"""The report's page in a real browser, from disk: the viewer by mouse and by keyboard, tables, commands, and no request."""

from __future__ import annotations

import copy
import functools
import json
import shutil
import struct
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import report_files
from numpy.typing import NDArray

from nvc.codec.report import page, views

webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
from selenium.webdriver.chrome.service import Service  # noqa: E402
from selenium.webdriver.common.action_chains import ActionChains  # noqa: E402
from selenium.webdriver.common.by import By  # noqa: E402
from selenium.webdriver.common.keys import Keys  # noqa: E402
from selenium.webdriver.support.ui import Select, WebDriverWait  # noqa: E402

BROWSER, DRIVER = shutil.which("chromium"), shutil.which("chromedriver")
if not (BROWSER and DRIVER):
    pytest.skip("chromium and chromedriver are not on PATH", allow_module_level=True)

# Without a sandbox, so that it starts as root; the rest keeps the browser itself from the network.
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--force-device-scale-factor=1"),
)
RESULTS = report_files.results()
RUNS = {run["id"]: run for run in RESULTS["runs"]}
SVG = '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 4 3"><title>t</title><path d="M0 0H4V3z" style="fill: #eee"/></svg>'
# What a tool for the blind may announce and a user may operate.
OPERABLE = {
    "button",
    "combobox",
    "checkbox",
    "radio",
    "slider",
    "link",
    "textbox",
    "DisclosureTriangle",
    "region",
    "dialog",
}


@functools.cache
def pictures() -> dict[str, bytes]:
    """Those that a report would have."""
    wanted = {run["id"] for run in views.shown_runs(RESULTS["runs"])} | {f"{clip['name']}/source" for clip in RESULTS["clips"]}
    return {key: png for key, png in report_files.pictures(RESULTS).items() if key.rpartition("/")[0] in wanted}


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("page") / "report.html"
    plots = {f"{clip['name']}/{key}": SVG for clip in RESULTS["clips"] for key in ("rd/psnr_y", "bits", "frames")}
    file.write_text(page.render(RESULTS, pictures(), plots), encoding="utf-8")
    return file


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    options = webdriver.ChromeOptions()
    options.binary_location = BROWSER
    for flag in (*FLAGS, f"--user-data-dir={tmp_path_factory.mktemp('profile')}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options=options, service=Service(DRIVER))
    # The browser's own first page would still be loading, and asking for things, when the first test begins.
    driver.switch_to.new_window("tab")
    ours = driver.current_window_handle
    driver.switch_to.window(next(handle for handle in driver.window_handles if handle != ours))
    driver.close()
    driver.switch_to.window(ours)
    driver.get_log("performance")
    yield driver
    driver.quit()


class Page:
    """The page in the browser, and what a test asks of it."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def id(self, name: str) -> Any:
        return self.driver.find_element(By.ID, name)

    def js(self, code: str, *arguments: Any) -> Any:
        return self.driver.execute_script(code, *arguments)

    def until(self, condition: Callable[[], Any]) -> Any:
        return WebDriverWait(self.driver, 10, poll_frequency=0.02).until(lambda _: condition())

    def pick(self, control: str, value: str) -> None:
        Select(self.id(control)).select_by_value(value)

    def press(self, *keys: str, shift: bool = False) -> None:
        """Type into whatever has the focus."""
        chain = ActionChains(self.driver)
        if shift:
            chain.key_down(Keys.SHIFT)
        chain.send_keys(*keys)
        if shift:
            chain.key_up(Keys.SHIFT)
        chain.perform()

    @property
    def state(self) -> str:
        return str(self.id("v-state").text)

    @property
    def split(self) -> tuple[int, str, str]:
        """What the slider has, what is written beside it, and the style of the upper picture."""
        style = self.js("return document.getElementById('v-canvas-right').style.clipPath")
        return int(self.id("v-split").get_property("value")), self.id("v-split-text").text, style

    def at(self, percent: int) -> None:
        """Asserts that the split is there, in all three ways."""
        value, text, style = self.split
        assert (value, text) == (percent, f"{percent} %") and style.endswith(f"{percent}%)")

    def drawn(self, left: str, right: str, frame: int, difference: bool = False) -> None:
        """Waits until both canvases show these: a run's id, or "CLIP/source"."""
        wanted = f"{left}/{frame} {right}/{frame} "
        self.until(lambda: self.id("viewer").get_attribute("data-drawn").startswith(wanted))
        self.until(lambda: self.id("viewer").get_attribute("data-drawn").endswith("difference") == difference)

    def canvas(self, side: str) -> NDArray[np.uint8]:
        """The pixels (height, width, 3) of a canvas."""
        code = """const c = document.getElementById(arguments[0]);
                  return [c.width, c.height, Array.from(c.getContext('2d').getImageData(0, 0, c.width, c.height).data)]"""
        width, height, data = self.js(code, f"v-canvas-{side}")
        return np.array(data, np.uint8).reshape(height, width, 4)[..., :3]

    def numbers(self, side: str) -> list[str]:
        row = self.driver.find_element(By.CSS_SELECTOR, f"#v-numbers tr[data-side={side}]")
        return [cell.text for cell in row.find_elements(By.CSS_SELECTOR, "th, td")]


@pytest.fixture
def shown(browser: Any, path: Path) -> Iterator[Page]:
    """The page, loaded anew; afterwards: no message in the console, no request but for the page and its data: images."""
    browser.get(path.as_uri())
    found = Page(browser)
    found.until(lambda: found.id("viewer").get_attribute("data-drawn"))
    yield found
    assert browser.get_log("browser") == []
    events = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    urls = [event["params"]["request"]["url"] for event in events if event["method"] == "Network.requestWillBeSent"]
    assert path.as_uri() in urls and all(url == path.as_uri() or url.startswith("data:") for url in urls)


def pixels(key: str) -> NDArray[np.uint8]:
    """The RGB pixels of one of the sample's PNG files, whose rows are all unfiltered."""
    png, at, data = pictures()[key], 8, b""
    while at < len(png):
        length, kind = struct.unpack_from(">I4s", png, at)
        data += png[at + 8 : at + 8 + length] if kind == b"IDAT" else b""
        at += 12 + length
    rows = np.frombuffer(zlib.decompress(data), np.uint8).reshape(report_files.HEIGHT, -1)
    return rows[:, 1:].reshape(report_files.HEIGHT, report_files.WIDTH, 3)


def nearest(run_id: str) -> list[str]:
    return [run["id"] for run in views.nearest(RESULTS["runs"], RUNS[run_id]).values()]


def figures(run_id: str, nvc_id: str, frame: int) -> list[str]:
    """What the table under the pictures says of a run, after its name."""
    run = RUNS[run_id]
    size = [f"{run['bytes']:,}", f"{run['bytes'] / RUNS[nvc_id]['bytes']:.2f}x", f"{run['bpp']:.4f}", f"{run['file_bpp']:.4f}"]
    scores = [(run["frames"][metric][frame], run["quality"][metric]["mean"]) for metric in ("psnr_y", "vmaf")]
    return [*size, *(f"{score:.2f}" for pair in scores for score in pair)]


START = "bunny/nvc-hnerv-0.3bpp"  # of four rates the upper middle one
FIRST = report_files.SHOWN["bunny"][0]


def test_it_opens_with_nvc_beside_the_anchor_nearest_in_size(shown: Page) -> None:
    near = nearest(START)[0]
    shown.drawn(START, near, FIRST)
    assert np.array_equal(shown.canvas("left"), pixels(f"{START}/{FIRST}"))
    assert np.array_equal(shown.canvas("right"), pixels(f"{near}/{FIRST}"))
    assert shown.numbers("left")[1:] == figures(START, START, FIRST) and shown.numbers("right")[1:] == figures(near, START, FIRST)
    assert shown.numbers("left")[0].split() == ["nvc", "HNeRV,", "0.3", "bpp", "left"]
    assert "(nearest in size)" in Select(shown.id("v-right")).first_selected_option.text
    assert shown.state.startswith(f"bunny, frame {FIRST}: left nvc HNeRV, 0.3 bpp | right ") and shown.id(
        "v-state"
    ).get_attribute("aria-live")
    shown.at(50)


def test_the_slider_moves_the_split(shown: Page) -> None:
    slider = shown.id("v-split")
    slider.send_keys(Keys.ARROW_RIGHT)
    shown.at(51)
    slider.send_keys(Keys.HOME)
    shown.at(0)
    layers = shown.id("v-layers")
    width = layers.size["width"]
    ActionChains(shown.driver).move_to_element_with_offset(layers, width // 4, 0).click().perform()
    shown.at(75)  # offsets count from the centre
    ActionChains(shown.driver).move_to_element(layers).click_and_hold().move_by_offset(-width // 5, 5).release().perform()
    shown.at(30)


def test_clip_codec_rate_and_frame_can_be_chosen(shown: Page) -> None:
    for control, value, run_id, frame in (
        ("v-frame", "40", START, 40),
        ("v-codec", "nvc:vqnerv", "bunny/nvc-vqnerv-0.3bpp", 40),  # the rate stays
        ("v-rate", "bunny/nvc-vqnerv-0.1bpp", "bunny/nvc-vqnerv-0.1bpp", 40),
        ("v-clip", "coffee", "coffee/nvc-vqnerv-0.1bpp", 5),  # codec and rate stay, the frame cannot
    ):
        shown.pick(control, value)
        right = next(
            id_
            for id_ in nearest(run_id)
            if RUNS[id_]["codec"] == Select(shown.id("v-right")).first_selected_option.get_attribute("value")
        )
        shown.drawn(run_id, right, frame)
        assert shown.numbers("left")[1:] == figures(run_id, run_id, frame)
        assert shown.numbers("right")[1:] == figures(right, run_id, frame)
        assert np.array_equal(shown.canvas("left"), pixels(f"{run_id}/{frame}"))
        assert f"{RUNS[run_id]['clip']}, frame {frame}: left" in shown.state
    frames = [int(option.get_attribute("value")) for option in Select(shown.id("v-frame")).options]
    assert frames == report_files.SHOWN["coffee"]


def test_left_and_right_can_be_any_of_source_nvc_and_anchors(shown: Page) -> None:
    choices = [option.get_attribute("value") for option in Select(shown.id("v-right")).options]
    assert choices == ["source", "nvc", *(RUNS[id_]["codec"] for id_ in nearest(START))]
    for id_ in nearest(START):
        shown.pick("v-right", RUNS[id_]["codec"])
        shown.drawn(START, id_, FIRST)
        assert shown.numbers("right")[1:] == figures(id_, START, FIRST)
    shown.pick("v-left", "source")
    shown.drawn("bunny/source", nearest(START)[-1], FIRST)
    assert np.array_equal(shown.canvas("left"), pixels(f"bunny/source/{FIRST}"))
    assert shown.numbers("left")[0].split() == ["source", "left"] and not any(shown.numbers("left")[1:])


def test_difference_is_that_to_the_source_times_eight(shown: Page) -> None:
    shown.id("v-difference").click()
    near = nearest(START)[0]
    shown.drawn(START, near, FIRST, difference=True)
    source = pixels(f"bunny/source/{FIRST}").astype(int)
    for side, run_id in (("left", START), ("right", near)):
        expected = np.minimum(255, 8 * np.abs(pixels(f"{run_id}/{FIRST}") - source))
        assert np.array_equal(shown.canvas(side), expected) and expected.any()
    assert "difference to the source x8" in shown.state
    shown.id("v-difference").click()
    shown.drawn(START, near, FIRST)
    assert np.array_equal(shown.canvas("left"), pixels(f"{START}/{FIRST}"))


@pytest.mark.parametrize("by", ["radio", "key"])
def test_zoom_shows_every_sample_as_a_square(by: str, shown: Page) -> None:
    for zoom in (1, 4, 2):
        if by == "radio":
            shown.driver.find_element(By.CSS_SELECTOR, f"#v-zoom input[value='{zoom}']").click()
        else:
            shown.js("document.getElementById('v-stage').focus()")
            shown.press(str(zoom))
        assert shown.id("v-canvas-left").size == {"width": 160 * zoom, "height": 90 * zoom} and f"zoom {zoom}x" in shown.state
        assert shown.driver.find_element(By.CSS_SELECTOR, "#v-zoom input:checked").get_attribute("value") == str(zoom)
    assert shown.id("v-canvas-right").value_of_css_property("image-rendering") == "pixelated"


def test_keys_do_what_the_page_says(shown: Page) -> None:
    near, frames = nearest(START)[0], report_files.SHOWN["bunny"]
    shown.js("document.getElementById('v-stage').focus()")
    shown.press(Keys.ARROW_RIGHT, Keys.ARROW_RIGHT, Keys.ARROW_LEFT)
    shown.at(52)
    for key, percent in ((Keys.END, 100), (Keys.HOME, 0)):
        shown.press(key)
        shown.at(percent)
    for key, frame in (
        (".", frames[1]),
        ("k", frames[2]),
        ("j", frames[1]),
        (",", frames[0]),
        (",", frames[0]),
        *zip("kkkk", [*frames[1:], frames[-1]], strict=True),
        *zip("jjj", frames[-2::-1], strict=True),
    ):
        shown.press(key)
        shown.drawn(START, near, frame)
    shown.press(" ")
    shown.drawn(near, START, frames[0])
    shown.press("d")
    shown.drawn(near, START, frames[0], difference=True)
    shown.press("d")
    assert not shown.id("v-canvas-source").is_displayed()
    shown.press("s")
    shown.until(lambda: shown.id("v-canvas-source").is_displayed() and "source only" in shown.state)
    assert np.array_equal(shown.canvas("source"), pixels(f"bunny/source/{frames[0]}"))
    shown.press("s")
    shown.until(lambda: not shown.id("v-canvas-source").is_displayed())
    assert shown.js("return document.activeElement.id") == "v-stage"


def test_shift_and_arrows_pan_a_picture_that_is_too_large(shown: Page) -> None:
    shown.js("document.getElementById('v-stage').style.width = '300px'; document.getElementById('v-stage').focus()")
    shown.press("4")
    shown.press(Keys.ARROW_RIGHT, shift=True)
    shown.until(lambda: shown.js("return document.getElementById('v-stage').scrollLeft") == 80)
    shown.at(50)


def test_lists_keep_their_own_keys(shown: Page) -> None:
    shown.id("v-rate").send_keys("s", "d", "k")
    assert "source only" not in shown.state and "difference" not in shown.state and f"frame {FIRST}:" in shown.state


def test_buttons_and_boxes_keep_the_space_key(shown: Page) -> None:
    near = nearest(START)[0]
    shown.js("document.getElementById('v-difference').focus()")
    shown.press(" ")
    shown.drawn(START, near, FIRST, difference=True)
    assert shown.id("v-difference").is_selected()
    shown.js("document.getElementById('v-flip').focus()")
    shown.press(" ")
    shown.drawn(near, START, FIRST, difference=True)


def test_the_keyboard_reaches_everything_and_leaves_again(shown: Page) -> None:
    shown.js("document.querySelector('#pictures').setAttribute('tabindex', '-1'); document.querySelector('#pictures').focus()")
    reached: list[str] = []
    while not reached or reached[-1] != "outside":
        shown.press(Keys.TAB)
        code = """const e = document.activeElement;
                  return document.getElementById('viewer').contains(e) ? e.id || e.name || e.tagName : 'outside'"""
        reached.append(shown.js(code))
        assert len(reached) < 40
    controls = ["v-clip", "v-codec", "v-rate", "v-frame", "v-left", "v-right", "zoom", "v-difference", "v-source", "v-flip"]
    assert reached[:12] == [*controls, "v-stage", "v-split"] and "SUMMARY" in reached


def test_every_control_has_a_name(shown: Page) -> None:
    nodes = shown.driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
    found: dict[str, list[str]] = {}
    for node in nodes:
        if not node["ignored"]:
            found.setdefault(node["role"]["value"], []).append(node.get("name", {}).get("value", "").strip())
    assert {"button", "combobox", "slider", "radio", "checkbox", "link", "DisclosureTriangle"} <= found.keys()
    assert {role: names for role, names in found.items() if role in OPERABLE and not all(names)} == {}
    assert found["slider"] == ["Split"]
    assert {"Frame viewer", "Pictures", "Zoom"} <= set(found["group"])
    assert {"Clip", "nvc codec", "nvc rate", "Frame", "Left", "Right"} <= set(found["combobox"])
    assert all(found.get("image", ["x"])) and all(found.get("img", ["x"]))


def test_the_commands_of_the_pictures_are_shown(shown: Page) -> None:
    near = nearest(START)[0]
    shown.pick("v-frame", "40")
    shown.driver.find_element(By.CSS_SELECTOR, "#viewer summary").click()
    texts = [code.text for code in shown.driver.find_elements(By.CSS_SELECTOR, "#v-commands code")]
    for run in (RUNS[START], RUNS[near]):
        assert run["encode"]["command"] in texts and run["decode"][0]["command"] in texts
    colour = views.Colour.of(1, 0, report_files.HEIGHT)
    assert views.command("DECODED", "40", colour) in texts and views.command(RUNS[near]["file"], "40", colour) in texts


def columns(shown: Page) -> dict[str, Any]:
    headings = shown.driver.find_elements(By.CSS_SELECTOR, "table.runs[data-clip=bunny] thead tr:last-child th")
    return {heading.text.split(" ▲")[0].split(" ▼")[0]: heading for heading in headings}


def order(shown: Page) -> list[str]:
    code = "return [...document.querySelectorAll('table.runs[data-clip=bunny] tbody tr[data-run]')].map((r) => r.dataset.run)"
    return list(shown.js(code))


def test_a_heading_sorts_by_click_and_by_key(shown: Page) -> None:
    own = [run for run in RESULTS["runs"] if run["clip"] == "bunny"]
    heading = columns(shown)["bytes"]
    heading.find_element(By.TAG_NAME, "button").click()
    assert heading.get_attribute("aria-sort") == "ascending"
    assert order(shown) == [run["id"] for run in sorted(own, key=lambda run: run["bytes"])]
    shown.press(Keys.ENTER)
    assert heading.get_attribute("aria-sort") == "descending"
    assert order(shown) == [run["id"] for run in sorted(own, key=lambda run: -run["bytes"])]
    macs = columns(shown)["MACs per pixel"]
    macs.find_element(By.TAG_NAME, "button").click()
    networks = sorted((run for run in own if run["nvc"]), key=lambda run: run["nvc"]["macs_per_pixel"])
    assert order(shown)[: len(networks)] == [run["id"] for run in networks]  # anchors have none and come last
    assert heading.get_attribute("aria-sort") is None


def test_commands_of_a_row_open_and_close_by_key_and_can_be_copied(shown: Page) -> None:
    run = RUNS["bunny/x265-crf32"]
    button = shown.driver.find_element(By.CSS_SELECTOR, f"tr[data-run='{run['id']}'] button.more")
    sheet = shown.id(button.get_attribute("popovertarget"))
    assert not sheet.is_displayed()
    shown.js("arguments[0].focus()", button)
    shown.press(Keys.ENTER)
    shown.until(sheet.is_displayed)
    assert sheet.find_element(By.TAG_NAME, "code").text == run["encode"]["command"]
    sheet.find_element(By.CSS_SELECTOR, "pre button").click()
    assert shown.js("return getSelection().toString()") == run["encode"]["command"]
    assert sheet.find_element(By.CSS_SELECTOR, "pre button").text in ("Copied", "Selected")
    shown.press(Keys.ESCAPE)
    shown.until(lambda: not sheet.is_displayed())


@pytest.mark.parametrize("width", [360, 1280])
def test_the_page_never_scrolls_sideways(width: int, shown: Page) -> None:
    size = {"width": width, "height": 740, "deviceScaleFactor": 1, "mobile": False}
    shown.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    try:
        shown.driver.refresh()
        shown.until(lambda: shown.id("viewer").get_attribute("data-drawn"))
        shown.js("for (const d of document.querySelectorAll('details')) d.open = true")
        shown.pick("v-left", "source")
        shown.id("v-stage").send_keys("4")
        assert shown.js("const e = document.documentElement; return e.scrollWidth - e.clientWidth") == 0
        table = shown.driver.find_element(By.CSS_SELECTOR, "table.runs")
        box = table.find_element(By.XPATH, "..")
        shown.js("arguments[0].scrollLeft = 200", box)
        first = table.find_element(By.CSS_SELECTOR, "tbody th")
        assert shown.js("return arguments[0].scrollLeft", box) == 200  # it scrolls in its box, and its first column stays
        assert abs(first.rect["x"] - box.rect["x"]) <= 1
    finally:
        shown.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})


def test_without_javascript_all_but_the_viewer_can_be_read(shown: Page) -> None:
    shown.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        shown.driver.refresh()
        assert not shown.id("viewer").is_displayed() and "needs JavaScript" in shown.id("pictures").text
        for section in ("verdict", "bd", "rd", "bits", "frames", "runs", "rules", "commands", "environment"):
            assert shown.id(section).is_displayed() and len(shown.id(section).text) > 40, section
        assert f"{RUNS[START]['bytes']:,}" in shown.id("runs").text
    finally:
        shown.driver.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})
        shown.driver.refresh()


def test_a_page_without_anchors_compares_with_the_source(browser: Any, tmp_path: Path) -> None:
    alone = copy.deepcopy(RESULTS)
    alone["codecs"], alone["bd"] = [codec for codec in alone["codecs"] if codec["kind"] == "nvc"], []
    alone["runs"] = [{**run, "encode": None} for run in alone["runs"] if run["nvc"]]
    path = tmp_path / "alone.html"
    path.write_text(page.render(alone, pictures(), {}), encoding="utf-8")
    browser.get(path.as_uri())
    shown = Page(browser)
    shown.until(lambda: shown.id("viewer").get_attribute("data-drawn"))
    shown.drawn(START, "bunny/source", FIRST)
    assert browser.get_log("browser") == []

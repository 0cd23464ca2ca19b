"""The demo in Chromium, as a person uses it."""

import shutil
from io import BytesIO

import httpx
import numpy as np
import pytest
from PIL import Image

from usp_mm.app.pictures import enlarged

pytestmark = pytest.mark.browser
LAPTOP, PHONE = dict(width=1280, height=800), dict(width=390, height=844)


@pytest.fixture(scope='module')
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=shutil.which('chromium'), args=['--no-sandbox'])
        yield browser
        browser.close()


@pytest.fixture(params=[LAPTOP, PHONE], ids=['laptop', 'phone'])
def page(request, browser, demo):
    """The opened page; it must show all tabs, ask nothing of other servers and fit the window's width."""
    page, asked = browser.new_page(viewport=request.param), []
    page.set_default_timeout(60000)
    page.on('request', lambda one: asked.append(one.url))
    page.goto(demo[1])
    page.wait_for_selector('input[type=file]', state='attached')
    assert [tab.inner_text() for tab in page.get_by_role('tab').all()] == ['Restore', 'Generate', 'Classify', 'Neighbours']
    yield page
    assert page.evaluate('document.documentElement.scrollWidth') <= request.param['width']
    assert {httpx.URL(url).host for url in asked if url.startswith('http')} == {'127.0.0.1'}
    page.close()


def pictures(page, but=None):
    """Addresses of the four pictures, once they are shown and the masked and the restored one differ from those of before."""
    found = page.wait_for_function(
        """but => {
            const found = [...document.querySelectorAll('.result img')].filter(one => one.offsetParent).map(one => one.src);
            return found.length === 4 && [1, 2].every(i => !but || found[i] !== but[i]) && found;
        }""",
        arg=but,
    )
    return found.json_value()


def test_a_picture_is_restored_and_the_slider_changes_it(page, uploads):
    page.locator('input[type=file]').first.set_input_files(uploads['good.png'])
    first = pictures(page)
    slider = page.locator('#mask-ratio input[type=range]')
    slider.focus()
    for _ in range(4):
        slider.press('ArrowLeft')
    slider.dispatch_event('pointerup')
    second = pictures(page, but=first)
    before, after = ([httpx.get(url).raise_for_status().content for url in urls] for urls in (first, second))
    assert [one == other for one, other in zip(before, after, strict=True)] == [True, False, False, True]
    page.locator('#restore-1 img').click()
    third = pictures(page, but=second)
    assert httpx.get(third[1]).raise_for_status().content != after[1]
    assert page.get_by_label('seed').first.input_value() == '1'


def test_a_bad_upload_shows_the_message(page, uploads):
    page.locator('input[type=file]').first.set_input_files(uploads['text.png'])
    toast = page.locator('.toast-body')
    toast.wait_for()
    assert "'text.png' is not an image, whatever its name says" in toast.inner_text()
    assert 'Traceback' not in page.content()


def test_pictures_are_generated_and_another_seed_gives_others(page, models):
    """Every generator shows the pictures that `Generator.sample` draws with the settings of the page."""
    page.get_by_role('tab', name='Generate').click()
    seed = page.locator('label:visible', has_text='seed').get_by_role('spinbutton')
    before, found = [], []
    for number in (0, 3):
        seed.fill(str(number))
        seed.press('Tab')
        page.get_by_role('button', name='Generate', exact=True).click()
        found.append(galleries(page, len(models.generators), before))
        before = [address for row in found[-1] for address in row]
    first = next(iter(models.generators.values())).model  # the sliders begin with its settings
    settings = dict(guidance=first.guidance.scale, steps=first.sampler.describe()['num_steps'])
    for number, rows in zip((0, 3), found, strict=True):
        for generator, row in zip(models.generators.values(), rows, strict=True):
            wanted = generator.sample([0], 4, seed=number, **settings)
            for address, picture in zip(row, wanted, strict=True):
                shown = Image.open(BytesIO(httpx.get(address).raise_for_status().content)).convert('RGB')
                assert np.array_equal(shown, enlarged(picture))


def galleries(page, num, but):
    """Addresses of the pictures of each gallery, once every one of `num` shows four that were not there before."""
    found = page.wait_for_function(
        """([num, but]) => {
            const shown = [...document.querySelectorAll('.grid-container')].filter(one => one.offsetParent)
                .map(one => [...one.querySelectorAll('img')].map(one => one.src));
            return shown.length === num && shown.every(row => row.length === 4 && !row.some(one => but.includes(one))) && shown;
        }""",
        arg=[num, but],
    )
    return found.json_value()

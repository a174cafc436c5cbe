"""The application: every agent by name, and the app that `faust -A agents worker` runs."""

from k2stream.app import create_app
from k2stream.settings import load_settings
from k2stream.web.pages import add_pages

app = create_app(load_settings())

from agents import deadletters, trades  # noqa: E402 # agents declare themselves on the app

add_pages(app)

__all__ = ["app", "deadletters", "trades"]

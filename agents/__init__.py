"""The application: every agent by name, and the app that `faust -A agents worker` runs."""

import sys

from k2stream.app import create_app
from k2stream.errors import SettingsError
from k2stream.logs import set_up_logs
from k2stream.settings import load_settings
from k2stream.web.pages import add_pages

try:
    settings = load_settings()
except SettingsError as exc:
    sys.exit(f"k2: {exc}")
set_up_logs(settings)
app = create_app(settings)

from agents import instruments, quotes, trades, upkeep  # noqa: E402 # agents declare themselves on the app

add_pages(app)

__all__ = ["app", "instruments", "quotes", "trades", "upkeep"]

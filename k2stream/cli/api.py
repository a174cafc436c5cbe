"""`k2 api`: the REST service."""


def api() -> None:
    """Answer questions over HTTP until stopped; every answer has its receipt."""
    from k2stream.api.server import serve
    from k2stream.settings import load_settings

    serve(load_settings())

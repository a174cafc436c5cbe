"""An S3 server: versitygw over a folder, with a bucket `k2stream` and keys of its own."""

from collections.abc import Mapping
from pathlib import Path

from k2stream.dev.service import Service, ask, versions
from k2stream.settings import Settings

BUCKET = "k2stream"
ACCESS_KEY = "k2"
REGION = "us-east-1"


class S3(Service):
    """Objects are files under `data/k2stream`."""

    name = "s3"

    def __init__(self, folder: Path, settings: Settings) -> None:
        super().__init__(folder, settings)
        self.binary = self.cache / f"versitygw-{versions()['VERSITYGW']}" / "versitygw"

    def lacks(self) -> str:
        return "" if self.binary.exists() else f"the S3 server {self.binary}"

    def prepare(self) -> None:
        (self.folder / "data" / BUCKET).mkdir(parents=True, exist_ok=True)  # a folder on the first level is a bucket
        (self.folder / "sidecar").mkdir(exist_ok=True)

    def command(self) -> list[str]:
        # Object metadata beside the data, not in extended attributes, which not every file system has.
        options = ["--port", self.address, "--region", REGION, "--quiet", "--health", "/health"]
        return [str(self.binary), *options, "posix", "--sidecar", str(self.folder / "sidecar"), str(self.folder / "data")]

    def environment(self) -> Mapping[str, str]:
        return {"ROOT_ACCESS_KEY": ACCESS_KEY, "ROOT_SECRET_KEY": self.secret()}

    def answers(self) -> bool:
        return b" 200 " in ask(self.port, b"GET /health HTTP/1.0\r\n\r\n")

    def exports(self) -> Mapping[str, str]:
        return {
            "K2_WAREHOUSE": f"s3://{BUCKET}/warehouse",
            "AWS_ENDPOINT_URL": f"http://{self.address}",
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": self.secret(),
            "AWS_REGION": REGION,
        }

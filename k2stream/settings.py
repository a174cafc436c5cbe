"""The one Settings: every knob, read once from the environment (prefix K2_)."""

import os
from pathlib import Path
from typing import Literal, Self

from pydantic import Field, SecretStr, ValidationError, model_validator
from pydantic_core import ErrorDetails
from pydantic_settings import BaseSettings, SettingsConfigDict

from k2stream.errors import QueryError, SettingsError

LOOPBACK = ("127.0.0.1", "::1", "localhost")
"""Addresses that only this machine reaches."""


class Settings(BaseSettings):
    """Frozen; each field's description is its line in the README's table."""

    model_config = SettingsConfigDict(env_prefix="K2_", frozen=True, extra="ignore")

    home: Path = Field(Path(".k2"), description="Where everything the embedded default keeps lives")
    app_id: str = Field("k2stream", description="Consumer group and Faust app id")
    broker: str = Field("", description="`k2kafka://host:9092`; empty: the embedded log under K2_HOME")
    broker_security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = Field("PLAINTEXT", description="How Kafka is spoken to")
    broker_sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = Field("SCRAM-SHA-512", description="How it is told user and password")
    broker_username: str = Field("", description="User of Kafka, with SASL")
    broker_password: SecretStr = Field(SecretStr(""), description="Its password")
    broker_ca_file: str = Field("", description="PEM file of the authorities that Kafka's certificate is trusted by; empty: those of the system")
    broker_cert_file: str = Field("", description="PEM file of our own certificate, where Kafka asks for one")
    broker_key_file: str = Field("", description="PEM file of its key, without a passphrase")
    topics: str = Field("market.*.*.*", description="What agents read: names, patterns (`*`: one part), `exchange:asx`, `data_type:trades`")
    topics_file: str = Field("", description="Declares topics, for `k2 topics` and for who writes to them; empty: config/topics.yaml of the checkout")
    symbols_file: str = Field("", description="What venues call the same pair; empty: config/symbols.yaml of the checkout")
    instruments_file: str = Field("", description="Which symbols live feeds ask for; empty: config/instruments.yaml of the checkout")
    partitions: int = Field(8, gt=0, description="Partitions of topics that K2_TOPICS_FILE does not declare; set by hand, also of one that it does")
    isolation_level: Literal["read_committed", "read_uncommitted"] = Field("read_committed", description="Which records of Kafka transactions are read")
    start: Literal["earliest", "latest"] = Field("earliest", description="Where a topic's first start begins")
    session_timeout_ms: int = Field(10_000, gt=0, description="A worker silent for so long loses its partitions")
    heartbeat_interval_ms: int = Field(500, gt=0, description="How often a worker says it is alive")
    revoke_timeout_ms: int = Field(5_000, gt=0, description="Budget of closing and committing windows when partitions are taken away")
    fetch_buffer_bytes: int = Field(32 << 20, gt=0, description="Bytes read ahead of the agents, per worker")
    topic_refresh_ms: int = Field(60_000, gt=0, description="How often topic patterns are resolved again")
    retention_ms: int = Field(7 * 86_400_000, gt=0, description="How long the embedded log keeps log batches")
    window_rows: int = Field(250_000, gt=0, description="A window closes at so many rows")
    window_bytes: int = Field(48 << 20, gt=0, description="... or so many bytes")
    window_ms: int = Field(5_000, gt=0, description="... or at this age")
    commit_timeout_ms: int = Field(60_000, gt=0, description="Budget of one commit, look-ups after unknown outcomes included")
    fsync: bool = Field(True, description="Sync data files before the catalog speaks; false only for benchmarks")
    catalog_uri: str = Field("", description="Iceberg catalog: `postgresql://user@host/database`, or REST: `http://host:8181`; empty: SQLite under K2_HOME")
    catalog_password: SecretStr = Field(SecretStr(""), description="Password of an SQL catalog, if not in the URI")
    catalog_token: SecretStr = Field(SecretStr(""), description="Bearer token of a REST catalog")
    catalog_credential: SecretStr = Field(SecretStr(""), description="`id:secret` for which a REST catalog's OAuth2 gives tokens, instead of a token")
    catalog_oauth_url: str = Field("", description="Where it gives them; empty: `/v1/oauth/tokens` of the catalog")
    catalog_scope: str = Field("catalog", description="Scope of these tokens")
    catalog_ca_file: str = Field("", description="PEM file of the authorities that an https catalog is trusted by; empty: those of `certifi`")
    catalog_timeout_ms: int = Field(10_000, gt=0, description="How long a catalog may take to answer one request")
    warehouse: str = Field("", description="Where the tables lie: a folder or `s3://bucket/prefix`, for REST its word for it; empty: K2_HOME/warehouse")
    s3_endpoint: str = Field("", description="S3 that is not Amazon's: `http://host:9000`; empty: AWS_ENDPOINT_URL, else Amazon's")
    s3_region: str = Field("", description="Region of the bucket; empty: AWS_REGION, else asked for (with an endpoint: us-east-1)")
    s3_access_key_id: str = Field("", description="Key; empty: AWS's own variables, profile or role (of these, queries know the variables only)")
    s3_secret_access_key: SecretStr = Field(SecretStr(""), description="Its secret")
    s3_session_token: SecretStr = Field(SecretStr(""), description="Its session token, if it has one")
    s3_path_style: bool = Field(True, description="With an endpoint: the bucket in the path; false: in the host's name")
    namespace: str = Field("market_data", description="Iceberg namespace of the tables")
    snapshots_kept: int = Field(50, ge=3, description="Snapshots a table keeps")
    orphan_age_ms: int = Field(86_400_000, gt=0, description="Files younger than this are never taken for orphans")
    snapshot_age_ms: int = Field(7 * 86_400_000, gt=0, description="Upkeep lets older snapshots go too, but for the newest three and those that are pinned")
    upkeep_ms: int = Field(600_000, ge=0, description="How often one worker of the group keeps the tables healthy; 0: never, then run `k2 upkeep run` yourself")
    upkeep_memory_bytes: int = Field(256 << 20, gt=0, description="Rows that compaction holds in memory; what is more is sorted on the disk under K2_HOME")
    compact_target_bytes: int = Field(256 << 20, ge=1 << 20, description="Compaction makes files of about this size; those of half of it are left alone")
    compact_min_files: int = Field(8, ge=2, description="A day that still grows is compacted when so many files of like size have come")
    unnamed_ms: int = Field(3_600_000, ge=0, description="A file that no snapshot names any more stays so long, for whoever still reads it")
    keep_days: str = Field("", description="Retention by data type: `trades=365,quotes=30`; what is not named is kept for ever")
    dedup_horizon_ms: int = Field(7 * 86_400_000, gt=0, description="Event time the filter looks back before it asks the table")
    dedup_memory_bytes: int = Field(64 << 20, gt=0, description="Memory of the filter, per data type of a worker")
    dedup_tolerance_ms: int = Field(3_600_000, ge=0, description="How far two reports of one trade may differ in event time")
    max_age_ms: int = Field(0, ge=0, description="Older trades are dead letters; 0: off, for history")
    max_ahead_ms: int = Field(3_600_000, ge=0, description="Event time at most so far after ingestion time, and after now")
    gap_small_rows: int = Field(10, gt=0, description="Gaps of up to so many missing numbers are `small`")
    replay_attempts: int = Field(5, gt=0, description="A record that died so often is parked: no replay takes it until it is released")
    replay_rate: float = Field(500.0, gt=0, description="Dead letters that a replay publishes a second, unless `--rate` says otherwise")
    replay_reasons: str = Field("unknown_schema", description="Letters that the replay agent sends back by itself once they would pass, a comma list")
    replay_every_ms: int = Field(30_000, gt=0, description="How often it looks")
    replay_web_port: int = Field(6067, ge=0, le=65535, description="Port of the replay agent's web pages")
    quality: bool = Field(True, description="Look at good rows for what is odd and keep it in `market_data.quality`; false: no row is looked at")
    quality_price_move_percent: float = Field(10.0, gt=0, description="A price this far from the symbol's previous one is flagged `price_move`")
    quality_price_deviations: float = Field(8.0, gt=0, description="... this many standard deviations from the day's mean step: `price_outlier`")
    quality_volume_times: float = Field(100.0, gt=1, description="A trade of so many times the day's mean quantity: `volume_spike`")
    quality_stale_ms: int = Field(900_000, gt=0, description="The first row of a symbol after so long a silence: `stale`")
    registry_url: str = Field("", repr=False, description="Schema registry; empty: a local store under K2_HOME")
    registry_user: str = Field("", description="User of the schema registry, for basic authentication")
    registry_password: SecretStr = Field(SecretStr(""), description="Its password")
    registry_token: SecretStr = Field(SecretStr(""), description="Bearer token of the schema registry, instead of a user")
    registry_ca_file: str = Field("", description="PEM file of the authorities that an https registry is trusted by; empty: those of the system")
    redis_url: str = Field("", repr=False, description="Redis: `redis://` or, with TLS, `rediss://`; empty: a server that the worker starts itself")
    redis_password: SecretStr = Field(SecretStr(""), description="Its password, if not in the URL")
    redis_ca_file: str = Field("", description="PEM file of the authorities that a rediss server is trusted by; empty: those of the system")
    redis_server: str = Field("", description="Path of the Redis or Valkey binary to start; empty: searched")
    state: Literal["redis", "memory"] = Field("redis", description="Where state is kept between runs; tables hold it anyway")
    feed_memory_bytes: int = Field(64 << 20, gt=0, description="What a live feed holds in memory while the log does not take it")
    feed_disk_bytes: int = Field(1 << 30, ge=0, description="... and on disk beyond that, before it stops reading its sockets")
    feed_ca_file: str = Field("", description="PEM file of the authorities that a venue's certificate is checked against; empty: the system's")
    binance_urls: str = Field("", description="Addresses of Binance, a comma list tried in turn; empty: the venue's own")
    binance_ssl_verify: bool = Field(True, description="Check Binance's certificate; false lets anybody play the venue, and is warned of at every start")
    kraken_urls: str = Field("", description="Addresses of Kraken's WebSocket v2")
    kraken_ssl_verify: bool = Field(True, description="Check Kraken's certificate")
    coinbase_urls: str = Field("", description="Addresses of Coinbase Exchange")
    coinbase_ssl_verify: bool = Field(True, description="Check Coinbase's certificate")
    feed_name: str = Field("", pattern="^[a-z0-9]{0,20}$", description="Name of this live feed, in `vendor_data` of its rows; feeds of one venue each need one")
    feed_own_topic: bool = Field(False, description="Publish into a redundant topic of this feed, `market.crypto.trades.binance-NAME`")
    binance_rest_url: str = Field("", description="Where `k2 backfill binance` asks; empty: the venue's own address")
    binance_api_key: SecretStr = Field(SecretStr(""), description="Key for trades by number; without one only the newest thousand can be back-filled")
    kraken_rest_url: str = Field("", description="Where `k2 backfill kraken` asks; empty: the venue's own address")
    coinbase_rest_url: str = Field("", description="Where `k2 backfill coinbase` asks; empty: the venue's own address")
    web_host: str = Field("127.0.0.1", description="Address of the worker's web pages")
    web_port: int = Field(6066, ge=0, le=65535, description="Port of the worker's web pages")
    web_key: str = Field("", description="Key that pages and the REST service ask for (X-API-Key); needed for any address but 127.0.0.1")
    api_host: str = Field("127.0.0.1", description="Address of the REST service")
    api_port: int = Field(8000, ge=0, le=65535, description="Port of the REST service")
    log_level: Literal["debug", "info", "warning", "error"] = Field("info", description="How much is logged")
    log_format: Literal["console", "json"] = Field("console", description="How it is logged")
    cache: str = Field("", description="Where servers for `k2 dev` and tests are kept once fetched or built; empty: ~/.cache/k2stream")
    crash_at: str = Field("", description="For tests: `STEP`, `STEP:N` or `STEP:N:SIGNAL`, or `@FILE` that says so later; the process kills itself there")

    @model_validator(mode="after")
    def _named(self) -> Self:
        if self.feed_own_topic and not self.feed_name:
            raise ValueError("K2_FEED_OWN_TOPIC: expected a K2_FEED_NAME with it, after which the topic is named")
        return self

    @model_validator(mode="after")
    def _guarded(self) -> Self:
        if bad := [name for name in ("web_host", "api_host") if getattr(self, name) not in LOOPBACK and not self.web_key]:
            raise ValueError(f"K2_{bad[0].upper()}: any address but 127.0.0.1 needs a K2_WEB_KEY, or everybody who reaches it can look in")
        return self

    @model_validator(mode="after")
    def _replays_known_reasons(self) -> Self:
        if self.replay_reasons not in ("", "unknown_schema"):
            from k2stream.verdict import Reason  # Arrow comes with it, and most commands need none

            if unknown := [name for name in self.replayed_reasons() if name not in list(Reason)]:
                raise ValueError(f"K2_REPLAY_REASONS: expected reasons that `k2 dlq reasons` lists, found {', '.join(unknown)}")
        return self

    @model_validator(mode="after")
    def _logs_in(self) -> Self:
        """What is set of Kafka's credentials is also used, and what the protocol needs is there."""
        tells, proves = self.broker_security_protocol.startswith("SASL"), self.broker_security_protocol.endswith("SSL")
        protocol = f"K2_BROKER_SECURITY_PROTOCOL={self.broker_security_protocol}"
        login = bool(self.broker_username), bool(self.broker_password)
        files = bool(self.broker_ca_file), bool(self.broker_cert_file), bool(self.broker_key_file)
        rules = {
            "K2_BROKER: expected hosts and ports only, found a user in it; name it in K2_BROKER_USERNAME and K2_BROKER_PASSWORD": "@" in self.broker,
            f"{protocol}: K2_BROKER is none of Kafka, k2kafka://host:9092": (tells or proves) and not self.broker.startswith("k2kafka://"),
            f"{protocol}: expected K2_BROKER_USERNAME and K2_BROKER_PASSWORD with it": tells and not all(login),
            f"{protocol} tells nobody K2_BROKER_USERNAME and K2_BROKER_PASSWORD; expected SASL_SSL": any(login) and not tells,
            f"{protocol} has no use for K2_BROKER_CA_FILE, K2_BROKER_CERT_FILE and K2_BROKER_KEY_FILE; expected SSL or SASL_SSL": any(files) and not proves,
            "K2_BROKER_CERT_FILE and K2_BROKER_KEY_FILE: expected both or neither, found one": files[1] != files[2],
        }
        if broken := [sentence for sentence, is_broken in rules.items() if is_broken]:
            raise ValueError(broken[0])
        return self

    def replayed_reasons(self) -> list[str]:
        """The reasons whose letters the replay agent sends back."""
        return [name.strip() for name in self.replay_reasons.split(",") if name.strip()]

    def home_path(self, *parts: str) -> Path:
        """Absolute path under K2_HOME."""
        return self.home.absolute().joinpath(*parts)

    def cache_folder(self) -> Path:
        """Where servers for development lie once they are fetched or built; may not exist."""
        return Path(self.cache).absolute() if self.cache else Path.home() / ".cache" / "k2stream"

    def broker_url(self) -> str:
        """What Faust connects to."""
        return self.broker or f"embedded://{self.home_path('log')}"


def load_settings() -> Settings:
    """Settings of this process; raises SettingsError naming each wrong variable, what was expected and found."""
    try:
        return Settings()
    except ValidationError as exc:
        raise SettingsError(f"{'; '.join(_sentence(e) for e in exc.errors())}. Mend or unset it; README.md lists every setting.") from exc


def settings_of_tables() -> Settings:
    """The same where a catalog exists, for asking makes nothing: a home that nobody worked in has none. Raises QueryError."""
    settings = load_settings()
    path = settings.home_path("catalog.db")
    if not settings.catalog_uri and not path.exists():
        raise QueryError(f"There are no tables yet: {path} does not exist. Run `k2 demo` or `k2 worker` first, or set K2_HOME.")
    return settings


def _sentence(error: ErrorDetails) -> str:
    """One wrong setting: its variable, what was found, what is expected; a rule between several says so itself."""
    if not error["loc"]:
        return error["msg"].removeprefix("Value error, ")
    return f"K2_{'_'.join(str(part) for part in error['loc']).upper()}={error['input']!r}: {error['msg']}"


def process_environment() -> dict[str, str]:
    """The whole environment, for children of this process."""
    return dict(os.environ)

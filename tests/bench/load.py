"""`k2 load`: how many rows a second of a CSV file reach the log, and what memory that takes.

    python -m tests.bench.load [--rows 1000000] [--symbols 50] [--kafka]

Trades as Binance publishes them, of one symbol or several, into the embedded log or a broker of its own; first a dry run, which reads, converts and
encodes only. Results also go into build/load.md.
"""

import argparse
import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from random import Random

import psutil

from k2stream.dev.kafka import Kafka
from k2stream.home import Home
from k2stream.load.mapping import read_mapping
from k2stream.load.run import Summary, Told, Wanted, load_file
from k2stream.settings import Settings
from k2stream.topics import TopicName

ROOT = Path(__file__).parents[2]
MAPPING = """\
fields:
  symbol: symbol
  trade_id: id
  source_sequence: id
  timestamp: {column: time, unit: ms}
  price: price
  quantity: qty
  currency: {constant: USDT}
  side: {column: is_buyer_maker, values: {"True": SELL, "False": BUY}}
vendor_data:
  is_buyer_maker: is_buyer_maker
"""


def lines(rows: int, symbols: int) -> Iterator[str]:
    random = Random(1)
    time_ms = 1_610_064_000_278
    yield "id,symbol,price,qty,time,is_buyer_maker\n"
    for n in range(rows):
        time_ms += random.randrange(30)
        price, quantity = random.randrange(3_900_000, 4_000_000) / 100, random.randrange(1, 100_000) / 1e6
        yield f"{553_287_559 + n},S{n % symbols}USDT,{price:.8f},{quantity:.8f},{time_ms},{random.random() < 0.5}\n"


def measured(settings: Settings, file: Path, mapping: Path, *, dry_run: bool) -> Summary:
    wanted = Wanted(file, read_mapping(mapping, "trades", constants={}), TopicName("crypto", "trades", "binance"), dry_run=dry_run)
    return load_file(settings, wanted, Told(size=lambda size: None, done=lambda done: None))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--symbols", type=int, default=50)
    parser.add_argument("--kafka", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        file, mapping = folder / "trades.csv", folder / "map.yaml"
        with file.open("w") as out:
            out.writelines(lines(options.rows, options.symbols))
        mapping.write_text(MAPPING)
        broker = f"k2kafka://{stack.enter_context(Kafka(folder / 'kafka', Settings())).address}" if options.kafka else ""
        settings = Settings(home=folder / "k2", broker=broker)
        Home.open(settings.home)
        tried = measured(settings, file, mapping, dry_run=True)
        before_mb = psutil.Process(os.getpid()).memory_info().rss / 1e6
        done = measured(settings, file, mapping, dry_run=False)
        after_mb = psutil.Process(os.getpid()).memory_info().rss / 1e6
    assert done.published == options.rows
    text = (
        f"{options.rows:,} rows of {options.symbols} symbols into {'a broker' if options.kafka else 'the embedded log'}: "
        f"read, converted and encoded {tried.rows / tried.seconds:,.0f} rows/s; published {done.rows / done.seconds:,.0f} rows/s; "
        f"memory {before_mb:,.0f} MB before, {after_mb:,.0f} MB after\n"
    )
    print(text, end="")
    (ROOT / "build").mkdir(exist_ok=True)
    (ROOT / "build" / "load.md").write_text(text)


if __name__ == "__main__":
    main()

"""Print the shop's report: `python -m bookshop`, with `--sample` for something to see."""

import argparse
from contextlib import closing

from bookshop.catalogue import stock, top_customers
from bookshop.db import open_database
from bookshop.sample import add_sample


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bookshop", description="Print a report.")
    parser.add_argument("--sample", action="store_true", help="first add sample orders")
    options = parser.parse_args()

    with closing(open_database()) as connection:
        if options.sample:
            add_sample(connection)

        print("Top customers")
        for customer in top_customers(connection):
            spent = f"{customer.total_cents / 100:.2f}"
            print(f"  {spent:>8}  {customer.name}, orders: {customer.orders}")

        print("Stock")
        for line in stock(connection):
            note = "  <- reorder" if line.reorder else ""
            print(f"  {line.quantity:>8}  {line.title}, {line.author}{note}")


if __name__ == "__main__":
    main()

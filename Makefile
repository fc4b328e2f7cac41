# Verbs; each one's work is in scripts/. Arguments: make test ARGS='-k postgres -x'
VERBS = install lint check format test test-psycopg test-pythons test-postgres test-dependencies test-django \
    test-wheel test-image bench bench-quick coverage demo docs clean
.PHONY: help types $(VERBS)

help:
	@sed -n 's/^# \{0,1\}//p;2q' Makefile
	@for verb in $(VERBS); do \
	    printf '  make %-18s %s\n' $$verb "$$(sed -n 's/^# //p;2q' scripts/$$verb)"; done

install:
	@scripts/install

lint:
	@scripts/lint $(ARGS)

check types:
	@scripts/check $(ARGS)

format:
	@scripts/format $(ARGS)

test:
	@scripts/test $(ARGS)

test-psycopg:
	@scripts/test-psycopg $(ARGS)

test-pythons:
	@scripts/test-pythons $(ARGS)

test-postgres:
	@scripts/test-postgres $(ARGS)

test-dependencies:
	@scripts/test-dependencies $(ARGS)

coverage:
	@scripts/coverage $(ARGS)

bench:
	@scripts/bench $(ARGS)

bench-quick:
	@scripts/bench-quick $(ARGS)

demo:
	@scripts/demo

docs:
	@scripts/docs $(ARGS)

test-django:
	@scripts/test-django $(ARGS)

test-wheel:
	@scripts/test-wheel

test-image:
	@scripts/test-image

clean:
	@scripts/clean

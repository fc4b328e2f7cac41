# Verbs; each one's work is in scripts/. Arguments: make test ARGS='-k postgres -x'
.PHONY: help install lint check types format test coverage demo docs test-django test-wheel test-image clean

help:
	@sed -n 's/^# \{0,1\}//p;2q' Makefile
	@for verb in install lint check format test coverage demo docs test-django test-wheel test-image clean; do \
	    printf '  make %-11s %s\n' $$verb "$$(sed -n 's/^# //p;2q' scripts/$$verb)"; done

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

coverage:
	@scripts/coverage $(ARGS)

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

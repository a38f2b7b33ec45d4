# barkd: `make run` serves speech on :8000, `make test` tests everything. Both install what is missing and say so.
SHELL := /bin/bash
BUILD := build/native
JOBS  ?= $(shell nproc)

.PHONY: run build native test deps bench fmt lint clean
run: build
	bin/barkd serve

deps:
	@tools/install-deps

native: deps
	@cmake -S . -B $(BUILD) -G Ninja -DCMAKE_BUILD_TYPE=Release >$(BUILD).log 2>&1 || { cat $(BUILD).log; exit 1; }
	@cmake --build $(BUILD) -j $(JOBS)
	@tools/stamp-native $(BUILD)

build: native
	@mkdir -p bin
	go build -o bin/barkd ./server

test: native
	ctest --test-dir $(BUILD) --output-on-failure
	go test ./...

clean:
	rm -rf build bin cgo/native/barkrt_build.h cgo/native/default.gguf

# barkd. `make run` serves speech on :8000; `make test` tests everything. Both install what is missing and say so.
SHELL  := /bin/bash
NATIVE := build/native
JOBS   ?= $(shell nproc)
# AUTO, ON or OFF; compute capabilities as in cmake/Cuda.cmake, such as 89 or "80;90", instead of all.
CUDA   ?= AUTO
CUDA_ARCHITECTURES ?=
CMAKE  := cmake -S . -G Ninja -DCMAKE_BUILD_TYPE=Release $(if $(CUDA_ARCHITECTURES),"-DBARKRT_CUDA_ARCHITECTURES=$(CUDA_ARCHITECTURES)",-UBARKRT_CUDA_ARCHITECTURES)
GOFUZZTIME ?= 60s
SOAK ?= 30m
LOAD ?= 60s
API_FUZZ_SECONDS ?= 90
HEALTH_P99 ?= 50ms
# go-nvml leaves NVML's symbols to a loader that must be lazy (-z lazy below), and warns of each one NVIDIA has retired.
export CGO_CFLAGS ?= -O2 -g -Wno-deprecated-declarations

.PHONY: help run build native cuda cuda-resources test bench cycles soak load fmt lint sanitize race fuzz understood model browser conformance fuzz-api deploy-test image-test clean
help: ## list the targets
	@grep -hE '^[a-z0-9-]+:.*## ' $(MAKEFILE_LIST) | awk -F ':.*## ' '{printf "  make %-13s %s\n", $$1, $$2}'

run: build ## build, then serve on :8000 with the embedded default model
	bin/barkd serve

build: native ## bin/barkd, one file
	@mkdir -p bin
	go build -ldflags='-extldflags=-Wl,-z,lazy' -o bin/barkd ./server

TESTS := OFF
test: TESTS := ON
bench bench-hf bench-quality: TESTS := OFF
native: ## libbarkrt (static and shared), and the embedded default model
	@tools/install-deps build $(if $(filter ON,$(TESTS)),test)
	@mkdir -p build
	@$(CMAKE) -B $(NATIVE) -DBARKRT_CUDA=$(CUDA) -DBARKRT_TESTS=$(TESTS) -DBARKRT_BENCH=ON >build/configure.log || { cat build/configure.log; exit 1; }
	@sed -n 's/^-- CUDA: /CUDA: /p' build/configure.log
	@cmake --build $(NATIVE) -j $(JOBS) --target barkrt_static barkrt_shared
	@tools/stamp-native

cuda: ## libbarkrt with CUDA for all targets, in build/cuda, and what each kernel takes; fetches a compiler
	@tools/install-deps build
	@tools/cuda-toolchain
	$(CMAKE) -B build/cuda -DBARKRT_CUDA=ON -DBARKRT_NVCC=$(CURDIR)/build/cuda-toolchain/bin/nvcc -DBARKRT_TESTS=OFF -DBARKRT_BENCH=OFF
	cmake --build build/cuda -j $(JOBS) --target barkrt_static barkrt_shared
	@cmake -DNM=nm -DLIBRARY=build/cuda/libbarkrt.so -DHEADER=native/include/barkrt.h -P native/tests/exported_symbols.cmake
	@$(if $(CUDA_ARCHITECTURES),:,tools/cuda-resources build/cuda $(RESOURCES))

cuda-resources: RESOURCES := --write
cuda-resources: cuda ## write native/src/cuda/resources.txt, with which make cuda compares what each kernel takes

# Both need a GPU and nvcc; with CUDA_ARCHITECTURES of that GPU alone they build faster.
.PHONY: test-gpu bench-gpu
test-gpu bench-gpu: ## every native test on the GPU, compute-sanitizer too; benchmarks on it; reports in build/gpu
	@tools/install-deps build test
	$(CMAKE) -B build/gpu/build -DBARKRT_CUDA=ON -DBARKRT_TESTS=ON -DBARKRT_BENCH=ON
	cmake --build build/gpu/build -j $(JOBS)
	tools/gpu $(@:%-gpu=%)

test: native ## native tests, then go test ./...
	@cmake --build $(NATIVE) -j $(JOBS)
	ctest --test-dir $(NATIVE) --output-on-failure
	go test ./...

BENCH_MODELS ?= bark-small-i8 bark-small-i4 bark-small-f16 bark-i8
bench: build ## every op, loads, 5 s and 13 s of audio, 1, 4 and 16 requests at once, long texts, beside this machine's limits
	@cmake --build $(NATIVE) -j $(JOBS)
	$(NATIVE)/native/bench/bench_ops --json=build/bench-ops.json
	@rm -f build/bench.json
	@for name in $(BENCH_MODELS); do \
	  model=build/$$name.gguf; \
	  [ -f $$model ] || go run ./tools/untrained -shape $${name%-*} -type $${name##*-} -o $$model || exit 1; \
	  $(NATIVE)/native/bench/bench_load $$model || exit 1; \
	  case $$name in bark-small-i8) lengths="250 649 649v";; bark-small-*) lengths="250 649";; *) lengths=250;; esac; \
	  $(NATIVE)/native/bench/bench_speech $$model 0 $$lengths --json=build/bench.json || exit 1; \
	  [ $$name != bark-small-i8 ] || $(NATIVE)/native/bench/bench_batch $$model --json=build/bench.json || exit 1; \
	done
	go run ./tools/length -json build/bench-length.json

.PHONY: plots
plots: ## native/*.svg from the last `make bench`; needs Python with venv
	@[ -x build/plots-venv/bin/python ] || python3 -m venv build/plots-venv
	@build/plots-venv/bin/pip install -q -r tools/plots/requirements.txt
	@build/plots-venv/bin/python tools/plots/plots.py build native

.PHONY: bench-hf
bench-hf: build ## Hugging Face transformers beside barkd on one checkpoint of bark-small's shape; needs Python with venv, 9 GB of disk
	@cmake --build $(NATIVE) -j $(JOBS) --target bench_speech
	@[ -x build/hf-venv/bin/python ] || python3 -m venv build/hf-venv
	@build/hf-venv/bin/pip install -q -r tools/reference/requirements.txt
	@build/hf-venv/bin/python tools/reference/bench_hf.py -o build/bench-hf.json

QUALITY ?=
.PHONY: bench-quality
bench-quality: build ## what 16, 8 and 4 bits cost in quality, per stage; fails where 4 bits miss their gate; QUALITY=FOLDER or FILE.gguf of f32 or 8-bit weights, else random ones
	@cmake --build $(NATIVE) -j $(JOBS) --target bench_quality
	@tools/bench-quality $(QUALITY)

cycles: native ## 200 loads and closes of a model of bark-small's shape; memory must come back each time
	@[ -f build/bark-small-f16.gguf ] || go run ./tools/untrained -shape bark-small -type f16 -o build/bark-small-f16.gguf
	BARKD_MEMORY_CYCLES=200 BARKD_MEMORY_MODEL=$(CURDIR)/build/bark-small-f16.gguf \
	  go test ./cgo/native -count 1 -timeout 60m -v -run TestLoadAndCloseCyclesReturnTheMemory

fmt: ## format C++, CUDA and Go in place
	git ls-files 'native/*.cc' 'native/*.cu' 'native/*.cuh' 'native/*.h' 'native/*.c' 'server/*.[ch]' | xargs clang-format -i
	gofmt -w $$(git ls-files '*.go')

lint: ## what CI checks besides tests
	@tools/install-deps build test lint
	@git ls-files 'native/*.cc' 'native/*.cu' 'native/*.cuh' 'native/*.h' 'native/*.c' 'server/*.[ch]' | xargs clang-format --dry-run --Werror
	@bad=$$(gofmt -l $$(git ls-files '*.go')); [ -z "$$bad" ] || { echo "gofmt: $$bad"; exit 1; }
	@shellcheck tools/install-deps tools/stamp-native tools/arm64 tools/gpu tools/cuda-toolchain tools/cuda-log tools/voice/understood tools/fuzz tools/check-model tools/soak tools/browser-test/run tools/api-fuzz/run tools/conformance/run tools/bench-quality tools/image-test .ci/run
	go vet ./...
	go vet -tags emulated ./cgo ./cgo/native ./server
	CGO_ENABLED=0 go vet ./...
	go run honnef.co/go/tools/cmd/staticcheck@v0.8.2 ./...

sanitize: ## native tests under ASan and UBSan, the CUDA backend's on emulated devices
	@tools/install-deps build test
	$(CMAKE) -B build/sanitize -DBARKRT_SANITIZE=address,undefined -DBARKRT_EMULATION=ON -DBARKRT_BENCH=OFF
	cmake --build build/sanitize -j $(JOBS)
	ctest --test-dir build/sanitize --output-on-failure -j 2

# Tests of the CUDA backend on emulated devices: what sanitize has no time for, and the kernels with every load and
# store looked at.
TRACED := linear_test rowwise_test conv_test attention_test kv_cache_test draws_test gpt_test
EMULATION := execution_test divergence_test runtime_test tracing_test
EMULATED := $(CMAKE) -DBARKRT_EMULATION=ON -DBARKRT_BENCH=OFF
.PHONY: emulated
emulated: ## parity, and the server, on emulated CUDA devices; races, undefined and foreign memory of the kernels
	@tools/install-deps build test
	$(EMULATED) -B build/emulated -DCMAKE_CXX_FLAGS_RELEASE=-O2
	cmake --build build/emulated -j $(JOBS) --target parity_test session_test stages_test batch_test
	@GTEST_BRIEF=1 GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=0 build/emulated/native/tests/parity_test '--gtest_filter=*/cuda' & first=$$!; \
	GTEST_BRIEF=1 GTEST_TOTAL_SHARDS=2 GTEST_SHARD_INDEX=1 build/emulated/native/tests/parity_test '--gtest_filter=*/cuda' && \
	for name in session_test stages_test batch_test; do build/emulated/native/tests/$$name --gtest_brief=1 '--gtest_filter=*/cuda' || exit 1; done && wait $$first
	@tools/stamp-native
	BARKRT_EMULATED_ABORT=1 go test -tags emulated -count 1 -run Emulated ./cgo ./cgo/native ./server
	$(EMULATED) -B build/traced -DCMAKE_CXX_FLAGS_RELEASE=-O1 -DBARKRT_TRACED=ON
	cmake --build build/traced -j $(JOBS) --target $(TRACED) $(EMULATION)
	@for name in $(EMULATION); do build/traced/native/tests/emulation/$$name --gtest_brief=1 || exit 1; done
	@for name in $(TRACED); do build/traced/native/tests/$$name --gtest_brief=1 '--gtest_filter=*/cuda' || exit 1; done

ARM64 := linear_test attention_test kv_cache_test rowwise_test conv_test sampling_test draws_test gpt_test codec_test model_test engine_test capi_test
.PHONY: arm64
arm64: ## libbarkrt for ARM64 in build/arm64, its tests run by qemu; needs Debian's archive
	@tools/install-deps build test arm64
	@JOBS=$(JOBS) tools/arm64 $(ARM64)

RACY := engine_test batch_test session_test parallel_test
race: native ## Go tests under the race detector, native tests of threads under TSan
	go test -race ./...
	$(CMAKE) -B build/race -DBARKRT_SANITIZE=thread -DBARKRT_TESTS=ON -DBARKRT_BENCH=OFF
	cmake --build build/race -j $(JOBS) --target $(RACY)
	@for name in $(RACY); do build/race/native/tests/$$name --gtest_brief=1 || exit 1; done

fuzz: native ## every fuzz target, $(GOFUZZTIME) each
	@tools/fuzz $(GOFUZZTIME)

fuzz-api: build ## the HTTP API against its own document, by schemathesis, $(API_FUZZ_SECONDS) s; needs Python 3.10
	tools/api-fuzz/run $(API_FUZZ_SECONDS)

soak: native ## the server's soak test, $(SOAK), under a memory limit where a cgroup can be made
	@tools/soak $(SOAK)

load: build ## 1,000 connections for $(LOAD) on the simulated runtime, then SIGTERM; no answer lost, /health under $(HEALTH_P99)
	go run ./tools/load -for $(LOAD) -health-p99 $(HEALTH_P99)

understood: build ## speak sentences with the embedded model and have a recogniser write them down
	@tools/install-deps voice
	@tools/voice/understood

model: ## check the formal model of the model cache (cgo/cache/model)
	@tools/check-model

browser: build ## the web page in Chromium: by keyboard, by axe-core, in screenshots (build/browser); needs Node.js 20
	@tools/install-deps browser
	tools/browser-test/run

conformance: build ## the official clients of OpenAI, ElevenLabs and ollama against bin/barkd; needs Python 3.10 and Node.js 20
	@tools/install-deps conformance
	tools/conformance/run

deploy-test: build ## deploy/: three servers behind HAProxy, alert rules, the unit, the chart, routing
	@tools/install-deps deploy
	BARKD_BIN=$(CURDIR)/bin/barkd go test -count 1 -v ./deploy/... ./tools/routing
	go vet -C deploy/check ./...
	BARKD_BIN=$(CURDIR)/bin/barkd go test -C deploy/check -count 1 -v ./...

image-test: CUDA := OFF
image-test: build ## Dockerfile linted, built without a container engine, and served from; as root
	@tools/install-deps image
	@tools/cuda-toolchain
	tools/image-test

clean:
	rm -rf build bin cgo/native/barkrt_build.h cgo/native/default.gguf

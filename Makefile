# make demo    an example crash, explained (needs only Go)
# make build   bin/ksleuth, one static binary (needs only Go)
# make test    everything: tools, kernels, lint, tests (Debian; as root it installs what is missing)
# make lint    vet, gofmt, staticcheck
# make bench   speed beside crash, drgn and Unicorn
# make generate   generated code and the guests' BPF objects anew

SHELL := bash
.SHELLFLAGS := -euo pipefail -c
export CGO_ENABLED := 0

# Fetched kernels and generated dumps; package vm and scripts/kernels agree.
cache := $(or $(KSLEUTH_CACHE),$(or $(XDG_CACHE_HOME),$(HOME)/.cache)/ksleuth)
# The kernel whose debug info the judges get.
judged := 6.1

example := -t testdata/example.kdump
TESTFLAGS ?=

.PHONY: build demo test matrix tools kernels dumps lint bench generate

build:
	go build -trimpath -o bin/ksleuth ./cmd/ksleuth

demo: build
	@echo '== What crashed, and why? (Exit status 1 says that the kernel is at fault.)'
	bin/ksleuth $(example) report || test $$? = 1
	@echo
	@echo "== The kernel's own code, run offline on the dump: the store happens again."
	bin/ksleuth $(example) emulate --frame 0 --watch rbp || test $$? = 1
	@echo
	@echo '== The BPF program that crashed, as the kernel ran it, beside its source.'
	bin/ksleuth $(example) disasm prog:9/call_kfunc
	@echo
	@echo '== How the BPF programs, maps, links and trampolines hang together.'
	bin/ksleuth $(example) graph
	@echo
	@echo '== A tail call in machine code, explained.'
	bin/ksleuth $(example) disasm --explain prog:5/classify
	@echo
	@echo '== What the process had open, BPF programs, maps and links named.'
	bin/ksleuth $(example) files 89
	@echo
	@echo '== Any kernel object, typed, without debug info: the task that CPU 1 ran.'
	bin/ksleuth $(example) print 'per_cpu(runqueues, 1).curr->comm'

test: tools kernels lint dumps
	KSLEUTH_REQUIRE_VM=1 KSLEUTH_VMLINUX=$(cache)/kernels/$(judged)/vmlinux \
		go test -timeout 30m $(TESTFLAGS) ./...
	# The same package once more, judged by an emulator that ksleuth must not be linked with.
	KSLEUTH_REQUIRE_VM=1 go test -tags unicorn -run Unicorn -timeout 30m $(TESTFLAGS) ./emulate
	$(MAKE) matrix

running := ./ctype ./bpfsys ./bpfexpr ./pcapfilter ./hwbreak ./tracee ./guard ./probe

# What tests of these packages read of the running kernel, on every kernel.
matrix: kernels
	go build -o bin/vmexec ./internal/cmd/vmexec
	for k in 5.10 6.1 6.12 7.2; do go test -exec "$(CURDIR)/bin/vmexec -kernel $$k" $(TESTFLAGS) -run TestRunningKernel $(running); done

tools:
	scripts/tools

kernels: tools
	scripts/kernels
	scripts/kernels --dbg $(judged)
	scripts/kernels --bpftool
	scripts/kernels --bpftrace

# The dumps that several packages' tests share.
dumps: kernels
	go run ./internal/cmd/mkdumps

lint:
	go vet ./...
	go vet -tags unicorn ./emulate
	@files=$$(gofmt -l .); test -z "$$files" || { echo "gofmt would change: $$files" >&2; exit 1; }
	go tool staticcheck ./...
	go tool staticcheck -tags unicorn ./emulate

bench: tools kernels dumps
	go run ./internal/cmd/bench

generate:
	go generate ./...

#!/bin/sh
# Builds fixture.btf from fixture.c. Needs clang and llvm-objcopy.
set -e
cd "$(dirname "$0")"
clang -target bpf -g -O1 -ffile-compilation-dir=. -c fixture.c -o fixture.o
llvm-objcopy --dump-section .BTF=fixture.btf fixture.o
rm fixture.o

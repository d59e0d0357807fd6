"""Prints the stack of one task of an ELF dump: what "ksleuth bt PID" does."""
import re
import sys

import drgn
from drgn.helpers.linux.pid import find_task

dump, vmlinux, pid = sys.argv[1:]
prog = drgn.Program()
prog.set_core_dump(dump)
prog.load_debug_info([vmlinux])
# QEMU's dumps have physical addresses only, and this version of drgn wants the
# page of the top-level page table by its virtual one.
with open(dump, "rb") as f:
    info = f.read(1 << 16).decode("latin1")
pgd = int(re.search(r"SYMBOL\(swapper_pg_dir\)=(\w+)", info)[1], 16)
base = int(re.search(r"NUMBER\(phys_base\)=(-?\d+)", info)[1])
prog.add_memory_segment(
    pgd, 4096, lambda a, n, o, p: prog.read(a - 0xFFFFFFFF80000000 + base, n, True), False)
print(prog.stack_trace(find_task(prog, int(pid))))

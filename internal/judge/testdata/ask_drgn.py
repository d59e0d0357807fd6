"""Asks drgn what tests ask ksleuth, and prints one JSON object.

    ask_drgn.py DUMP VMLINUX < {"exprs": [python], "types": ["struct x"]}

Frames of inlined functions are left out: a program counter has one frame.
"""
import json
import re
import struct
import sys

import drgn
from drgn import Object, TypeKind, cast, container_of, offsetof, reinterpret, sizeof
from drgn.helpers.linux.cpumask import for_each_present_cpu
from drgn.helpers.linux.fs import d_path, for_each_file
from drgn.helpers.linux.list import list_for_each_entry
from drgn.helpers.linux.percpu import per_cpu, per_cpu_ptr
from drgn.helpers.linux.pid import find_task, for_each_pid
from drgn.helpers.linux.sched import task_state_to_char


def open_dump(dump, vmlinux):
    prog = drgn.Program()
    prog.set_core_dump(dump)
    prog.load_debug_info([vmlinux])
    # QEMU's ELF dumps have physical addresses only. This version of drgn wants
    # the page of the top-level page table by its virtual address; from there
    # it walks by itself.
    with open(dump, "rb") as f:
        info = f.read(1 << 16).decode("latin1")
    pgd = int(re.search(r"SYMBOL\(swapper_pg_dir\)=(\w+)", info)[1], 16)
    base = int(re.search(r"NUMBER\(phys_base\)=(-?\d+)", info)[1])
    prog.add_memory_segment(
        pgd, 4096,
        lambda addr, n, offset, physical: prog.read(addr - 0xFFFFFFFF80000000 + base, n, True),
        False)
    return prog


CALLEE_SAVED = ["rbx", "rbp", "rsp", "r12", "r13", "r14", "r15"]


def frames(trace):
    """What a stack trace says, innermost first, without the user's frames, and
    whether drgn itself says that it lost its way."""
    out = []
    for f in trace:
        if f.is_inline:
            continue
        try:
            pc = f.pc
        except LookupError:
            return out, True
        if pc < 1 << 63:
            break
        try:
            # As drgn itself looks up a frame: by the call, not by what is behind it.
            name = prog.symbol(f.pc if f.interrupted else f.pc - 1).name
        except LookupError:
            name = ""
        known = f.registers()
        out.append({"pc": hex(f.pc), "symbol": name, "regs": {r: hex(known[r]) for r in CALLEE_SAVED if r in known}})
    return out, False


def registers(cpu):
    """A running CPU's stack, from its PRSTATUS note. prog.stack_trace(task)
    finds it only where the note has the task's pid: QEMU's have the number of
    the CPU plus one."""
    with open(sys.argv[1], "rb") as f:
        head = f.read(1 << 16)
    at = [m.start() for m in re.finditer(rb"CORE\0", head)][cpu]
    desc = at + 8
    assert struct.unpack_from("<III", head, at - 12) == (5, 336, 1)  # NT_PRSTATUS
    return prog.stack_trace(Object.from_bytes_(prog, "struct pt_regs", head[desc + 112:desc + 112 + 21 * 8]))


def sleeping(task):
    """The stack of a task that sleeps and has the pid of such a note."""
    saved = Object(prog, "struct inactive_task_frame *", task.thread.sp)
    regs = Object(prog, "struct pt_regs", {
        "ip": saved.ret_addr.value_(), "sp": saved.value_() + sizeof(saved[0]),
        "bp": saved.bp.value_(), "bx": saved.bx.value_(), "cs": 0x10,
        "r12": saved.r12.value_(), "r13": saved.r13.value_(),
        "r14": saved.r14.value_(), "r15": saved.r15.value_(),
    })
    return prog.stack_trace(regs)


def threads():
    """Each task with the CPU it runs on, or None."""
    running = {}
    for cpu in for_each_present_cpu(prog):
        rq = per_cpu(prog["runqueues"], cpu)
        running[rq.curr.value_()] = cpu
        yield rq.idle, running.get(rq.idle.value_())
    for leader in list_for_each_entry("struct task_struct", prog["init_task"].tasks.address_of_(), "tasks"):
        for t in list_for_each_entry("struct task_struct", leader.signal.thread_head.address_of_(), "thread_node"):
            yield t, running.get(t.value_())


def tasks():
    for t, cpu in threads():
        if cpu is not None:
            trace, how = registers(cpu), "the CPU's registers"
        elif t.pid.value_() == t.thread_info.cpu.value_() + 1:
            trace, how = sleeping(t), "inactive_task_frame"
        else:
            trace, how = prog.stack_trace(t), "task_struct"
        known, lost = frames(trace)
        yield {
            "addr": hex(t.value_()), "pid": t.pid.value_(), "tgid": t.tgid.value_(),
            "ppid": t.real_parent.tgid.value_(), "comm": t.comm.string_().decode(),
            "state": task_state_to_char(t), "cpu": t.thread_info.cpu.value_(),
            "kernel_thread": bool(t.flags & 0x200000), "running": cpu is not None,
            "frames": known, "lost": lost, "unwound": how,
        }


def files():
    for leader in list_for_each_entry("struct task_struct", prog["init_task"].tasks.address_of_(), "tasks"):
        if not leader.files:
            continue
        for fd, f in for_each_file(leader):
            yield {
                "pid": leader.pid.value_(), "fd": fd, "addr": hex(f.value_()),
                "path": d_path(f.f_path).decode(), "private": hex(f.private_data.value_()),
                "ops": prog.symbol(f.f_op.value_()).name,
            }


def modules():
    for m in list_for_each_entry("struct module", prog["modules"].address_of_(), "list"):
        yield {
            "name": m.name.string_().decode(), "addr": hex(m.value_()),
            "base": hex(m.core_layout.base.value_()), "size": m.core_layout.size.value_(),
            "refs": m.refcnt.counter.value_() - 1,
        }


def plain(o):
    """An object as data: as ksleuth's print has it, but arrays are whole and
    text is a list of its bytes."""
    if not isinstance(o, Object):
        return int(o)
    t = o.type_
    while t.kind == TypeKind.TYPEDEF:
        t = t.type
    if t.kind in (TypeKind.STRUCT, TypeKind.UNION):
        return {"record": list(members(o, t))}
    if t.kind == TypeKind.ARRAY:
        return {"array": [plain(o[i]) for i in range(t.length or 0)]}
    if t.kind == TypeKind.POINTER:
        return {"pointer": hex(o.value_())}
    if t.kind == TypeKind.FUNCTION:
        return {"pointer": hex(o.address_)}
    if t.kind == TypeKind.ENUM:
        v = o.value_()
        return {"names": [e.name for e in t.enumerators if e.value == v] if t.enumerators else [], "value": v}
    return int(o.value_())


def members(o, t):
    for m in t.members:
        if m.name is not None:
            yield [m.name, plain(o.member_(m.name))]
            continue
        if m.bit_field_size:
            continue
        u = m.type
        yield from members(reinterpret(u, drgn.Object(prog, u, address=o.address_ + m.offset)), u)


def evaluate(expr):
    try:
        return {"value": plain(eval(expr, globals()))}
    except Exception as e:  # whatever drgn cannot do is for the test to judge
        return {"error": f"{type(e).__name__}: {e}"}


def layout(name):
    try:
        t = prog.type(name)
    except LookupError as e:
        return {"error": str(e)}
    return {"size": t.size, "members": [
        {"name": m.name or "", "bit": m.bit_offset, "bits": m.bit_field_size or 0} for m in t.members or []]}


prog = open_dump(sys.argv[1], sys.argv[2])
request = json.load(sys.stdin)
json.dump({
    "tasks": list(tasks()), "files": list(files()), "modules": list(modules()),
    "exprs": [evaluate(e) for e in request["exprs"] or []],
    "types": [layout(t) for t in request["types"] or []],
}, sys.stdout)

package tracee

// Help is how functions are named, as a text for people: the grammar of
// [Resolve].
const Help = `BPF programs, each by its main function:
  prog:WHICH         by id, name, tag, type or pinned path
  prog:WHICH/FUNC    a function of one
  type:TYPE          all of a type, as type:xdp
  pin:PATH           what is pinned there: a program, a link, a program array
  pid:PID            all that a process holds, itself or by a link
  link:WHICH         that of a link, by id, type or pinned path
  map:WHICH          those in a program array, by id, name or pinned path
  xdp@DEVICE         those at work on a network device, in this network
  tc@DEVICE          namespace; tc is filters, tcx and netkit together.
  tcx@DEVICE         A direction may follow: tc@eth0:ingress
  netkit@DEVICE
  cgroup@PATH        those attached to a cgroup; a hook may follow, as
                     cgroup@/user.slice:inet4_connect
Functions of the kernel:
  FUNC               of the kernel and its modules
  MODULE:FUNC        of one module; vmlinux: is the kernel without them
Tracepoints:
  tracepoint:NAME    or tp:NAME, or tp:CATEGORY:NAME
In all of these but numbers * ? and [] stand for parts of a name. A word alone is
a function of the kernel; if there is none, a BPF program, or else a function of
one, of that name.`

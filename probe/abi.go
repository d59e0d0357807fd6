package probe

// The memory that generated code finds at R1, struct call of probe.bpf.c:
// offsets in bytes. Numbers are 64-bit, but those marked.
const (
	CallArgs     = 0   // u64[MaxArgs]
	CallRet      = 96  // r0; at the entry 0
	CallStart    = 104 // ns; 0 if not known
	CallNow      = 112 // ns
	CallPidTgid  = 120 // process << 32 | thread
	CallUidGid   = 128 // gid << 32 | uid
	CallCgroup   = 136 // id of the cgroup (v2)
	CallCPU      = 144 // u32
	CallFaults   = 148 // u32: generated code adds 1 for memory it could not read
	CallComm     = 152 // char[16]
	CallSize     = 168
	MaxArgs      = 12
	GeneratedMax = 200 // bytes of BPF stack that generated code may use
)

// The memory that a packet filter finds at R1, struct packet of probe.bpf.c.
const (
	PacketStart = 0  // u64: address in kernel memory of the first byte
	PacketHead  = 8  // u32: bytes that stand there in one piece
	PacketLen   = 12 // u32: bytes of the packet in all
	PacketShort = 16 // u32: generated code sets it to 1 if the filter asked for bytes within Len beyond Head
	PacketSize  = 24
)

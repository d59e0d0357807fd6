package culprit

import (
	"context"
	"testing"

	"github.com/go-quicktest/qt"

	"github.com/ksleuth/ksleuth/emulate"
	"github.com/ksleuth/ksleuth/mem"
)

const (
	codeAt  = 0xffffffff81000000
	stackAt = 0xffffc90000000000
)

// TestOverwritten runs code that comes to a fault, and looks for what overwrote
// a saved register: there is something only where a register that functions keep
// for their callers was.
func TestOverwritten(t *testing.T) {
	for _, test := range []struct {
		name string
		code []byte
		reg  string // "" where nothing was overwritten
		at   uint64 // offset of the store
		len  int
	}{
		{
			name: "four bytes into a saved rbx",
			code: []byte{
				0xe8, 0x03, 0, 0, 0, // call f
				0x48, 0x8b, 0x03, // mov (%rbx),%rax: the fault
				0x53,                                           // f: push %rbx
				0xc7, 0x44, 0x24, 0x03, 0xea, 0xff, 0xff, 0xff, // movl $-22,0x3(%rsp)
				0x5b, // pop %rbx
				0xc3, // ret
			},
			reg: "rbx", at: 9, len: 4,
		},
		{
			name: "a register that was not touched",
			code: []byte{
				0xe8, 0x05, 0, 0, 0, // call f
				0x31, 0xdb, // xor %ebx,%ebx
				0x48, 0x8b, 0x03, // mov (%rbx),%rax: the fault
				0x53, // f: push %rbx
				0x5b, // pop %rbx
				0xc3, // ret
			},
		},
		{
			name: "room made by push, for a local variable",
			code: []byte{
				0x51,                                     // push %rcx
				0xc7, 0x04, 0x24, 0x78, 0x56, 0x34, 0x12, // movl $0x12345678,(%rsp)
				0x59,             // pop %rcx
				0x48, 0x8b, 0x01, // mov (%rcx),%rax: the fault
			},
		},
		{
			name: "a number written in two halves",
			code: []byte{
				0x48, 0x89, 0x5c, 0x24, 0xf0, // mov %rbx,-0x10(%rsp)
				0xc7, 0x44, 0x24, 0xf0, 1, 0, 0, 0, // movl $1,-0x10(%rsp)
				0xc7, 0x44, 0x24, 0xf4, 2, 0, 0, 0, // movl $2,-0xc(%rsp)
				0x48, 0x8b, 0x5c, 0x24, 0xf0, // mov -0x10(%rsp),%rbx
				0x48, 0x8b, 0x03, // mov (%rbx),%rax: the fault
			},
		},
		{
			name: "an indirect call through a thunk, to nowhere",
			code: []byte{
				0xb8, 0x10, 0, 0, 0, // mov $0x10,%eax
				0xe8, 0x01, 0, 0, 0, // call thunk
				0xf4,                // hlt
				0xe8, 0x01, 0, 0, 0, // thunk: call 1f
				0xcc,                   // int3
				0x48, 0x89, 0x04, 0x24, // 1: mov %rax,(%rsp)
				0xc3, // ret
			},
		},
		{
			name: "a return address",
			code: []byte{
				0xe8, 0x01, 0, 0, 0, // call f
				0xf4,                                     // hlt
				0xc7, 0x04, 0x24, 0xea, 0xff, 0xff, 0xff, // f: movl $-22,(%rsp)
				0x90, // nop
				0xc3, // ret
			},
			reg: "rip", at: 6, len: 4,
		},
		{
			name: "a frame pointer, that the stack pointer is taken from",
			code: []byte{
				0x55,             // push %rbp
				0x48, 0x89, 0xe5, // mov %rsp,%rbp
				0xe8, 0x02, 0, 0, 0, // call f
				0xc9,             // leave: the fault, at a wrong rbp
				0xc3,             // ret
				0x55,             // f: push %rbp
				0x48, 0x89, 0xe5, // mov %rsp,%rbp
				0xc6, 0x45, 0x05, 0x7f, // movb $0x7f,0x5(%rbp)
				0xc9, // leave
				0xc3, // ret
			},
			reg: "rbp", at: 15, len: 1,
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			page := make([]byte, 4096)
			copy(page, test.code)
			m := emulate.New(emulate.NewMemory(mem.Snapshot{Base: codeAt, Data: page}), emulate.Options{History: 1 << 16})
			m.Mem.Map(stackAt, 4096)
			m.GP[emulate.RSP] = stackAt + 2048
			m.GP[emulate.RBX] = stackAt // good before
			s := m.Call(context.Background(), codeAt)
			qt.Assert(t, qt.Equals(s.Outcome, emulate.Faulted), qt.Commentf("%v", s.Err))
			o, ok := overwritten(m, s.RIP)
			qt.Assert(t, qt.Equals(ok, test.reg != ""))
			if !ok {
				return
			}
			qt.Check(t, qt.Equals(o.reg, test.reg))
			qt.Check(t, qt.Equals(o.store.Inst.Addr, codeAt+test.at))
			qt.Check(t, qt.Equals(o.len, test.len))
		})
	}
}

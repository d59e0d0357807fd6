package cli

import (
	"errors"
	"strings"

	"github.com/spf13/cobra"

	"github.com/ksleuth/ksleuth/ctype"
	"github.com/ksleuth/ksleuth/render"
)

// typeData is the JSON form of a type.
type typeData struct {
	Name    string       `json:"name"`
	Kind    string       `json:"kind"`
	Size    int          `json:"size"`
	Members []memberData `json:"members,omitempty"`
	Values  []valueData  `json:"values,omitempty"`
	Text    string       `json:"text"` // as C
}

type memberData struct {
	Name    string `json:"name"` // "" for an anonymous struct or union
	Type    string `json:"type"`
	Offset  uint32 `json:"offset"` // bytes
	Bit     uint32 `json:"bit,omitempty"`
	BitSize uint32 `json:"bit_size,omitempty"`
}

type valueData struct {
	Name  string `json:"name"`
	Value int64  `json:"value"`
}

func typeInfo(t *ctype.Type) typeData {
	d := typeData{Name: t.String(), Kind: t.Kind().String(), Text: ctype.FormatType(t)}
	d.Size, _ = t.Size() // 0 for what has none
	for _, m := range t.Members() {
		md := memberData{Name: m.Name, Type: m.Type.String(), Offset: m.Offset / 8, BitSize: m.BitSize}
		if m.BitSize != 0 {
			md.Bit = m.Offset % 8
		}
		d.Members = append(d.Members, md)
	}
	for _, e := range t.Enumerators() {
		d.Values = append(d.Values, valueData{e.Name, int64(e.Value)})
	}
	return d
}

func (a *app) typeCommand() *cobra.Command {
	return &cobra.Command{
		Use:     "type NAME",
		Aliases: []string{"whatis", "struct"},
		Short:   "A C type with offsets, sizes and holes",
		GroupID: groupInspect,
		Example: `  ksleuth -t vmcore type 'struct bpf_prog'
  ksleuth -t vmcore type bpf_prog_aux
  ksleuth -t vmcore type nf_conn              # types of modules, too`,
		Args: atLeast(1, "the name of a type"),
		RunE: func(_ *cobra.Command, args []string) error {
			types, modules, err := a.openTypes()
			if err != nil {
				return err
			}
			name := strings.Join(args, " ")
			t, err := types.Lookup(name)
			if err != nil {
				parsed, perr := types.ParseType(name) // "struct foo *" and the like
				if perr != nil {
					return asked(errors.Join(err, modules()))
				}
				t = parsed
			}
			return a.emit("type", typeInfo(t), func(p *render.Printer) { p.Printf("%s", ctype.FormatType(t)) })
		},
	}
}

package cexpr

// A Node is a part of a parsed expression. Nodes know nothing of values: the
// same tree can be evaluated or compiled.
type Node interface {
	Pos() int // byte offset of the first character in the source
}

// An Expr is a parsed expression.
type Expr struct {
	Src  string
	Root Node
}

// The nodes.
type (
	// Ident is a name: a variable, an enumerator or a function.
	Ident struct {
		At   int
		Name string
	}

	// IntLit is an integer or character constant.
	IntLit struct {
		At    int
		Text  string
		Value uint64
		Type  string // as C types it: "int", "unsigned int", "long", "unsigned long"
	}

	// StringLit is a string, without quotes and with its escapes resolved.
	StringLit struct {
		At    int
		Value string
	}

	// Unary is a prefix operator: + - ! ~ * &.
	Unary struct {
		At int
		Op Token
		X  Node
	}

	// Binary is an infix operator.
	Binary struct {
		OpAt int
		Op   Token
		X, Y Node
	}

	// Cond is Test ? Then : Else.
	Cond struct {
		Test, Then, Else Node
	}

	// Cast is (Type)X.
	Cast struct {
		At   int
		Type *TypeName
		X    Node
	}

	// Sizeof is sizeof X or sizeof(Type); one of them is nil.
	Sizeof struct {
		At   int
		X    Node
		Type *TypeName
	}

	// Member is X.Name or X->Name.
	Member struct {
		X      Node
		Arrow  bool
		NameAt int
		Name   string
	}

	// Index is X[I].
	Index struct {
		X, I Node
	}

	// Call is a call of a built-in function. Arguments may be a *TypeName.
	Call struct {
		Fun  *Ident
		Args []Node
		End  int // behind the closing parenthesis
	}

	// TypeName is a type as written, for ctype.Types.ParseType.
	TypeName struct {
		At   int
		Text string
	}
)

// Pos implements [Node].
func (n *Ident) Pos() int { return n.At }

// Pos implements [Node].
func (n *IntLit) Pos() int { return n.At }

// Pos implements [Node].
func (n *StringLit) Pos() int { return n.At }

// Pos implements [Node].
func (n *Unary) Pos() int { return n.At }

// Pos implements [Node].
func (n *Binary) Pos() int { return n.X.Pos() }

// Pos implements [Node].
func (n *Cond) Pos() int { return n.Test.Pos() }

// Pos implements [Node].
func (n *Cast) Pos() int { return n.At }

// Pos implements [Node].
func (n *Sizeof) Pos() int { return n.At }

// Pos implements [Node].
func (n *Member) Pos() int { return n.X.Pos() }

// Pos implements [Node].
func (n *Index) Pos() int { return n.X.Pos() }

// Pos implements [Node].
func (n *Call) Pos() int { return n.Fun.At }

// Pos implements [Node].
func (n *TypeName) Pos() int { return n.At }

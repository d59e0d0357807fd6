package ctype

import "strings"

// builtins are the types every C program on x86-64 has, in C's spelling, and
// the kernel's short names, which a BTF may lack. LP64: System V psABI 3.1.2.
var builtins = map[string]*Type{
	"void":               voidType,
	"_Bool":              {kind: Int, name: "_Bool", size: 1, enc: encBool},
	"bool":               {kind: Int, name: "bool", size: 1, enc: encBool},
	"char":               {kind: Int, name: "char", size: 1, enc: encSigned},
	"signed char":        {kind: Int, name: "signed char", size: 1, enc: encSigned},
	"unsigned char":      {kind: Int, name: "unsigned char", size: 1},
	"short":              {kind: Int, name: "short", size: 2, enc: encSigned},
	"unsigned short":     {kind: Int, name: "unsigned short", size: 2},
	"int":                {kind: Int, name: "int", size: 4, enc: encSigned},
	"unsigned int":       {kind: Int, name: "unsigned int", size: 4},
	"long":               {kind: Int, name: "long", size: 8, enc: encSigned},
	"unsigned long":      {kind: Int, name: "unsigned long", size: 8},
	"long long":          {kind: Int, name: "long long", size: 8, enc: encSigned},
	"unsigned long long": {kind: Int, name: "unsigned long long", size: 8},
	"__int128":           {kind: Int, name: "__int128", size: 16, enc: encSigned},
	"unsigned __int128":  {kind: Int, name: "unsigned __int128", size: 16},
	"float":              {kind: Float, name: "float", size: 4},
	"double":             {kind: Float, name: "double", size: 8},
	"u8":                 {kind: Int, name: "u8", size: 1},
	"u16":                {kind: Int, name: "u16", size: 2},
	"u32":                {kind: Int, name: "u32", size: 4},
	"u64":                {kind: Int, name: "u64", size: 8},
	"s8":                 {kind: Int, name: "s8", size: 1, enc: encSigned},
	"s16":                {kind: Int, name: "s16", size: 2, enc: encSigned},
	"s32":                {kind: Int, name: "s32", size: 4, enc: encSigned},
	"s64":                {kind: Int, name: "s64", size: 8, enc: encSigned},
	"size_t":             {kind: Int, name: "size_t", size: 8},
	"ssize_t":            {kind: Int, name: "ssize_t", size: 8, enc: encSigned},
	"uintptr_t":          {kind: Int, name: "uintptr_t", size: 8},
}

// Builtin returns a type that needs no BTF: C's own, spelled as C prefers
// ("unsigned long"), u8 to u64, s8 to s64, size_t; nil for other names.
func Builtin(name string) *Type { return builtins[name] }

// intWords are the keywords that make up the names of C's integers.
var intWords = map[string]bool{
	"char": true, "short": true, "int": true, "long": true, "signed": true, "unsigned": true,
	"_Bool": true, "void": true, "float": true, "double": true, "__int128": true,
}

// qualifierWords do not change what a type is like in memory. GCC's other
// spellings occur in kernel headers.
var qualifierWords = map[string]Kind{
	"const": Const, "volatile": Volatile, "restrict": Restrict,
	"__const": Const, "__volatile__": Volatile, "__restrict": Restrict,
}

// IsTypeWord says whether a word can only begin or continue a type name in C:
// a keyword of the integers, a qualifier, struct, union or enum.
func IsTypeWord(word string) bool {
	if intWords[word] || word == "struct" || word == "union" || word == "enum" {
		return true
	}
	_, ok := qualifierWords[word]
	return ok
}

// integer returns the type that integer keywords, in any order, name: "long
// unsigned int" is "unsigned long". C17 6.7.2 lists the combinations.
func integer(words []string) *Type {
	n := map[string]int{}
	for _, w := range words {
		n[w]++
	}
	if len(words) == 1 && builtins[words[0]] != nil {
		return builtins[words[0]]
	}
	var name []string
	if n["unsigned"] > 0 {
		name = append(name, "unsigned")
	}
	base := ""
	for _, w := range [...]string{"char", "short", "__int128"} {
		if n[w] > 0 {
			if base != "" {
				return nil
			}
			base = w
		}
	}
	switch {
	case n["_Bool"]+n["void"]+n["float"]+n["double"] > 0, n["signed"]+n["unsigned"] > 1,
		n["int"] > 1, n["char"] > 1, n["short"] > 1, n["long"] > 2,
		n["long"] > 0 && base != "", n["int"] > 0 && base != "" && base != "short":
		return nil
	case base == "char" && n["signed"] > 0:
		name = append(name, "signed")
	case n["long"] == 2:
		base = "long long"
	case n["long"] == 1:
		base = "long"
	case base == "":
		base = "int"
	}
	return builtins[strings.Join(append(name, base), " ")]
}

package main

import (
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strings"
)

// finder collects the mutants of a file.
type finder struct {
	pkg      *pkg
	name     string // path of the file, relative to the module
	src      []byte
	file     *token.File
	info     *types.Info
	function string
	seen     map[string]int // how often each key occurred
	found    []*mutant
}

// mutants returns every mutant of a package, including those that do not compile.
func (p *pkg) mutants() []*mutant {
	var all []*mutant
	for _, name := range p.names {
		f := &finder{
			pkg: p, name: name, src: p.sources[name], file: p.fset.File(p.files[name].FileStart), info: p.info, seen: map[string]int{},
		}
		for _, declaration := range p.files[name].Decls {
			f.function = functionName(declaration)
			ast.PreorderStack(declaration, nil, f.visit)
		}
		all = append(all, f.found...)
	}
	return all
}

func functionName(declaration ast.Decl) string {
	function, ok := declaration.(*ast.FuncDecl)
	if !ok {
		return "-"
	}
	if function.Recv == nil {
		return function.Name.Name
	}
	receiver := types.ExprString(function.Recv.List[0].Type)
	if strings.HasPrefix(receiver, "*") {
		receiver = "(" + receiver + ")"
	}
	return receiver + "." + function.Name.Name
}

// add adds the mutant that replaces the bytes from start to end with text. The mutant's
// key shows the source of the node context.
func (f *finder) add(operator string, context ast.Node, start, end token.Pos, text string) {
	position := f.file.Position(start)
	from, to := f.offset(context.Pos()), f.offset(context.End())
	m := &mutant{
		pkg: f.pkg, file: f.name, function: f.function, operator: operator, line: position.Line, col: position.Column,
		start: f.offset(start), end: f.offset(end), text: text, before: oneLine(f.src[from:to]), nth: 1,
	}
	m.after = oneLine(slices.Concat(f.src[from:m.start], []byte(text), f.src[m.end:to]))
	key := m.key()
	f.seen[key]++
	m.nth = f.seen[key]
	f.found = append(f.found, m)
}

func (f *finder) offset(pos token.Pos) int { return f.file.Offset(pos) }

func (f *finder) text(n ast.Node) string { return string(f.src[f.offset(n.Pos()):f.offset(n.End())]) }

// around returns the expression or simple statement around a literal, which a mutant's
// key shows.
func around(n ast.Node, stack []ast.Node) ast.Node {
	for i := len(stack) - 1; i >= 0; i-- {
		switch parent := stack[i].(type) {
		case *ast.UnaryExpr, *ast.ParenExpr:
			continue
		case *ast.BinaryExpr, *ast.CallExpr, *ast.IndexExpr, *ast.SliceExpr, *ast.KeyValueExpr,
			*ast.AssignStmt, *ast.ReturnStmt, *ast.ValueSpec:
			return parent
		}
		return n
	}
	return n
}

func oneLine(src []byte) string { return strings.Join(strings.Fields(string(src)), " ") }

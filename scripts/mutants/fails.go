package main

import (
	"go/ast"
	"go/token"
	"go/types"
)

// isBesideError reports whether a literal is a result that no caller may use, because the
// same return statement returns an error. stack holds the nodes around the literal.
func (f *finder) isBesideError(literal ast.Expr, stack []ast.Node) bool {
	for i := len(stack) - 1; i >= 0; i-- {
		switch parent := stack[i].(type) {
		case *ast.UnaryExpr, *ast.ParenExpr:
			continue
		case *ast.ReturnStmt:
			last := parent.Results[len(parent.Results)-1]
			return literal.End() < last.Pos() && f.isError(last) && f.fails(last, stack[:i])
		}
		return false
	}
	return false
}

var errorInterface, _ = types.Universe.Lookup("error").Type().Underlying().(*types.Interface)

func (f *finder) isError(n ast.Expr) bool {
	t := f.info.TypeOf(n)
	return t != nil && types.Implements(t, errorInterface)
}

// failing are functions of other packages that return an error. The value is true for a
// function that returns nil if its first argument is nil.
var failing = map[string]bool{"fmt.Errorf": false, "errors.New": false, "hint.Add": true}

// fails reports whether an error is certainly not nil.
func (f *finder) fails(n ast.Expr, stack []ast.Node) bool {
	if !types.IsInterface(f.info.TypeOf(n)) {
		return true
	}
	switch n := n.(type) {
	case *ast.Ident:
		return f.isSentinel(n) || f.isChecked(f.info.Uses[n], n.Pos(), stack)
	case *ast.SelectorExpr:
		return f.isSentinel(n.Sel)
	case *ast.CallExpr:
		first, known := failing[types.ExprString(n.Fun)]
		return known && (!first || f.fails(n.Args[0], stack)) || f.alwaysFails(n.Fun)
	}
	return false
}

// isSentinel reports whether a name is that of a package's variable, as errors.ErrUnsupported.
func (f *finder) isSentinel(n *ast.Ident) bool {
	value, ok := f.info.Uses[n].(*types.Var)
	return ok && value.Pkg() != nil && value.Parent() == value.Pkg().Scope()
}

// isChecked reports whether a condition around a place says that a variable is not nil.
func (f *finder) isChecked(value types.Object, place token.Pos, stack []ast.Node) bool {
	for _, n := range stack {
		switch n := n.(type) {
		case *ast.IfStmt:
			if n.Body.Pos() < place && place < n.Body.End() && f.impliesError(n.Cond, value) {
				return true
			}
		case *ast.CaseClause:
			if len(n.List) == 1 && f.impliesError(n.List[0], value) {
				return true
			}
		}
	}
	return false
}

// impliesError reports whether a variable is not nil if a condition is true.
func (f *finder) impliesError(condition ast.Expr, value types.Object) bool {
	is := func(n ast.Expr) bool {
		name, ok := n.(*ast.Ident)
		return ok && f.info.Uses[name] == value
	}
	switch n := condition.(type) {
	case *ast.BinaryExpr:
		switch n.Op {
		case token.LAND:
			return f.impliesError(n.X, value) || f.impliesError(n.Y, value)
		case token.LOR:
			return f.impliesError(n.X, value) && f.impliesError(n.Y, value)
		case token.NEQ:
			return is(n.X) && f.info.Types[n.Y].IsNil()
		}
	case *ast.CallExpr:
		name := types.ExprString(n.Fun)
		return (name == "errors.Is" || name == "errors.As") && is(n.Args[0])
	}
	return false
}

// alwaysFails reports whether a function of this package returns in all cases an error
// that the statement itself makes.
func (f *finder) alwaysFails(function ast.Expr) bool {
	name, ok := function.(*ast.Ident)
	if !ok {
		return false
	}
	object, ok := f.info.Uses[name].(*types.Func)
	if !ok || object.Pkg().Path() != f.pkg.path {
		return false
	}
	for _, file := range f.pkg.files {
		for _, declaration := range file.Decls {
			if d, ok := declaration.(*ast.FuncDecl); ok && d.Recv == nil && d.Name.Name == name.Name {
				return makesErrors(d)
			}
		}
	}
	return false
}

// makesErrors reports whether each return statement of a function returns the address of
// a new value.
func makesErrors(function *ast.FuncDecl) bool {
	found, all := false, true
	ast.Inspect(function, func(n ast.Node) bool {
		if r, ok := n.(*ast.ReturnStmt); ok {
			found = true
			address, ok := r.Results[len(r.Results)-1].(*ast.UnaryExpr)
			all = all && ok && address.Op == token.AND
		}
		return true
	})
	return found && all
}

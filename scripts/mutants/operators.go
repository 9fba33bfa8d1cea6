package main

import (
	"go/ast"
	"go/constant"
	"go/token"
	"go/types"
	"strings"
)

// swaps lists for each operator those that replace it. Each makes one mutant.
var swaps = map[token.Token][]token.Token{
	token.EQL: {token.NEQ}, token.NEQ: {token.EQL},
	token.LSS: {token.LEQ, token.GEQ}, token.LEQ: {token.LSS, token.GTR},
	token.GTR: {token.GEQ, token.LEQ}, token.GEQ: {token.GTR, token.LSS},
	token.LAND: {token.LOR}, token.LOR: {token.LAND},
	token.ADD: {token.SUB}, token.SUB: {token.ADD}, token.MUL: {token.QUO}, token.QUO: {token.MUL}, token.REM: {token.MUL},
	token.AND: {token.OR}, token.OR: {token.AND}, token.XOR: {token.AND}, token.AND_NOT: {token.AND},
	token.SHL: {token.SHR}, token.SHR: {token.SHL},
	token.ADD_ASSIGN: {token.SUB_ASSIGN}, token.SUB_ASSIGN: {token.ADD_ASSIGN},
	token.MUL_ASSIGN: {token.QUO_ASSIGN}, token.QUO_ASSIGN: {token.MUL_ASSIGN}, token.REM_ASSIGN: {token.MUL_ASSIGN},
	token.AND_ASSIGN: {token.OR_ASSIGN}, token.OR_ASSIGN: {token.AND_ASSIGN}, token.XOR_ASSIGN: {token.AND_ASSIGN},
	token.AND_NOT_ASSIGN: {token.AND_ASSIGN}, token.SHL_ASSIGN: {token.SHR_ASSIGN}, token.SHR_ASSIGN: {token.SHL_ASSIGN},
	token.INC: {token.DEC}, token.DEC: {token.INC},
}

// operatorName returns the kind of fault that replacing one operator with another is.
func operatorName(from, to token.Token) string {
	switch {
	case from == token.LAND || from == token.LOR:
		return "logic"
	case from == token.EQL || from == token.NEQ:
		return "negated"
	case strings.TrimSuffix(from.String(), "=") == strings.TrimSuffix(to.String(), "="):
		return "boundary"
	case from.Precedence() == token.EQL.Precedence():
		return "negated"
	default:
		return "arithmetic"
	}
}

// visit adds the mutants of one node, and reports whether to visit its children.
func (f *finder) visit(n ast.Node, stack []ast.Node) bool {
	switch n := n.(type) {
	case *ast.BinaryExpr:
		f.swap(n, n.Op, n.OpPos)
	case *ast.IncDecStmt:
		f.swap(n, n.Tok, n.TokPos)
		f.remove(n)
	case *ast.AssignStmt:
		f.swap(n, n.Tok, n.TokPos)
		if n.Tok != token.DEFINE {
			f.remove(n)
		}
	case *ast.UnaryExpr:
		if (n.Op == token.NOT || n.Op == token.SUB || n.Op == token.XOR) && !f.isBesideError(n, stack) {
			f.add("operand alone", n, n.OpPos, n.X.Pos(), "")
		}
	case *ast.BasicLit:
		f.integer(n, stack)
	case *ast.Ident:
		f.boolean(n, stack)
	case *ast.CallExpr:
		f.arguments(n)
	default:
		return f.statement(n)
	}
	return true
}

// statement adds the mutants of a statement that is not an assignment.
func (f *finder) statement(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.IfStmt:
		f.condition(n.Cond)
	case *ast.ForStmt:
		f.condition(n.Cond)
	case *ast.ReturnStmt:
		f.results(n)
	case *ast.ExprStmt:
		if f.isLog(n.X) {
			return false
		}
		f.remove(n)
	case *ast.DeferStmt, *ast.GoStmt, *ast.SendStmt:
		f.remove(n)
	case *ast.BranchStmt:
		if n.Tok == token.BREAK || n.Tok == token.CONTINUE {
			f.remove(n)
		}
	}
	return true
}

func (f *finder) swap(n ast.Node, op token.Token, pos token.Pos) {
	for _, other := range swaps[op] {
		f.add(operatorName(op, other), n, pos, pos+token.Pos(len(op.String())), other.String())
	}
}

// remove adds a mutant without the statement.
func (f *finder) remove(n ast.Node) { f.add("removed", n, n.Pos(), n.End(), "") }

// integer adds mutants with a literal that is one more or one less. Where the value is
// part of a type, as in the length of an array, the mutant does not compile.
func (f *finder) integer(n *ast.BasicLit, stack []ast.Node) {
	if n.Kind != token.INT || f.isBesideError(n, stack) {
		return
	}
	value := constant.MakeFromLiteral(n.Value, token.INT, 0)
	for _, op := range []token.Token{token.ADD, token.SUB} {
		other := constant.BinaryOp(value, op, constant.MakeInt64(1))
		f.add("constant", around(n, stack), n.Pos(), n.End(), other.ExactString())
	}
}

func (f *finder) boolean(n *ast.Ident, stack []ast.Node) {
	if f.isBesideError(n, stack) {
		return
	}
	switch f.info.Uses[n] {
	case types.Universe.Lookup("true"):
		f.add("constant", around(n, stack), n.Pos(), n.End(), "false")
	case types.Universe.Lookup("false"):
		f.add("constant", around(n, stack), n.Pos(), n.End(), "true")
	}
}

// condition adds a mutant with the condition negated, unless the condition is a
// comparison, which has mutants of its own.
func (f *finder) condition(n ast.Expr) {
	switch n.(type) {
	case *ast.CallExpr, *ast.Ident, *ast.SelectorExpr, *ast.IndexExpr:
		f.add("negated", n, n.Pos(), n.Pos(), "!")
	}
}

// results adds mutants that return no error, or the opposite boolean.
func (f *finder) results(n *ast.ReturnStmt) {
	for _, result := range n.Results {
		value := f.info.Types[result]
		switch {
		case value.IsNil():
		case types.Identical(value.Type, types.Universe.Lookup("error").Type()):
			f.add("error lost", n, result.Pos(), result.End(), "nil")
		case value.Type != nil && value.Value == nil && isBoolean(value.Type):
			f.condition(result)
		}
	}
}

func isBoolean(t types.Type) bool {
	basic, ok := t.Underlying().(*types.Basic)
	return ok && basic.Info()&types.IsBoolean != 0
}

// unordered are functions whose arguments have no order.
var unordered = map[string]bool{"min": true, "max": true, "errors.Join": true}

// arguments adds mutants that swap two neighbouring arguments of the same type.
func (f *finder) arguments(n *ast.CallExpr) {
	if f.info.Types[n.Fun].IsType() || unordered[types.ExprString(n.Fun)] || n.Ellipsis.IsValid() {
		return
	}
	for i := 1; i < len(n.Args); i++ {
		a, b := n.Args[i-1], n.Args[i]
		first, second := f.text(a), f.text(b)
		if first == second || !types.Identical(f.info.Types[a].Type, f.info.Types[b].Type) || f.isFormat(a) {
			continue
		}
		f.add("swapped", n, a.Pos(), b.End(), second+string(f.src[f.offset(a.End()):f.offset(b.Pos())])+first)
	}
}

// isFormat reports whether an argument is a format string. go vet finds a format string
// in a wrong place.
func (f *finder) isFormat(n ast.Expr) bool {
	value := f.info.Types[n].Value
	return value != nil && value.Kind() == constant.String && strings.Contains(constant.StringVal(value), "%")
}

// isLog reports whether an expression calls a logger. Tests do not check the texts of a
// log, which are for people.
func (f *finder) isLog(n ast.Expr) bool {
	call, ok := n.(*ast.CallExpr)
	if !ok {
		return false
	}
	method, ok := call.Fun.(*ast.SelectorExpr)
	return ok && strings.HasSuffix(types.TypeString(f.info.TypeOf(method.X), nil), "go.uber.org/zap.Logger")
}

package docs

import (
	"go/ast"
	"go/parser"
	"go/token"
	"path"
	"strings"
	"testing"
)

// declared has the names that the source declares: Name, Type.Method and Type.Field, also behind
// the name of their package.
type declared map[string]bool

func (d declared) add(pkg, name string) { d[name], d[pkg+"."+name] = true, true }

func (d declared) addFile(file *ast.File) {
	pkg := file.Name.Name
	d["package "+pkg] = true
	for _, decl := range file.Decls {
		switch decl := decl.(type) {
		case *ast.FuncDecl:
			name := decl.Name.Name
			if decl.Recv != nil {
				name = receiver(decl.Recv.List[0].Type) + "." + name
			}
			d.add(pkg, name)
		case *ast.GenDecl:
			for _, spec := range decl.Specs {
				d.addSpec(pkg, spec)
			}
		}
	}
}

func (d declared) addSpec(pkg string, spec ast.Spec) {
	switch spec := spec.(type) {
	case *ast.ValueSpec:
		for _, name := range spec.Names {
			d.add(pkg, name.Name)
		}
	case *ast.TypeSpec:
		d.add(pkg, spec.Name.Name)
		var fields *ast.FieldList
		switch typ := spec.Type.(type) {
		case *ast.StructType:
			fields = typ.Fields
		case *ast.InterfaceType:
			fields = typ.Methods
		default:
			return
		}
		for _, field := range fields.List {
			for _, name := range field.Names {
				d.add(pkg, spec.Name.Name+"."+name.Name)
			}
		}
	}
}

// inPackage reports whether pkg.name can be an exported name of a package of ours. Otherwise it is a
// file, a setting, or a name of another source.
func (d declared) inPackage(pkg, name string) bool {
	return d["package "+pkg] && name[0] <= 'Z' && strings.ToUpper(name) != name
}

func receiver(typ ast.Expr) string {
	switch typ := typ.(type) {
	case *ast.StarExpr:
		return receiver(typ.X)
	case *ast.IndexExpr:
		return receiver(typ.X)
	case *ast.Ident:
		return typ.Name
	}
	return ""
}

// Each name of the source that a document has between backquotes is declared, and each one that a
// comment has.
func TestIdentifiers(t *testing.T) {
	names := declared{}
	source := read(t, func(file string) bool { return path.Ext(file) == ".go" })
	for file, text := range source {
		parsed, err := parser.ParseFile(token.NewFileSet(), file, text, parser.SkipObjectResolution)
		if err != nil {
			t.Fatal(err)
		}
		names.addFile(parsed)
		source[file] = comments(text)
	}
	found := 0
	check := func(path string, line int, groups []string) {
		found++
		if of, name := groups[1], groups[2]; !names[of+"."+name] {
			t.Errorf("%s:%d: %s.%s is not declared", path, line, of, name)
		}
	}
	each(read(t, isMarkdown), "`([a-z]+|[A-Z][a-z]\\w*)\\.([A-Za-z]\\w*(?:\\.[A-Za-z]\\w*)?)(?:\\(.*?\\)|{})?`", func(path string, line int, groups []string) {
		if groups[1][0] <= 'Z' || names.inPackage(groups[1], groups[2]) {
			check(path, line, groups)
		}
	})
	each(source, `(?:^|[ (])([a-z]+|[A-Z]\w*)\.([A-Z]\w+(?:\.[A-Z]\w+)?)`, func(path string, line int, groups []string) {
		if groups[1][0] <= 'Z' && names[groups[1]] || names.inPackage(groups[1], groups[2]) {
			check(path, line, groups)
		}
	})
	if found < 200 {
		t.Errorf("only %d names were found", found)
	}
}

package abicheck

import (
	"errors"
	"fmt"
	"go/ast"
	"go/constant"
	"go/parser"
	"go/token"
	"go/types"
	"reflect"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"unicode"
)

// source holds the declarations of a uapi.go.
type source struct {
	consts  map[string]string   // values in decimal, by name
	vars    []string            // names
	structs map[string]string   // C names, by Go name
	fields  map[string][]string // C names of the fields that have one, by the struct's C name
}

// Names returns the golden entries that the uapi.go at path needs, sorted and
// without values: "const C", "size struct S", "offset struct S.f".
func Names(path string) ([]string, error) {
	src, err := parseSource(path)
	if err != nil {
		return nil, err
	}
	var names []string
	for name := range src.consts {
		names = append(names, "const "+name)
	}
	for _, name := range src.vars {
		names = append(names, "const "+name)
	}
	for cName, fields := range src.fields {
		names = append(names, "size struct "+cName)
		for _, f := range fields {
			names = append(names, "offset struct "+cName+"."+f)
		}
	}
	slices.Sort(names)
	return names, nil
}

// parseSource reads the uapi.go at path.
func parseSource(path string) (*source, error) {
	fset := token.NewFileSet()
	file, err := parser.ParseFile(fset, path, nil, parser.ParseComments)
	if err != nil {
		return nil, fmt.Errorf("parse %s: %w", path, err)
	}
	src := &source{structs: map[string]string{}, fields: map[string][]string{}}
	for _, d := range file.Decls {
		if err := src.add(d); err != nil {
			return nil, fmt.Errorf("read %s: %w", path, err)
		}
	}
	if src.consts, err = evaluate(fset, file); err != nil {
		return nil, fmt.Errorf("evaluate %s: %w", path, err)
	}
	return src, nil
}

// add records the variables and structs of one declaration.
func (s *source) add(d ast.Decl) error {
	gen, ok := d.(*ast.GenDecl)
	if !ok {
		return nil
	}
	for _, spec := range gen.Specs {
		switch spec := spec.(type) {
		case *ast.ValueSpec:
			if gen.Tok == token.VAR {
				for _, n := range spec.Names {
					s.vars = append(s.vars, n.Name)
				}
			}
		case *ast.TypeSpec:
			doc := spec.Doc
			if doc == nil {
				doc = gen.Doc
			}
			if err := s.addStruct(spec, doc.Text()); err != nil {
				return err
			}
		}
	}
	return nil
}

var structDoc = regexp.MustCompile(`^(\w+) is struct (\w+)\b`)

// addStruct records one struct and its fields.
func (s *source) addStruct(spec *ast.TypeSpec, doc string) error {
	typ, ok := spec.Type.(*ast.StructType)
	if !ok {
		return fmt.Errorf("type %s: not a struct", spec.Name.Name)
	}
	m := structDoc.FindStringSubmatch(doc)
	if m == nil || m[1] != spec.Name.Name {
		return fmt.Errorf("type %s: its comment does not begin %q", spec.Name.Name, spec.Name.Name+" is struct ...")
	}
	cName := m[2]
	s.structs[spec.Name.Name] = cName
	s.fields[cName] = nil
	for _, f := range typ.Fields.List {
		var tag reflect.StructTag
		if f.Tag != nil {
			text, err := strconv.Unquote(f.Tag.Value)
			if err != nil {
				return fmt.Errorf("type %s: unquote tag %s: %w", spec.Name.Name, f.Tag.Value, err)
			}
			tag = reflect.StructTag(text)
		}
		for _, n := range f.Names {
			if n.Name != "_" {
				s.fields[cName] = append(s.fields[cName], fieldName(n.Name, tag))
			}
		}
	}
	return nil
}

// fieldName returns the C name of a field: its abi tag, or its Go name in snake
// case, where consecutive capitals are one word.
func fieldName(goName string, tag reflect.StructTag) string {
	if name, ok := tag.Lookup("abi"); ok {
		return name
	}
	var b strings.Builder
	runes := []rune(goName)
	for i, r := range runes {
		endsWord := i > 0 && !unicode.IsUpper(runes[i-1])
		startsWord := i > 0 && i+1 < len(runes) && unicode.IsLower(runes[i+1])
		if unicode.IsUpper(r) && (endsWord || startsWord) {
			b.WriteByte('_')
		}
		b.WriteRune(unicode.ToLower(r))
	}
	return b.String()
}

// noImports refuses every import, because no constant of a uapi.go depends on
// an import.
type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	return nil, errors.New("imports are left out")
}

// evaluate returns the values of file's constants. It ignores type errors,
// because the declarations of imports are missing. A constant that needs a
// missing declaration has no value and is an error.
func evaluate(fset *token.FileSet, file *ast.File) (map[string]string, error) {
	conf := types.Config{Importer: noImports{}, IgnoreFuncBodies: true, Error: func(error) {}}
	pkg, _ := conf.Check(file.Name.Name, fset, []*ast.File{file}, nil)
	consts := map[string]string{}
	for _, name := range pkg.Scope().Names() {
		c, ok := pkg.Scope().Lookup(name).(*types.Const)
		if !ok {
			continue
		}
		value := constant.ToInt(c.Val())
		if value.Kind() != constant.Int {
			return nil, fmt.Errorf("const %s: not an integer that stands on its own", name)
		}
		consts[name] = value.ExactString()
	}
	return consts, nil
}

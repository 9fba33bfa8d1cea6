package ublk_test

import (
	"go/ast"
	"go/doc"
	"go/parser"
	"go/token"
	"os"
	"strings"
	"testing"
)

// go doc prints untyped constants and variables first. The package has three such lines, and
// leaves the kernel's names to package uapi, so that a reader sees its types and functions.
func TestDocShowsTypesAndFunctions(t *testing.T) {
	entries, err := os.ReadDir(".")
	if err != nil {
		t.Fatal(err)
	}
	var files []*ast.File
	set := token.NewFileSet()
	for _, e := range entries {
		if !strings.HasSuffix(e.Name(), ".go") || strings.HasSuffix(e.Name(), "_test.go") {
			continue
		}
		file, err := parser.ParseFile(set, e.Name(), nil, parser.ParseComments)
		if err != nil {
			t.Fatal(err)
		}
		files = append(files, file)
	}
	pkg, err := doc.NewFromFiles(set, files, "github.com/ublk-loop/ublk-loop/ublk")
	if err != nil {
		t.Fatal(err)
	}
	first := append(pkg.Consts, pkg.Vars...)
	if len(first) > 3 || len(pkg.Types) == 0 || len(pkg.Funcs) == 0 {
		t.Errorf("%d groups of constants and variables come before %d functions and %d types", len(first), len(pkg.Funcs), len(pkg.Types))
	}
	for _, group := range first {
		for _, name := range group.Names {
			if strings.HasPrefix(name, "UBLK") {
				t.Errorf("%s is the kernel's name: it belongs to package uapi", name)
			}
		}
	}
}

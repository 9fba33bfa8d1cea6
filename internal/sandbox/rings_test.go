package sandbox

import (
	"go/ast"
	"go/parser"
	"go/token"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// ServingRings has what the process that serves requests uses, and nothing else.
func TestServingRings(t *testing.T) {
	used := usedOfRings(t)
	listed := listedForRings(t)
	for _, name := range slices.Sorted(maps.Keys(used)) {
		if !listed[name] {
			t.Errorf("%s uses %s, which the list lacks", used[name], name)
		}
	}
	for _, name := range slices.Sorted(maps.Keys(listed)) {
		if used[name] == "" {
			t.Errorf("the list has %s, which nothing uses", name)
		}
	}
}

// forRings matches the names of what a list for rings has.
var forRings = regexp.MustCompile(`^(IORING_OP|IOSQE|IORING_REGISTER|IORING_UNREGISTER)_`)

// listedForRings returns the names in ServingRings.
func listedForRings(t *testing.T) map[string]bool {
	t.Helper()
	listed := map[string]bool{}
	ast.Inspect(parseFile(t, "rings.go"), func(n ast.Node) bool {
		if id, ok := n.(*ast.Ident); ok && forRings.MatchString(id.Name) {
			listed[id.Name] = true
		}
		return true
	})
	return listed
}

const (
	module   = "github.com/ublk-loop/ublk-loop/"
	root     = "../.."
	ringDir  = "ring"
	firstDir = "internal/apart" // the process begins there
	ownDir   = "internal/sandbox"
)

// notServing are files in packages of the process that it does not use while rings are limited.
var notServing = []string{
	"ublk/transport.go", // commands to /dev/ublk-control
	"ring/restrict.go",  // the limits themselves, before they hold
}

// usedOfRings returns what the code of the process uses of rings, each with a file that uses it. It compares names, not
// types: a function that has the name of one of package ring counts as that.
func usedOfRings(t *testing.T) map[string]string {
	t.Helper()
	files := map[string]*ast.File{} // by path
	collectFiles(t, firstDir, files)
	for _, path := range notServing {
		if files[path] == nil {
			t.Errorf("the process has no file %s", path)
		}
		delete(files, path)
	}
	functions := map[string][]*ast.FuncDecl{} // of package ring
	for path, file := range files {
		if filepath.Dir(path) != ringDir {
			continue
		}
		for _, decl := range file.Decls {
			if f, ok := decl.(*ast.FuncDecl); ok {
				functions[f.Name.Name] = append(functions[f.Name.Name], f)
			}
		}
	}
	used := map[string]string{}
	seen := map[string]bool{}
	var look func(path string, n ast.Node)
	look = func(path string, n ast.Node) {
		for _, name := range namesIn(n) {
			if forRings.MatchString(name) {
				used[name] = path
			}
			if !seen[name] {
				seen[name] = true
				for _, f := range functions[name] {
					look(path, f.Body)
				}
			}
		}
	}
	for _, path := range slices.Sorted(maps.Keys(files)) {
		if dir := filepath.Dir(path); dir != ringDir && dir != ownDir {
			look(path, files[path])
		}
	}
	return used
}

// namesIn returns the names in the code, except in comparisons, which make nothing.
func namesIn(n ast.Node) []string {
	var names []string
	ast.Inspect(n, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.BinaryExpr:
			return n.Op != token.EQL && n.Op != token.NEQ
		case *ast.Ident:
			names = append(names, n.Name)
		}
		return true
	})
	return names
}

// collectFiles adds the files of a package, and of the packages of this module that it imports.
func collectFiles(t *testing.T, dir string, files map[string]*ast.File) {
	t.Helper()
	entries, err := os.ReadDir(filepath.Join(root, dir))
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") || files[path] != nil {
			continue
		}
		files[path] = parseFile(t, filepath.Join(root, path))
		for _, i := range files[path].Imports {
			name, err := strconv.Unquote(i.Path.Value)
			if err != nil {
				t.Fatal(err)
			}
			if sub, ours := strings.CutPrefix(name, module); ours {
				collectFiles(t, sub, files)
			}
		}
	}
}

func parseFile(t *testing.T, path string) *ast.File {
	t.Helper()
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return file
}

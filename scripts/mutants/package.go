package main

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"go/ast"
	"go/importer"
	"go/parser"
	"go/token"
	"go/types"
	"io"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strings"
)

// defaultPackages matches the packages that handle data or privileges, in any directory
// of the module.
const defaultPackages = `(^|/)(ring|ublk|loop|transfer|control|oci)(/|$)`

// pkg is a package with its parsed and type-checked sources.
type pkg struct {
	path, dir string            // import path; directory relative to the module
	names     []string          // paths of the files, relative to the module
	sources   map[string][]byte // by name
	files     map[string]*ast.File
	fset      *token.FileSet
	info      *types.Info
	importer  types.Importer
	tested    []string // directories with the sources that its tests are built from
	digest    string   // the digest of those directories
}

// listed is what `go list -json` prints for a package.
type listed struct {
	ImportPath, Dir, Export string
	GoFiles, Imports        []string
	Module                  *struct{ Main bool }
}

// isOurs reports whether the package belongs to the main module and is not only for
// tests.
func (l *listed) isOurs() bool {
	return l.Module != nil && l.Module.Main && !slices.Contains(l.Imports, "testing")
}

// load returns the packages of the module whose directories match a regular expression.
func load(ctx context.Context, pattern string) ([]*pkg, error) {
	expression, err := regexp.Compile(pattern)
	if err != nil {
		return nil, err
	}
	top, err := os.Getwd()
	if err != nil {
		return nil, err
	}
	all, err := goList(ctx, "-deps", "-export", "./...")
	if err != nil {
		return nil, err
	}
	exports := map[string]string{}
	for _, l := range all {
		exports[l.ImportPath] = l.Export
	}
	var packages []*pkg
	for _, l := range all {
		dir, err := filepath.Rel(top, l.Dir)
		if !l.isOurs() || err != nil || !expression.MatchString(dir) || len(l.GoFiles) == 0 {
			continue
		}
		p, err := parse(l, dir, exports)
		if err == nil {
			p.tested, err = directoriesOf(ctx, dir)
		}
		if err == nil {
			p.digest, err = digest(p.tested)
		}
		if err != nil {
			return nil, fmt.Errorf("load %s: %w", dir, err)
		}
		packages = append(packages, p)
	}
	if len(packages) == 0 {
		return nil, fmt.Errorf("no package matches %s", pattern)
	}
	return packages, nil
}

func parse(l *listed, dir string, exports map[string]string) (*pkg, error) {
	p := &pkg{
		path: l.ImportPath, dir: dir, fset: token.NewFileSet(),
		sources: map[string][]byte{}, files: map[string]*ast.File{},
		info: &types.Info{Types: map[ast.Expr]types.TypeAndValue{}, Uses: map[*ast.Ident]types.Object{}},
	}
	p.importer = importer.ForCompiler(p.fset, "gc", func(path string) (io.ReadCloser, error) {
		if exports[path] == "" {
			return nil, fmt.Errorf("no export data of %s", path)
		}
		return os.Open(exports[path])
	})
	for _, name := range l.GoFiles {
		name := filepath.Join(dir, name)
		src, err := os.ReadFile(name)
		if err != nil {
			return nil, err
		}
		if p.files[name], err = parser.ParseFile(p.fset, name, src, parser.SkipObjectResolution); err != nil {
			return nil, err
		}
		p.sources[name] = src
	}
	p.names = slices.Sorted(maps.Keys(p.files))
	return p, p.check(p.files, p.info)
}

// check type-checks files as this package.
func (p *pkg) check(files map[string]*ast.File, info *types.Info) error {
	config := types.Config{Importer: p.importer, Sizes: types.SizesFor("gc", runtime.GOARCH)}
	_, err := config.Check(p.path, p.fset, slices.Collect(maps.Values(files)), info)
	return err
}

// compiles reports whether the package passes the type check with the fault.
func (m *mutant) compiles() bool {
	file, err := parser.ParseFile(m.pkg.fset, m.file, m.source(), parser.SkipObjectResolution)
	if err != nil {
		return false
	}
	files := maps.Clone(m.pkg.files)
	files[m.file] = file
	return m.pkg.check(files, nil) == nil
}

func goList(ctx context.Context, arguments ...string) ([]*listed, error) {
	var errs bytes.Buffer
	cmd := exec.CommandContext(ctx, "go", append([]string{"list", "-json=ImportPath,Dir,Export,GoFiles,Imports,Module"}, arguments...)...)
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil {
		return nil, fmt.Errorf("go list: %w: %s", err, strings.TrimSpace(errs.String()))
	}
	var all []*listed
	for decoder := json.NewDecoder(bytes.NewReader(out)); ; {
		l := &listed{}
		if err := decoder.Decode(l); errors.Is(err, io.EOF) {
			return all, nil
		} else if err != nil {
			return nil, err
		}
		all = append(all, l)
	}
}

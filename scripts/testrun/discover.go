package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
)

// pkg is a package with tests.
type pkg struct {
	Dir        string // relative to the top of the tree: "loop"
	ImportPath string
	module     string   // the directory of its module, relative to the top
	kernel     bool     // it has tests that need a kernel
	fuzz       []string // its fuzz tests
	arm64      bool     // it has assembly code for arm64
}

var (
	kernelTest = regexp.MustCompile(`(?m)^func Test(Kernel|Crash)`)
	fuzzTest   = regexp.MustCompile(`(?m)^func (Fuzz\w*)\(`)
)

// modules returns the directories of the tree's modules, the main one first.
func modules(top string) ([]string, error) {
	var dirs []string
	err := filepath.WalkDir(top, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if name := d.Name(); d.IsDir() && path != top && (strings.HasPrefix(name, ".") || name == "testdata" || name == "node_modules") {
			return fs.SkipDir
		}
		if d.Name() == "go.mod" {
			dir, err := filepath.Rel(top, filepath.Dir(path))
			dirs = append(dirs, dir)
			return err
		}
		return nil
	})
	slices.Sort(dirs)
	return dirs, err
}

// discover finds the packages with tests from the contents of their files.
func discover(top string) ([]*pkg, error) {
	dirs, err := modules(top)
	if err != nil {
		return nil, fmt.Errorf("find modules: %w", err)
	}
	var pkgs []*pkg
	for _, module := range dirs {
		found, err := packagesOf(top, module)
		if err != nil {
			return nil, fmt.Errorf("list packages of %s: %w", module, err)
		}
		pkgs = append(pkgs, found...)
	}
	return pkgs, nil
}

// listed is what `go list -json` prints for a package.
type listed struct {
	Dir, ImportPath                   string
	TestGoFiles, XTestGoFiles, SFiles []string
}

func goList(dir string, env ...string) ([]listed, error) {
	cmd := exec.Command("go", "list", "-e", "-json=Dir,ImportPath,TestGoFiles,XTestGoFiles,SFiles", "./...")
	cmd.Dir, cmd.Env, cmd.Stderr = dir, append(os.Environ(), env...), os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	var list []listed
	for decoder := json.NewDecoder(out); ; {
		var l listed
		if err = decoder.Decode(&l); err != nil {
			break
		}
		list = append(list, l)
	}
	if errors.Is(err, io.EOF) {
		err = nil
	}
	return list, errors.Join(err, cmd.Wait())
}

func packagesOf(top, module string) ([]*pkg, error) {
	list, err := goList(filepath.Join(top, module))
	if err != nil {
		return nil, err
	}
	other, err := goList(filepath.Join(top, module), "GOARCH=arm64", "CGO_ENABLED=0")
	if err != nil {
		return nil, err
	}
	var pkgs []*pkg
	for _, l := range list {
		dir, err := filepath.Rel(top, l.Dir)
		if err != nil {
			return nil, err
		}
		p := &pkg{Dir: dir, ImportPath: l.ImportPath, module: module}
		p.arm64 = slices.ContainsFunc(other, func(o listed) bool { return o.ImportPath == l.ImportPath && len(o.SFiles) > 0 })
		files := slices.Concat(l.TestGoFiles, l.XTestGoFiles)
		for _, name := range files {
			text, err := os.ReadFile(filepath.Join(l.Dir, name))
			if err != nil {
				return nil, err
			}
			p.kernel = p.kernel || kernelTest.Match(text)
			for _, m := range fuzzTest.FindAllSubmatch(text, -1) {
				p.fuzz = append(p.fuzz, string(m[1]))
			}
		}
		if len(files) > 0 {
			pkgs = append(pkgs, p)
		}
	}
	return pkgs, nil
}

// choose keeps the packages in the directories that asked names; a name with /...
// includes the directories below. It returns an error if a name matches no package.
func choose(all []*pkg, asked []string) ([]*pkg, error) {
	if len(asked) == 0 {
		return all, nil
	}
	var chosen []*pkg
	for _, dir := range asked {
		dir, below := strings.CutSuffix("./"+filepath.Clean(dir), "/...")
		dir = filepath.Clean(dir)
		n := len(chosen)
		for _, p := range all {
			if p.Dir == dir || below && (dir == "." || strings.HasPrefix(p.Dir, dir+"/")) {
				chosen = append(chosen, p)
			}
		}
		if len(chosen) == n {
			return nil, fmt.Errorf("package %s does not exist or has no tests", dir)
		}
	}
	slices.SortFunc(chosen, func(a, b *pkg) int { return strings.Compare(a.Dir, b.Dir) })
	return slices.Compact(chosen), nil
}

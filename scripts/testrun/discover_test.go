package main

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"
)

// tree writes files with these names and contents.
func tree(t *testing.T, files map[string]string) string {
	t.Helper()
	top := t.TempDir()
	for name, text := range files {
		path := filepath.Join(top, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return top
}

const imports = "\n\nimport \"testing\"\n\nfunc "

// discover finds the packages in all modules, and their kinds of tests by the tests'
// names.
func TestDiscover(t *testing.T) {
	top := tree(t, map[string]string{
		"go.mod":                 "module x.example/m\n\ngo 1.26\n",
		"loop/loop.go":           "package loop\n",
		"loop/loop_test.go":      "package loop" + imports + "TestKernelA(t *testing.T) {}\nfunc FuzzA(f *testing.F) {}\n",
		"unit/unit_test.go":      "package unit_test" + imports + "TestA(t *testing.T) {}\n",
		"untested/untested.go":   "package untested\n",
		"cipher/c.go":            "package cipher\n",
		"cipher/c_arm64.s":       "",
		"cipher/c_test.go":       "package cipher" + imports + "TestA(t *testing.T) {}\n",
		"more/go.mod":            "module x.example/more\n\ngo 1.26\n",
		"more/crash/c_test.go":   "package crash" + imports + "TestCrashA(t *testing.T) {}\n",
		"loop/testdata/x/go.mod": "module x.example/data\n",
		".hidden/go.mod":         "module x.example/hidden\n",
	})
	pkgs, err := discover(top)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, p := range pkgs {
		got = append(got, fmt.Sprintf("%s %s %v %v %v", p.Dir, p.module, p.kernel, p.fuzz, p.arm64))
	}
	want := []string{"cipher . false [] true", "loop . true [FuzzA] false", "unit . false [] false", "more/crash more true [] false"}
	if fmt.Sprint(got) != fmt.Sprint(want) {
		t.Errorf("packages are %q, want %q", got, want)
	}
}

func TestChoose(t *testing.T) {
	all := []*pkg{{Dir: "loop"}, {Dir: "ublk"}, {Dir: "ublk/ublktest"}}
	for asked, want := range map[string]string{
		"./loop": "[loop]", "loop": "[loop]", "./ublk/...": "[ublk ublk/ublktest]", "./...": "[loop ublk ublk/ublktest]", "ublk/": "[ublk]",
	} {
		chosen, err := choose(all, []string{asked})
		var dirs []string
		for _, p := range chosen {
			dirs = append(dirs, p.Dir)
		}
		if err != nil || fmt.Sprint(dirs) != want {
			t.Errorf("%s: %v, error %v; want %s", asked, dirs, err, want)
		}
	}
	if _, err := choose(all, []string{"./nowhere"}); err == nil {
		t.Error("a package that is not there is no error")
	}
}

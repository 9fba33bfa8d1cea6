package main

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// moduleSource is the absolute path of the module in testdata.
var moduleSource, _ = filepath.Abs(filepath.Join("testdata", "module"))

// module copies the module in testdata to a temporary directory and changes to it.
func module(t *testing.T) {
	t.Helper()
	dir := t.TempDir()
	if err := os.CopyFS(dir, os.DirFS(moduleSource)); err != nil {
		t.Fatal(err)
	}
	t.Chdir(dir)
}

// load1 returns the only package of the module with its mutants.
func load1(t *testing.T) (*pkg, []*mutant) {
	t.Helper()
	packages, err := load(context.Background(), defaultPackages)
	if err != nil {
		t.Fatal(err)
	}
	if len(packages) != 1 || packages[0].dir != "loop" {
		t.Fatalf("%d packages, the first is %s", len(packages), packages[0].dir)
	}
	return packages[0], packages[0].mutants()
}

// fake loads a package with a single function that has this body, and returns the
// mutants.
func fake(t *testing.T, body string) []*mutant {
	t.Helper()
	module(t)
	if err := os.RemoveAll("loop"); err != nil {
		t.Fatal(err)
	}
	if err := os.Mkdir("loop", 0o755); err != nil {
		t.Fatal(err)
	}
	src := "package loop\n\nimport \"errors\"\n\nfunc call(a, b int, s string) error { return errors.New(s) }\n\nfunc (t *T) f(a, b int, ok bool) (bool, error) {\n" +
		body + "\n}\n\ntype T struct{ ok bool }\n"
	if err := os.WriteFile("loop/f.go", []byte(src), 0o644); err != nil {
		t.Fatal(err)
	}
	_, all := load1(t)
	return slices.DeleteFunc(all, func(m *mutant) bool { return m.function != "(*T).f" || !m.compiles() })
}

func TestOperators(t *testing.T) {
	for body, want := range map[string][]string{
		"return a < b, nil": {
			"boundary: a < b -> a <= b", "negated: a < b -> a >= b",
		},
		"a = -1\nreturn ok, nil": {
			"removed: a = -1 ->", "operand alone: -1 -> 1", "constant: a = -1 -> a = -2", "constant: a = -1 -> a = -0", "negated: ok -> !ok",
		},
		"return a == b && ok, nil": {
			"logic: a == b && ok -> a == b || ok", "negated: a == b -> a != b",
		},
		"for range a {\nif ok {\nbreak\n}\ncontinue\n}\nreturn !ok, nil": {
			"negated: ok -> !ok", "removed: break ->", "removed: continue ->", "operand alone: !ok -> ok",
		},
		"return t.ok, call(a&b, 7, \"\")": {
			"negated: t.ok -> !t.ok", "error lost: return t.ok, call(a&b, 7, \"\") -> return t.ok, nil",
			"swapped: call(a&b, 7, \"\") -> call(7, a&b, \"\")", "arithmetic: a&b -> a|b",
			"constant: call(a&b, 7, \"\") -> call(a&b, 8, \"\")", "constant: call(a&b, 7, \"\") -> call(a&b, 6, \"\")",
		},
		"defer call(b, b, \"\")\na += b\na++\nt.ok = true\nreturn ok, nil": {
			"removed: defer call(b, b, \"\") ->", "arithmetic: a += b -> a -= b", "removed: a += b ->",
			"arithmetic: a++ -> a--", "removed: a++ ->", "removed: t.ok = true ->",
			"constant: t.ok = true -> t.ok = false", "negated: ok -> !ok",
		},
	} {
		var got []string
		for _, m := range fake(t, body) {
			_, kind, _ := strings.Cut(m.key(), "(*T).f ")
			got = append(got, strings.TrimSpace(kind))
		}
		slices.Sort(got)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: mutants\n\t%s\nnot\n\t%s", body, strings.Join(got, "\n\t"), strings.Join(want, "\n\t"))
		}
	}
}

// Equal faults in one function have different keys, and the keys do not depend on the
// line.
func TestKey(t *testing.T) {
	keys := map[string]bool{}
	for _, body := range []string{"a++\na++\nreturn ok, nil", "\n\na++\n\na++\nreturn ok, nil"} {
		for _, m := range fake(t, body) {
			keys[m.key()] = true
		}
	}
	for _, key := range []string{"loop/f.go (*T).f removed: a++ -> ", "loop/f.go (*T).f removed: a++ ->  (2)"} {
		if !keys[key] {
			t.Errorf("no %q among %v", key, keys)
		}
	}
	if len(keys) != 5 {
		t.Errorf("%d keys: %v", len(keys), keys)
	}
}

func TestDiff(t *testing.T) {
	for _, m := range fake(t, "\tif a < b {\n\t\ta++\n\t}\n\treturn ok, nil") {
		switch m.operator {
		case "boundary":
			if got, want := m.diff(), "  -\tif a < b {\n  +\tif a <= b {\n"; got != want {
				t.Errorf("diff %q, not %q", got, want)
			}
		case "removed":
			if got, want := m.diff(), "  -\t\ta++\n"; got != want {
				t.Errorf("diff %q, not %q", got, want)
			}
		}
	}
}

// The drawn mutants compile, depend only on the seed, and hardly change when the source
// changes.
func TestDraw(t *testing.T) {
	all := fake(t, "a++\nb--\na += b\nb -= a\nt.ok = a < b\nreturn a > b, call(a, b, \"\")")
	keys := func(drawn []*mutant) (keys []string) {
		for _, m := range drawn {
			keys = append(keys, m.key())
		}
		return keys
	}
	first := keys(draw(all, "1", 6))
	reversed := slices.Clone(all)
	slices.Reverse(reversed)
	if again := keys(draw(reversed, "1", 6)); !slices.Equal(first, again) {
		t.Errorf("drawn %q and %q", first, again)
	}
	if other := keys(draw(all, "2", 6)); slices.Equal(first, other) {
		t.Errorf("drawn %q by both seeds", first)
	}
	fewer := slices.DeleteFunc(slices.Clone(all), func(m *mutant) bool { return m.key() == first[0] })
	if rest := keys(draw(fewer, "1", 5)); !slices.Equal(first[1:], rest) {
		t.Errorf("drawn %q without the first of %q", rest, first)
	}
}

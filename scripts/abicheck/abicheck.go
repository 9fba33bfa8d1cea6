// Package abicheck compares a package's uapi.go, which copies a kernel header,
// with testdata/abi.txt, the golden file, which a C compiler made from that
// header. scripts/gen-abi.sh writes the golden file from the names that Names
// returns, so both sides always have the same names.
//
// The rules for a uapi.go:
//   - a constant or variable has the name that the header gives it;
//   - a struct's comment begins "NAME is struct C_NAME";
//   - a field's C name is its Go name in snake case, or the field's abi tag;
//   - a struct begins with a blank structs.HostLayout, and the compiler adds no
//     padding to it; only padding that has no name in C is blank.
package abicheck

import (
	"fmt"
	"maps"
	"path/filepath"
	"reflect"
	"slices"
	"structs"
	"testing"
)

// Compiled holds the data that the text of uapi.go lacks: the compiler's layout
// of its structs, and the values of its variables.
type Compiled struct {
	Structs []any          // one value of every struct
	Vars    map[string]any // every variable, by its name
}

// Check fails t for every difference between uapi.go and testdata/abi.txt in
// the working directory, which is the package's directory under go test.
func Check(t testing.TB, c Compiled) {
	t.Helper()
	diffs, err := Diff(".", c)
	if err != nil {
		t.Fatal(err)
	}
	for _, d := range diffs {
		t.Error(d)
	}
}

// Diff returns the sorted differences between dir's uapi.go and its
// testdata/abi.txt, and the entries that c lacks or has in addition.
func Diff(dir string, c Compiled) ([]string, error) {
	src, err := parseSource(filepath.Join(dir, "uapi.go"))
	if err != nil {
		return nil, err
	}
	want, err := readGolden(filepath.Join(dir, "testdata", "abi.txt"))
	if err != nil {
		return nil, err
	}
	got := map[string]string{}
	for name, value := range src.consts {
		got["const "+name] = value
	}
	diffs := slices.Concat(addVars(got, src, c.Vars), addStructs(got, src, c.Structs), compare(got, want))
	slices.Sort(diffs)
	return diffs, nil
}

// addVars adds the variables' values to got. It reports variables that only src
// or only vars has.
func addVars(got map[string]string, src *source, vars map[string]any) (diffs []string) {
	for name, value := range vars {
		got["const "+name] = fmt.Sprint(value)
	}
	return differ("variable", src.vars, slices.Collect(maps.Keys(vars)))
}

// addStructs adds the structs' sizes and offsets to got. It reports structs
// that only src or only values has, or that have hidden padding.
func addStructs(got map[string]string, src *source, values []any) (diffs []string) {
	var names []string
	for _, v := range values {
		typ := reflect.TypeOf(v)
		names = append(names, typ.Name())
		if cName, ok := src.structs[typ.Name()]; ok {
			diffs = append(diffs, addLayout(got, cName, typ)...)
		}
	}
	return append(diffs, differ("struct", slices.Collect(maps.Keys(src.structs)), names)...)
}

// addLayout adds the size of one struct and the offsets of its fields to got.
func addLayout(got map[string]string, cName string, typ reflect.Type) (diffs []string) {
	got["size struct "+cName] = fmt.Sprint(typ.Size())
	if typ.NumField() == 0 || typ.Field(0).Type != reflect.TypeFor[structs.HostLayout]() {
		diffs = append(diffs, fmt.Sprintf("struct %s: does not begin with structs.HostLayout", typ.Name()))
	}
	var end uintptr
	for i := range typ.NumField() {
		f := typ.Field(i)
		if f.Offset != end {
			diffs = append(diffs, fmt.Sprintf("struct %s: padding before %s", typ.Name(), f.Name))
		}
		end = f.Offset + f.Type.Size()
		if f.Name != "_" {
			got["offset struct "+cName+"."+fieldName(f.Name, f.Tag)] = fmt.Sprint(f.Offset, f.Type.Size())
		}
	}
	if end != typ.Size() {
		diffs = append(diffs, fmt.Sprintf("struct %s: padding at the end", typ.Name()))
	}
	return diffs
}

// differ reports the names that only uapi.go declares or only the test passed.
func differ(kind string, declared, passed []string) (diffs []string) {
	for _, name := range declared {
		if !slices.Contains(passed, name) {
			diffs = append(diffs, fmt.Sprintf("%s %s: in uapi.go, not passed to Check", kind, name))
		}
	}
	for _, name := range passed {
		if !slices.Contains(declared, name) {
			diffs = append(diffs, fmt.Sprintf("%s %s: passed to Check, not in uapi.go", kind, name))
		}
	}
	return diffs
}

// compare reports entries that differ between Go and the golden file, or that
// only one of them has.
func compare(got, want map[string]string) (diffs []string) {
	for key, value := range got {
		if w, ok := want[key]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s: not in the golden file", key))
		} else if value != w {
			diffs = append(diffs, fmt.Sprintf("%s: %s in Go, %s in C", key, value, w))
		}
	}
	for key := range want {
		if _, ok := got[key]; !ok {
			diffs = append(diffs, fmt.Sprintf("%s: not in uapi.go", key))
		}
	}
	return diffs
}

// Package abicheck compares a package's uapi.go, its copy of a kernel header,
// with testdata/abi.txt, what a C compiler made of that header. The golden file
// is written by scripts/gen-abi.sh from the names that Names finds, so neither
// side can know a name that the other does not.
//
// The rules for a uapi.go:
//   - a constant or variable has the name that the header gives it;
//   - a struct's comment begins "NAME is struct C_NAME";
//   - a field's C name is its Go name in snake case, or the field's abi tag;
//   - a struct begins with a blank structs.HostLayout and has no padding of the
//     compiler's making; only padding that has no name in C is blank.
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

// Compiled is what the text of uapi.go does not tell: how the compiler laid out
// its structs, and which values its variables got.
type Compiled struct {
	Structs []any          // one value of every struct
	Vars    map[string]any // every variable, by its name
}

// Check fails t for every difference between uapi.go and testdata/abi.txt in
// the working directory, which go test makes the package's own.
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

// Diff lists, sorted, the differences between dir's uapi.go and its
// testdata/abi.txt, and whatever c has too much or too little.
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

// addVars puts the variables' values into got, and reports those that only one
// of src and vars has.
func addVars(got map[string]string, src *source, vars map[string]any) (diffs []string) {
	for name, value := range vars {
		got["const "+name] = fmt.Sprint(value)
	}
	return differ("variable", src.vars, slices.Collect(maps.Keys(vars)))
}

// addStructs puts the structs' sizes and offsets into got, and reports those
// that only one of src and values has, or that have hidden padding.
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

// addLayout puts the size of one struct and the offsets of its fields into got.
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

// differ reports the names that uapi.go declares and the test did not pass, and
// the other way round.
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

// compare reports where Go and the golden file differ or only one has an entry.
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

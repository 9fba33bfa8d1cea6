package abicheck

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"structs"
	"testing"
)

const goodSource = `package p

import "structs"

const FIRST, SECOND = 1 << 4, -19

var NUMBER = number(3)

func number(n uint32) uint32 { return n << 8 }

// entry is struct c_entry of a header.
type entry struct {
	_       structs.HostLayout
	DevID   uint32
	BufLen  uint16 ` + "`abi:\"len\"`" + `
	_       [2]uint8
}
`

const goodGolden = `# a comment
const FIRST 16
const NUMBER 768
const SECOND -19
offset struct c_entry.dev_id 0 4
offset struct c_entry.len 4 2
size struct c_entry 8
`

// entry is what goodSource declares.
type entry struct {
	_      structs.HostLayout
	DevID  uint32
	BufLen uint16 `abi:"len"`
	_      [2]uint8
}

func good() Compiled {
	return Compiled{Structs: []any{entry{}}, Vars: map[string]any{"NUMBER": uint32(768)}}
}

// write creates a package directory with a uapi.go and a golden file.
func write(t *testing.T, source, golden string) string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range map[string]string{"uapi.go": source, "testdata/abi.txt": golden} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o777); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o666); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

func TestNames(t *testing.T) {
	got, err := Names(filepath.Join(write(t, goodSource, ""), "uapi.go"))
	if err != nil {
		t.Fatal(err)
	}
	want := []string{
		"const FIRST", "const NUMBER", "const SECOND",
		"offset struct c_entry.dev_id", "offset struct c_entry.len", "size struct c_entry",
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func TestDiff(t *testing.T) {
	tests := map[string]struct {
		old, new string // replaced in the golden file
		compiled func(*Compiled)
		want     []string
	}{
		"equal":             {},
		"constant":          {old: "FIRST 16", new: "FIRST 17", want: []string{"const FIRST: 16 in Go, 17 in C"}},
		"negative constant": {old: "-19", new: "19", want: []string{"const SECOND: -19 in Go, 19 in C"}},
		"variable":          {old: "768", new: "769", want: []string{"const NUMBER: 768 in Go, 769 in C"}},
		"offset":            {old: ".len 4 2", new: ".len 6 2", want: []string{"offset struct c_entry.len: 4 2 in Go, 6 2 in C"}},
		"field size":        {old: ".len 4 2", new: ".len 4 4", want: []string{"offset struct c_entry.len: 4 2 in Go, 4 4 in C"}},
		"size":              {old: "c_entry 8", new: "c_entry 16", want: []string{"size struct c_entry: 8 in Go, 16 in C"}},
		"only in Go":        {old: "const FIRST 16\n", want: []string{"const FIRST: not in the golden file"}},
		"only in C":         {old: "const FIRST", new: "const EXTRA 1\nconst FIRST", want: []string{"const EXTRA: not in uapi.go"}},
		"variable not passed": {
			compiled: func(c *Compiled) { c.Vars = nil },
			want:     []string{"const NUMBER: not in uapi.go", "variable NUMBER: in uapi.go, not passed to Check"},
		},
		"struct not passed": {
			compiled: func(c *Compiled) { c.Structs = nil },
			want: []string{
				"offset struct c_entry.dev_id: not in uapi.go", "offset struct c_entry.len: not in uapi.go",
				"size struct c_entry: not in uapi.go", "struct entry: in uapi.go, not passed to Check",
			},
		},
		"struct not declared": {
			compiled: func(c *Compiled) { c.Structs = append(c.Structs, Compiled{}) },
			want:     []string{"struct Compiled: passed to Check, not in uapi.go"},
		},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			c := good()
			if tt.compiled != nil {
				tt.compiled(&c)
			}
			got, err := Diff(write(t, goodSource, strings.Replace(goodGolden, tt.old, tt.new, 1)), c)
			if err != nil {
				t.Fatal(err)
			}
			if !slices.Equal(got, tt.want) {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

func TestDiffFindsHiddenPadding(t *testing.T) {
	type entry struct {
		_      structs.HostLayout
		BufLen uint16 `abi:"len"`
		DevID  uint32
		Last   uint8
	}
	c := good()
	c.Structs = []any{entry{}}
	got, err := Diff(write(t, goodSource, goodGolden), c)
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"struct entry: padding before DevID", "struct entry: padding at the end"} {
		if !slices.Contains(got, want) {
			t.Errorf("got %q, want %q in it", got, want)
		}
	}
}

func TestDiffRefuses(t *testing.T) {
	tests := map[string]struct{ source, golden, want string }{
		"struct without C name": {"package p\ntype entry struct{}\n", "", "its comment does not begin"},
		"type not a struct":     {"package p\ntype word uint32\n", "", "type word: not a struct"},
		"imported constant":     {"package p\nimport \"syscall\"\nconst A = syscall.ENODEV\n", "", "const A: not an integer"},
		"constant not a number": {"package p\nconst A = \"a\"\n", "", "const A: not an integer"},
		"odd golden line":       {"package p\n", "size struct c_entry\n", "odd line"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			_, err := Diff(write(t, tt.source, tt.golden), Compiled{})
			if err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want an error with %q", err, tt.want)
			}
		})
	}
}

func TestFieldName(t *testing.T) {
	for goName, want := range map[string]string{
		"Tag": "tag", "DevID": "dev_id", "IODescSize": "io_desc_size", "UblksrvPID": "ublksrv_pid",
		"Addr3": "addr3", "TvNsec": "tv_nsec", "DMA": "dma", "SqThreadCPU": "sq_thread_cpu",
	} {
		if got := fieldName(goName, ""); got != want {
			t.Errorf("%s: got %s, want %s", goName, got, want)
		}
	}
}

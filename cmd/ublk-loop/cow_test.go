package main

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// storeFile makes a store of 1 MiB, with a label.
func storeFile(t *testing.T, label *snapshot.Label) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "store")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = f.Close() }()
	l, err := snapshot.NewLayout(4096)
	if err == nil {
		err = f.Truncate(1 << 20)
	}
	if err == nil {
		err = snapshot.FormatLabelled(f, l, label)
	}
	if err != nil {
		t.Fatal(err)
	}
	return path
}

// The error of an empty file is about the file.
func TestCowInfoOfEmptyFile(t *testing.T) {
	b := newBench()
	path := someFile(t)
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"cow", "info", path}, 1, "", "ublk-loop: error: open "+path+": empty: invalid argument\n")
}

func TestCowInfo(t *testing.T) {
	path := storeFile(t, &snapshot.Label{UUID: snapshot.UUID{0x12}, OriginSize: 8192, OriginPath: "/srv/a\xff", Frozen: true, Verity: true})
	b := newBench()
	b.check(t, []string{"cow", "info", path}, 0, "File:            "+path+"\n"+
		"State:           frozen, other stores need it\nChunk size:      4K\nChanged chunks:  0\n"+
		"Allocated:       8192 of 1048576 bytes (0.8 %)\nMetadata:        8192 bytes\n"+
		"UUID:            12000000-0000-0000-0000-000000000000\nOrigin:          /srv/a\\xff\nOrigin size:     8192 bytes\n"+
		"Verity:          the origin is checked, so the changes are not merged into it\n", "")
	b.check(t, []string{"cow", "info", "--json", path}, 0, `{
  "file": "`+path+`",
  "valid": true,
  "chunk_size": 4096,
  "chunks": 0,
  "allocated_bytes": 8192,
  "size": 1048576,
  "metadata_bytes": 8192,
  "uuid": "12000000-0000-0000-0000-000000000000",
  "frozen": true,
  "verity": true,
  "origin": "/srv/a\ufffd",
  "origin_bytes": "L3Nydi9h/w==",
  "origin_size": 8192,
  "needed_by": []
}
`, "")
	plain := storeFile(t, nil)
	b.check(t, []string{"cow", "info", plain}, 0, "File:            "+plain+"\n"+
		"State:           valid\nChunk size:      4K\nChanged chunks:  0\nAllocated:       8192 of 1048576 bytes (0.8 %)\nMetadata:        8192 bytes\n", "")
	if err := os.WriteFile(plain, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	b.check(t, []string{"cow", "info", plain}, 1, "", "ublk-loop: error: "+plain+": no snapshot store: it begins with zeros\n")
}

func TestCowUsage(t *testing.T) {
	b := newBench()
	for _, tt := range []struct {
		args []string
		want string
	}{
		{nil, "cow: create, info, diff, merge or thaw is missing\nhint: see ublk-loop cow --help"},
		{[]string{"fork"}, "cow: unknown command \"fork\"\nhint: see ublk-loop cow --help"},
		{[]string{"create", "a"}, "create: --origin is missing\nhint: see ublk-loop cow create --help"},
		{[]string{"create", "--origin", "a"}, "create: FILE is missing\nhint: see ublk-loop cow create --help"},
		{[]string{"create", "a", "--chunk=2K"}, "--chunk \"2K\": not from 4K to 1M\nhint: see ublk-loop cow create --help"},
		{[]string{"create", "a", "--chunk=12K"}, "--chunk \"12K\": not a power of 2\nhint: see ublk-loop cow create --help"},
		{[]string{"create", "a", "--size=-1"}, "--size \"-1\": negative\nhint: see ublk-loop cow create --help"},
		{[]string{"merge"}, "merge: FILE is missing\nhint: see ublk-loop cow merge --help"},
		{[]string{"diff", "a", "b"}, "diff: unexpected argument \"b\"\nhint: see ublk-loop cow diff --help"},
	} {
		b.check(t, append([]string{"cow"}, tt.args...), 2, "", "ublk-loop: error: "+tt.want+"\n")
	}
}

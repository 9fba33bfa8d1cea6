package oci

import (
	"bytes"
	"errors"
	"testing"

	"golang.org/x/sys/unix"
)

func TestProbe(t *testing.T) {
	at := func(offset int, text string) []byte {
		b := make([]byte, 8192)
		copy(b[offset:], text)
		return b
	}
	dirty := at(1080, "\x53\xef")
	dirty[1024+0x60] = 0x46
	clean := at(1080, "\x53\xef")
	clean[1024+0x60] = 0x42
	for _, tt := range []struct {
		name string
		data []byte
		want fileSystem
	}{
		{"squashfs", at(0, "hsqs"), fileSystem{kind: squashfs}},
		{"xfs", at(0, "XFSB"), fileSystem{kind: xfs}},
		{"erofs", at(1024, "\xe2\xe1\xf5\xe0"), fileSystem{kind: erofs}},
		{"ext4", clean, fileSystem{kind: ext4}},
		{"ext4 with a journal", dirty, fileSystem{kind: ext4, dirty: true}},
		{"zeros", make([]byte, 8192), fileSystem{}},
		{"big-endian squashfs", at(0, "sqsh"), fileSystem{}},
		{"short", []byte("hsqs"), fileSystem{}},
		{"nothing", nil, fileSystem{}},
	} {
		got, err := probe(bytes.NewReader(tt.data))
		if got != tt.want || (tt.want.kind == "") != errors.Is(err, unix.EMEDIUMTYPE) {
			t.Errorf("%s: %+v, error %v", tt.name, got, err)
		}
	}
}

// An ext4 that names a device of the host for its journal is refused.
func TestProbeForeignJournal(t *testing.T) {
	for name, change := range map[string]func(b []byte){
		"by its number": func(b []byte) { b[1024+0xe5] = 8 },
		"by an option":  func(b []byte) { copy(b[1024+0x200:], "acl,journal_path=/dev/sda") },
		"by its last":   func(b []byte) { copy(b[1024+0x200+52:], "journal_dev=") },
	} {
		b := make([]byte, 8192)
		copy(b[1080:], "\x53\xef")
		if _, err := probe(bytes.NewReader(b)); err != nil {
			t.Fatal(err)
		}
		change(b)
		if _, err := probe(bytes.NewReader(b)); !errors.Is(err, unix.EPERM) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

package oci

import (
	"bytes"
	"encoding/binary"
	"errors"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// superblock returns the beginning of an image.
func superblock(kind string, dirty bool) *bytes.Reader {
	b := make([]byte, probeSize)
	switch kind {
	case ext4:
		binary.LittleEndian.PutUint16(b[ext4MagicAt:], ext4Magic)
		if dirty {
			binary.LittleEndian.PutUint32(b[ext4Incompat:], ext4Recover)
		}
	case xfs:
		copy(b, "XFSB")
	case squashfs:
		copy(b, "hsqs")
	}
	return bytes.NewReader(b)
}

func TestOptionsForOthers(t *testing.T) {
	for _, test := range []struct {
		value, kind, fsType string
		dirty               bool
		want                []string
		err                 error
	}{
		{value: "", kind: squashfs, want: []string{"ro"}},
		{value: "", kind: ext4, want: []string{"ro", "errors=remount-ro"}},
		{value: "ro", kind: ext4, dirty: true, want: []string{"ro", "errors=remount-ro", "noload"}},
		{value: "rw", kind: ext4, dirty: true, want: []string{"rw", "errors=remount-ro"}},
		{value: "rw,sync,noatime,errors=continue", kind: ext4, want: []string{"rw", "noatime", "sync", "errors=continue"}},
		{value: "noatime", kind: xfs, want: []string{"ro", "noatime", "nouuid"}},
		{value: "rw", kind: squashfs, err: unix.EROFS},
		{value: "rw,noload", kind: xfs, err: unix.EINVAL},
		{value: "ro,rw", kind: ext4, err: unix.EINVAL},
		{value: "suid", kind: ext4, err: unix.EINVAL},
		{value: "", kind: "", err: unix.EMEDIUMTYPE},
		{value: "", kind: squashfs, fsType: squashfs, want: []string{"ro"}},
		{value: "", kind: squashfs, fsType: "auto", want: []string{"ro"}},
		{value: "", kind: squashfs, fsType: ext4, err: unix.EMEDIUMTYPE},
		{value: "", kind: squashfs, fsType: "btrfs", err: unix.EINVAL},
	} {
		o, err := ParseOptions(test.value)
		var fsType string
		var got []string
		if err == nil && test.fsType != "" {
			err = o.SetFileSystem(test.fsType)
		}
		if err == nil {
			fsType, got, err = o.For(t.Context(), superblock(test.kind, test.dirty))
		}
		if !errors.Is(err, test.err) {
			t.Errorf("%q of %q: %v, want %v", test.value, test.kind, err, test.err)
		}
		if err == nil && (fsType != test.kind || !slices.Equal(got, test.want)) {
			t.Errorf("%q of %q: %s %q, want %q", test.value, test.kind, fsType, got, test.want)
		}
	}
}

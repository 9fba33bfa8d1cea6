package oci

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"

	"golang.org/x/sys/unix"
)

// The file systems that an image may hold.
const (
	ext4     = "ext4"
	xfs      = "xfs"
	erofs    = "erofs"
	squashfs = "squashfs"
)

// fileSystem is what an image holds.
type fileSystem struct {
	kind  string
	dirty bool // ext4's journal is to be replayed
}

// probeSize is how much of an image tells: all superblocks are in there.
const probeSize = 4096

// ext4's superblock, at 1024 (fs/ext4/ext4.h): s_magic, s_feature_incompat.
const (
	ext4Magic    = 0xEF53
	ext4MagicAt  = 1024 + 0x38
	ext4Incompat = 1024 + 0x60
	ext4Recover  = 0x4 // EXT4_FEATURE_INCOMPAT_RECOVER
)

// erofsMagic is EROFS_SUPER_MAGIC_V1 of fs/erofs/erofs_fs.h, at 1024.
const (
	erofsMagic   = 0xE0F5E1E2
	erofsMagicAt = 1024
)

// probe finds out which file system there is. It returns an error that wraps
// EMEDIUMTYPE for none that it knows.
func probe(r io.ReaderAt) (fileSystem, error) {
	var b [probeSize]byte
	n, err := r.ReadAt(b[:], 0)
	if err != nil && !errors.Is(err, io.EOF) {
		return fileSystem{}, fmt.Errorf("read: %w", err)
	}
	le := binary.LittleEndian
	switch {
	case n < probeSize:
	case string(b[:4]) == "hsqs":
		return fileSystem{kind: squashfs}, nil
	case string(b[:4]) == "XFSB":
		return fileSystem{kind: xfs}, nil
	case le.Uint32(b[erofsMagicAt:]) == erofsMagic:
		return fileSystem{kind: erofs}, nil
	case le.Uint16(b[ext4MagicAt:]) == ext4Magic:
		return fileSystem{kind: ext4, dirty: le.Uint32(b[ext4Incompat:])&ext4Recover != 0}, nil
	}
	return fileSystem{}, fmt.Errorf("holds no file system of ext4, xfs, erofs, squashfs: %w", unix.EMEDIUMTYPE)
}

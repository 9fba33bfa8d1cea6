package oci

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/await"
)

// These are the supported file systems.
const (
	ext4     = "ext4"
	xfs      = "xfs"
	erofs    = "erofs"
	squashfs = "squashfs"
)

// fileSystem is the file system of an image.
type fileSystem struct {
	kind  string
	dirty bool // ext4's journal needs a replay
}

// fsType is the type of a file system that a device must have, "" for any.
type fsType string

// fsTypes lists the supported file systems.
var fsTypes = []string{ext4, xfs, erofs, squashfs}

// parse parses the value of a setting.
func (t *fsType) parse(value string) error {
	if value == auto {
		return nil
	}
	if !slices.Contains(fsTypes, value) {
		return fmt.Errorf("not one of auto, %s: %w", strings.Join(fsTypes, ", "), unix.EINVAL)
	}
	*t = fsType(value)
	return nil
}

// probe detects the file system of a device. It returns an error that wraps EMEDIUMTYPE if
// the device has another file system, or an unknown one, and the context's cause if the device does not
// answer in time.
func (t fsType) probe(ctx context.Context, device io.ReaderAt) (fileSystem, error) {
	fs, err := await.Result(ctx, func() (fileSystem, error) { return probe(device) })
	if err == nil && t != "" && string(t) != fs.kind {
		err = fmt.Errorf("holds %s, not %s: %w", fs.kind, t, unix.EMEDIUMTYPE)
	}
	return fs, err
}

// probeSize is the size of the part of an image that contains all superblocks.
const probeSize = 4096

// These describe ext4's superblock, at 1024 (fs/ext4/ext4.h): s_magic, s_feature_incompat,
// s_journal_dev, s_mount_opts.
const (
	ext4Magic       = 0xEF53
	ext4MagicAt     = 1024 + 0x38
	ext4Incompat    = 1024 + 0x60
	ext4JournalDev  = 1024 + 0xE4
	ext4MountOpts   = 1024 + 0x200
	ext4OptsLength  = 64
	ext4Recover     = 0x4        // EXT4_FEATURE_INCOMPAT_RECOVER
	ext4JournalWord = "journal_" // of the options journal_path and journal_dev
)

// erofsMagic is EROFS_SUPER_MAGIC_V1 of fs/erofs/erofs_fs.h, at 1024.
const (
	erofsMagic   = 0xE0F5E1E2
	erofsMagicAt = 1024
)

// probe detects the file system. It returns an error that wraps EMEDIUMTYPE for an
// unknown one.
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
		return fileSystem{kind: ext4, dirty: le.Uint32(b[ext4Incompat:])&ext4Recover != 0}, checkJournal(b[:])
	}
	return fileSystem{}, fmt.Errorf("has no file system of type ext4, xfs, erofs or squashfs: %w", unix.EMEDIUMTYPE)
}

// checkJournal refuses an ext4 whose journal is on another device. The mount would open that device
// for writes, and the image could name any of the host. It returns an error that wraps EPERM.
func checkJournal(b []byte) error {
	options := string(b[ext4MountOpts : ext4MountOpts+ext4OptsLength])
	if binary.LittleEndian.Uint32(b[ext4JournalDev:]) == 0 && !strings.Contains(options, ext4JournalWord) {
		return nil
	}
	return fmt.Errorf("has an ext4 whose journal is on another device: %w", unix.EPERM)
}

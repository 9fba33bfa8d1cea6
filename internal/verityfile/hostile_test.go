package verityfile

import (
	"bytes"
	"encoding/asn1"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
)

// Limits of Open for any image: bytes that it allocates, and system calls that read.
const (
	openBytes = 16 << 20
	openReads = 20000
)

// reads returns how many system calls of this process have read.
func reads(t testing.TB) (n int64) {
	t.Helper()
	for line := range strings.Lines(string(read(t, "/proc/self/io"))) {
		if _, err := fmt.Sscanf(line, "syscr: %d", &n); err == nil {
			return n
		}
	}
	t.Fatal("no number of reads in /proc/self/io")
	return 0
}

// bounded calls Open for disk.raw, and fails the test if that needs more than the limits.
func bounded(t testing.TB, dir string, where Location) (*Device, error) {
	t.Helper()
	image, err := loop.OpenPath(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	where.Opener = openForTest
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	readBefore := reads(t)
	d, err := Open(image, &where)
	calls := reads(t) - readBefore
	runtime.ReadMemStats(&after)
	if n := after.TotalAlloc - before.TotalAlloc; n > openBytes || calls > openReads {
		t.Errorf("%d bytes allocated, %d reads", n, calls)
	}
	if d != nil {
		for _, f := range d.Files[1:] {
			_ = f.Close()
		}
	}
	return d, err
}

// sparse makes disk.raw of a size, with bytes at offsets.
func sparse(t testing.TB, size int64, parts map[int64][]byte) (dir string) {
	t.Helper()
	dir = t.TempDir()
	f, err := os.Create(filepath.Join(dir, "disk.raw"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err = f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	for at, b := range parts {
		if _, err = f.WriteAt(b, at); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// superblockOf returns a superblock with fields that need not be possible.
func superblockOf(algorithm string, data, hash uint32, blocks uint64, salt uint16) []byte {
	b := make([]byte, verity.SuperblockSize)
	copy(b, "verity\x00\x00")
	binary.LittleEndian.PutUint32(b[8:], 1)
	binary.LittleEndian.PutUint32(b[12:], 1)
	copy(b[32:], algorithm)
	binary.LittleEndian.PutUint32(b[64:], data)
	binary.LittleEndian.PutUint32(b[68:], hash)
	binary.LittleEndian.PutUint64(b[72:], blocks)
	binary.LittleEndian.PutUint16(b[80:], salt)
	return b
}

// A signature that is nested deeply, or has many elements, is refused with little memory, and so in
// little time.
func TestHostileSignature(t *testing.T) {
	nested := []byte{asn1.TagNull, 0}
	for len(nested) < 16<<10 {
		nested = element(t, nested)
	}
	for name, signature := range map[string][]byte{
		"indefinite lengths":        slices.Concat(bytes.Repeat([]byte{0x30, 0x80}, 4000), []byte{5, 1, 1}, bytes.Repeat([]byte{0, 0}, 4000)),
		"deep":                      nested,
		"many elements":             element(t, bytes.Repeat([]byte{asn1.TagNull, 0}, maxSignature/2-4)),
		"behind something harmless": element(t, slices.Concat([]byte{asn1.TagNull, 0}, nested)),
	} {
		var before, after runtime.MemStats
		runtime.ReadMemStats(&before)
		err := checkSignature(make([]byte, 32), signature, nil)
		runtime.ReadMemStats(&after)
		if n := after.TotalAlloc - before.TotalAlloc; !errors.Is(err, unix.EKEYREJECTED) || n > openBytes {
			t.Errorf("%s: %d bytes allocated, error %v", name, n, err)
		}
	}
}

// element returns a sequence of DER with a content.
func element(t *testing.T, content []byte) []byte {
	t.Helper()
	text, err := asn1.Marshal(asn1.RawValue{Tag: asn1.TagSequence, IsCompound: true, Bytes: content})
	if err != nil {
		t.Fatal(err)
	}
	return text
}

// A superblock can claim anything, for an image of 4 TiB, most of which are holes: Open ends soon,
// with little memory.
func TestOpenHostileSuperblock(t *testing.T) {
	const size, at = 4 << 40, 1 << 40
	root := strings.Repeat("00", 32)
	for _, tt := range []struct {
		superblock []byte
		root       string
		want       error
	}{
		{superblockOf("sha256", 4096, 4096, at/4096, 0), root, verity.ErrMismatch},
		{superblockOf("sha512", 512, 512, at/512, 0), root + root, verity.ErrMismatch}, // 11 levels
		{superblockOf("sha1", 512, 512<<10, at/512, 256), root[:40], verity.ErrMismatch},
		{superblockOf("sha256", 512, 512, at/512+1, 0), root, unix.EINVAL}, // into the superblock
		{superblockOf("sha256", 4096, 4096, math.MaxUint64, 0), root, verity.ErrTooLarge},
		{superblockOf("sha256", 4096, 4096, 1<<51, 0), root, verity.ErrTooLarge},
		{superblockOf("sha512", 512, 512, 1<<54, 0), root + root, verity.ErrTooLarge},
		{superblockOf("sha512", 512, 512, 1<<53, 0), root + root, unix.EINVAL}, // 18 levels
		{superblockOf("sha256", 0, 4096, 1, 0), root, verity.ErrInvalid},
		{superblockOf("sha256", 4096, 1, 1, 0), root, verity.ErrInvalid},
		{superblockOf("sha256", math.MaxUint32, 4096, 1, 0), root, verity.ErrInvalid},
		{superblockOf("sha256", 4096, 1<<31, 1, 0), root, verity.ErrInvalid},
		{superblockOf("sha256", 4096, 4096, 0, 0), root, verity.ErrInvalid},
		{superblockOf("sha256", 4096, 4096, 1, math.MaxUint16), root, verity.ErrInvalid},
		{superblockOf("sha256", 4096, 4096, at/4096, 0), root[:40], verity.ErrInvalid},
	} {
		offset := uint64(at)
		dir := sparse(t, size, map[int64][]byte{at: tt.superblock})
		if _, err := bounded(t, dir, Location{RootHash: tt.root, HashOffset: &offset}); !errors.Is(err, tt.want) {
			t.Errorf("%x: %v, want %v", tt.superblock[32:82], err, tt.want)
		}
		if _, err := bounded(t, dir, Location{RootHash: tt.root}); !errors.Is(err, verity.ErrNoSuperblock) {
			t.Errorf("%x without an offset: %v", tt.superblock[32:82], err)
		}
	}
}

// An offset, also from a file beside the image, can be anything.
func TestOpenHostileOffset(t *testing.T) {
	root := strings.Repeat("00", 32)
	for _, offset := range []uint64{1, 511, 1 << 20, math.MaxInt64 &^ 511, 1 << 63, math.MaxUint64 &^ 511} {
		dir := sparse(t, 1<<20, nil)
		if d, err := bounded(t, dir, Location{RootHash: root, HashOffset: &offset}); err == nil {
			t.Errorf("offset %d: %+v", offset, d)
		}
		write(t, filepath.Join(dir, "disk.raw.dmverity"), fmt.Appendf(nil, `{"roothash":%q,"hashoffset":%d}`, root, offset))
		if d, err := bounded(t, dir, Location{RootHash: "auto"}); err == nil {
			t.Errorf("offset %d beside the image: %+v", offset, d)
		}
	}
}

// Any bytes at the start of an image, at a superblock and beside the image lead to an error, or to
// tables that are valid, within the limits.
func FuzzOpen(f *testing.F) {
	const size, at = 1 << 20, 512 << 10
	f.Add([]byte("data"), superblockOf("sha256", 512, 512, 1, 0), []byte(nil), false) // is opened
	f.Add([]byte("x"), superblockOf("sha512", 4096, 1024, at/4096, 0), []byte(`{"roothash":"00","hashoffset":524288}`), true)
	f.Add(bytes.Repeat([]byte{0xee}, 2048), []byte(nil), []byte(`{"hashoffset":18446744073709551104}`), false)
	f.Fuzz(func(t *testing.T, start, superblock, beside []byte, auto bool) {
		start, superblock = start[:min(len(start), at)], superblock[:min(len(superblock), verity.SuperblockSize)]
		dir := sparse(t, size, map[int64][]byte{0: start, at: superblock})
		write(t, filepath.Join(dir, "disk.raw.dmverity"), beside)
		offset := uint64(at)
		where := Location{RootHash: strings.Repeat("00", 32), HashOffset: &offset}
		if s, err := verity.ParseSuperblock(superblock); err == nil && s.DataBlocks == 1 && s.DataBlockSize <= 4096 {
			if tree, err := verity.NewTree(s.Params, verity.TreeOffset(at, s.HashBlockSize)); err == nil {
				data := make([]byte, s.DataBlockSize)
				copy(data, start)
				root, err := tree.Build(bytes.NewReader(data), discard{})
				if err != nil {
					t.Fatal(err)
				}
				where.RootHash = hex.EncodeToString(root)
			}
		}
		if auto {
			where = Location{RootHash: "auto"}
		}
		d, err := bounded(t, dir, where)
		if err != nil {
			return
		}
		tables, err := table.Parse([]byte(d.Table), table.Options{})
		if err != nil || tables.Sectors() != d.Bytes/512 || len(tables.Devices()) != len(d.Files) {
			t.Errorf("%q of %d bytes, %d files: %v", d.Table, d.Bytes, len(d.Files), err)
		}
	})
}

// discard takes anything.
type discard struct{}

func (discard) WriteAt(b []byte, _ int64) (int, error) { return len(b), nil }

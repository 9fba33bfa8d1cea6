package stack

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

// fuzzed is a store of the fuzzer, and the device over it.
type fuzzed struct {
	header  []byte
	records []byte
	front   uint16 // valid records before the others
	size    uint32 // of the store in bytes
	sectors uint16 // of the device
	line    uint8  // chooses format, chunk size of the table, and whether the device is read-only
}

const (
	maxFuzzStore   = 3 << 20
	maxFuzzSectors = 1024
)

// chunkSize returns the size of a chunk that the header claims, if it is possible.
func (f *fuzzed) chunkSize() int {
	if len(f.header) < 16 {
		return 4096
	}
	size := uint64(binary.LittleEndian.Uint32(f.header[12:])) * 512
	return int(max(4096, min(size, 1<<20)))
}

// content returns the bytes of the store.
func (f *fuzzed) content() []byte {
	chunk := f.chunkSize()
	b := append(bytes.Clone(f.header), make([]byte, chunk)...)[:chunk]
	for i := range uint64(f.front) % uint64(chunk/16+1) {
		b = binary.LittleEndian.AppendUint64(b, i)
		b = binary.LittleEndian.AppendUint64(b, i+2)
	}
	b = append(b, f.records...)
	return append(b, make([]byte, maxFuzzStore)...)[:f.size%maxFuzzStore]
}

// text returns the table.
func (f *fuzzed) text() string {
	format := []string{"P", "PO", "N", "P"}[f.line&3]
	return fmt.Sprintf("0 %d snapshot $A $B %s %d", f.originSectors(), format, 8<<(f.line>>2&7))
}

// originSectors returns the size of the origin, which is the size of the device.
func (f *fuzzed) originSectors() uint64 { return uint64(1 + f.sectors%maxFuzzSectors) }

// shows returns the chunks that the store replaces, by the rules of docs/cow.md, or false if it
// breaks one. The store is valid, and its chunk size is possible.
func (f *fuzzed) shows(store []byte) (replaced map[uint64]uint64, ok bool) {
	chunk := uint64(f.chunkSize())
	chunks, origin := uint64(len(store))/chunk, (f.originSectors()*512+chunk-1)/chunk
	replaced, used := map[uint64]uint64{}, map[uint64]bool{}
	for area := uint64(1); ; area += chunk/16 + 1 {
		if area >= chunks {
			return nil, false
		}
		for at := area * chunk; at < (area+1)*chunk; at += 16 {
			from, to := binary.LittleEndian.Uint64(store[at:]), binary.LittleEndian.Uint64(store[at+8:])
			if to == 0 {
				return replaced, true
			}
			_, twice := replaced[from]
			if from >= origin || to >= chunks || to == 0 || to%(chunk/16+1) == 1 || twice || used[to] {
				return nil, false
			}
			replaced[from], used[to] = to, true
		}
	}
}

// storeHeader returns the header of a store.
func storeHeader(chunk uint32) []byte {
	l, _ := snapshot.NewLayout(chunk)
	return snapshot.Header{Valid: true, Layout: l}.Append(nil)
}

// A device can get a store with any bytes and of any size. It is refused with the name of its file
// and keeps its bytes, or the device has exactly the exceptions that the store has by the rules of
// the format. The memory for that does not depend on what the store claims.
func FuzzOpenStore(f *testing.F) {
	for _, chunk := range []uint32{4096, 8192, 1 << 20} {
		for _, records := range [][]uint64{nil, {9, 12}, {9, 12, 9, 13}, {9, 12, 10, 12}, {9, 1}, {9, 1 << 40}, {1 << 62, 12}, {9, 12, 0, 0, 10, 12}, {9, 700}, {127, 12}} {
			b := []byte(nil)
			for _, n := range records {
				b = binary.LittleEndian.AppendUint64(b, n)
			}
			for _, front := range []uint16{0, 3, uint16(chunk / 16)} {
				f.Add(storeHeader(chunk), b, front, uint32(2<<20), uint16(1023), uint8(front))
			}
			f.Add(storeHeader(chunk), b, uint16(255), chunk*258, uint16(1023), uint8(8))
		}
	}
	f.Add([]byte("SnAp\x01\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x80"), []byte(nil), uint16(0), uint32(1<<20), uint16(500), uint8(0))
	f.Add([]byte("SnAp\x00\x00\x00\x00\x01\x00\x00\x00\x08\x00\x00\x00"), []byte(nil), uint16(0), uint32(1<<20), uint16(500), uint8(1))
	f.Add([]byte(nil), []byte(nil), uint16(0), uint32(1<<20), uint16(500), uint8(2))
	f.Fuzz(func(t *testing.T, header, records []byte, front uint16, size uint32, sectors uint16, line uint8) {
		z := &fuzzed{header[:min(len(header), 4096)], records[:min(len(records), 1<<16)], front, size, sectors, line}
		openFuzzed(t, z)
	})
}

func openFuzzed(t *testing.T, f *fuzzed) {
	dir, err := os.MkdirTemp("/dev/shm", "store") // the name of t.TempDir has a #, and a flush takes long on a disk
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = os.RemoveAll(dir) }()
	store, path := f.content(), filepath.Join(dir, "B")
	for name, content := range map[string][]byte{"A": make([]byte, f.originSectors()*512), "B": store} {
		file := filepath.Join(dir, name)
		err := os.WriteFile(file, bytes.TrimRight(content, "\x00"), 0o600)
		if err = errors.Join(err, os.Truncate(file, int64(len(content)))); err != nil {
			t.Fatal(err)
		}
	}
	o := &Options{DirectIO: backing.SwitchOff, ReadOnly: f.line&0x80 != 0}
	s, err := openBounded(t, dir, f.text(), o)
	if err != nil {
		checkRefused(t, f, err, store, path)
		return
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	x := s.stores[0]
	if x.IsTransient() || x.Usage().State != "" {
		return // the store's records do not count
	}
	want, ok := map[uint64]uint64{}, true
	if len(store) >= 16 && binary.LittleEndian.Uint32(store) != 0 {
		want, ok = f.shows(store)
	}
	if !ok {
		t.Fatal("a store that breaks a rule is served")
	}
	for old := range x.Index.Len() {
		slot := x.Index.Lookup(old)
		to, has := want[old]
		if slot.Replaced() != has || has && slot.Chunk() != to {
			t.Fatalf("chunk %d: slot %x, want chunk %d, %v", old, slot, to, has)
		}
	}
	if n := x.Left(); n != uint64(len(want)) {
		t.Fatalf("%d exceptions, want %d", n, len(want))
	}
}

// openBounded opens a device, and checks how much memory that has taken.
func openBounded(t *testing.T, dir, text string, o *Options) (*Stack, error) {
	t.Helper()
	var before, after runtime.MemStats
	runtime.ReadMemStats(&before)
	s, err := open(t, dir, text, o)
	runtime.ReadMemStats(&after)
	const most = 32 << 20 // eight areas, lists of records, and the bitmap of the store
	if took := after.TotalAlloc - before.TotalAlloc; took > most {
		t.Errorf("%d MiB were allocated", took>>20)
	}
	return s, err
}

// checkRefused checks that a store was refused with its name, and has not changed.
func checkRefused(t *testing.T, f *fuzzed, err error, store []byte, path string) {
	t.Helper()
	var errno unix.Errno
	if !strings.Contains(err.Error(), path) || strings.Contains(err.Error(), "\n") {
		t.Errorf("the error does not name %s in one line: %v", path, err)
	}
	if !errors.As(err, &errno) && !isErrno(err) {
		t.Errorf("the error has no errno: %v", err)
	}
	now, readErr := os.ReadFile(path)
	if readErr != nil || !bytes.Equal(now, store) {
		t.Errorf("the store has changed, error %v", readErr)
	}
}

// isErrno reports whether an error is one of those that a store can cause.
func isErrno(err error) bool {
	for _, errno := range []unix.Errno{unix.EINVAL, unix.ENXIO, unix.EFBIG, unix.ENOMEM, unix.EIO, unix.EPERM} {
		if errors.Is(err, errno) {
			return true
		}
	}
	return false
}

package e2e

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// hostileChunk is the size of a chunk of the stores of TestKernelHostileStores. An area has
// hostileRecords records.
const (
	hostileChunk   = 4096
	hostileRecords = hostileChunk / 16
)

// damage is a change of a valid store, and what the error says.
type damage struct {
	name, says string
	change     func(store []byte) []byte
}

// at changes numbers of 32 bits in the header.
func at(offset int, n uint32) func([]byte) []byte {
	return func(store []byte) []byte {
		binary.LittleEndian.PutUint32(store[offset:], n)
		return store
	}
}

// withRecords writes records to the first area.
func withRecords(numbers ...uint64) func([]byte) []byte {
	return func(store []byte) []byte {
		for i, n := range numbers {
			binary.LittleEndian.PutUint64(store[hostileChunk+8*i:], n)
		}
		return store
	}
}

// fullArea fills the first area, and cuts off what is behind its chunks and some bytes.
func fullArea(more int) func([]byte) []byte {
	return func(store []byte) []byte {
		var numbers []uint64
		for i := range uint64(hostileRecords) {
			numbers = append(numbers, i, i+2)
		}
		return withRecords(numbers...)(store)[:(hostileRecords+2)*hostileChunk+more]
	}
}

func cutTo(size int) func([]byte) []byte { return func(store []byte) []byte { return store[:size] } }

var damages = []damage{
	{"signature", "no snapshot store", at(0, 1)},
	{"version", "unsupported version", at(8, 2)},
	{"chunk size 0", "invalid chunk size", at(12, 0)},
	{"chunk size of 24 sectors", "invalid chunk size", at(12, 24)},
	{"chunk size of 4 sectors", "invalid chunk size", at(12, 4)},
	{"chunk size of 2 MiB", "invalid chunk size", at(12, 4096)},
	{"largest chunk size", "invalid chunk size", at(12, 1<<31)},
	{"records of another chunk size", "old chunk is outside the origin", func(store []byte) []byte {
		copy(store[2*hostileChunk:], "\xff\xff\xff\x7f\x00\x00\x00\x00\x03") // in the area of larger chunks
		return at(12, 2*hostileChunk/512)(store)
	}},
	{"label", "label", at(528, 7)},
	{"old chunk outside", "old chunk is outside the origin", withRecords(0, 2, 256, 3)},
	{"largest old chunk", "old chunk is outside the origin", withRecords(1<<64-1, 2)},
	{"new chunk outside", "new chunk is outside the store", withRecords(0, 1<<40)},
	{"largest new chunk", "new chunk is outside the store", withRecords(0, 1<<64-1)},
	{"area as a new chunk", "new chunk has metadata", withRecords(0, 1)},
	{"next area as a new chunk", "new chunk has metadata", withRecords(0, 2, 1, hostileRecords+2)},
	{"old chunk twice", "old chunk has two records", withRecords(0, 2, 0, 3)},
	{"new chunk twice", "new chunk has two records", withRecords(0, 2, 1, 2)},
	{"no area behind a full one", "the next area is outside the store", fullArea(0)},
	{"half of an area behind a full one", "the next area is outside the store", fullArea(hostileChunk / 2)},
	{"two chunks", "store too small", cutTo(2 * hostileChunk)},
	{"a part of the header", "unexpected EOF", cutTo(700)},
}

// A store that breaks a rule is refused, by a process of its own and by serve. The error names the
// file and the rule, and the file keeps its content.
func TestKernelHostileStores(t *testing.T) {
	b := kernelBed(t, ublktest.Once)
	base := b.image(1 << 20)
	store := filepath.Join(filepath.Dir(base), "store")
	b.ok("cow", "create", store, "--origin", base, "--chunk=4K")
	valid := b.readFile(store)
	try := func(every int) {
		for i, d := range damages {
			if i%every != 0 {
				continue
			}
			content := d.change([]byte(valid))
			if err := os.WriteFile(store, content, 0o600); err != nil {
				t.Fatal(err)
			}
			t.Run(d.name, func(t *testing.T) { b.run("add", base, "--cow", store).fails(t, 1, store, d.says) })
			if b.readFile(store) != string(content) {
				t.Errorf("%s: the store has changed", d.name)
			}
		}
		if err := os.WriteFile(store, []byte(valid), 0o600); err != nil {
			t.Fatal(err)
		}
		b.del(b.add(base, "--cow", store).Device)
	}
	t.Run("process", func(*testing.T) { try(1) })
	s := b.serve()
	t.Run("serve", func(*testing.T) { try(4) })
	s.stop()
}

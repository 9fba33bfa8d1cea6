package stack

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// layered is a stack with crypt above stripes, crypt above crypt, parts without crypt, and
// sectors of several sizes.
const layered = "low,,,,0 64 striped 2 8 $A 200 $B 104,64 64 linear $C 8;" +
	"one,,,,0 96 crypt aes-xts-plain64 :64:user:a 8 /dev/mapper/low 16;" +
	"top,,,,0 48 linear /dev/mapper/one 48,48 16 linear $D 0,64 48 crypt aes-xts-plain64 :32:user:b 0 /dev/mapper/one 0 2 sector_size:4096 iv_large_sectors," +
	"112 8 crypt aes-xts-plain64 :64:user:c 0 /dev/mapper/one 88"

// keysFor returns keys of these lengths, one after another.
func keysFor(t *testing.T, lengths ...int) *transfer.Secret {
	t.Helper()
	n := 0
	for _, length := range lengths {
		n += length
	}
	keys, err := transfer.NewSecret(n)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(keys.Close)
	for i := range keys.Bytes() {
		keys.Bytes()[i] = byte(i * 7)
	}
	return keys
}

// definition finds the bytes of a stack sector by sector, by the definition of each target.
type definition struct {
	t      *testing.T
	tables *table.Stack
	files  map[string][]byte // by the device of the tables
	keys   []byte
	made   map[*table.Crypt]transfer.Transfer
}

// sector returns a sector of a table.
func (d *definition) sector(tableNumber int, n uint64) []byte {
	d.t.Helper()
	for i := range d.tables.Tables[tableNumber].Lines {
		l := &d.tables.Tables[tableNumber].Lines[i]
		if n >= l.Start+l.Length {
			continue
		}
		in := n - l.Start
		switch target := l.Target.(type) {
		case *table.Linear:
			return d.below(target.Location, in)
		case *table.Striped:
			chunk, stripes := uint64(target.Chunk), uint64(len(target.Stripes))
			return d.below(target.Stripes[in/chunk%stripes], in/chunk/stripes*chunk+in%chunk)
		case *table.Crypt:
			return d.crypt(target, in)
		}
	}
	d.t.Fatal("a sector outside of the table")
	return nil
}

func (d *definition) below(l table.Location, in uint64) []byte {
	if i, ok := d.tables.Table(l.Device); ok {
		return d.sector(i, l.Start+in)
	}
	return bytes.Clone(d.files[l.Device][(l.Start+in)*512:][:512])
}

// crypt decrypts the sector of the cipher that has a sector of a line.
func (d *definition) crypt(c *table.Crypt, in uint64) []byte {
	d.t.Helper()
	unit := uint64(c.SectorSize / 512)
	var data []byte
	for i := range unit {
		data = append(data, d.below(c.Location, in/unit*unit+i)...)
	}
	d.cipher(c).Decrypt(data, in/unit*unit)
	return data[in%unit*512:][:512]
}

// cipher returns the cipher of a line.
func (d *definition) cipher(c *table.Crypt) transfer.Transfer {
	d.t.Helper()
	if d.made[c] == nil {
		key, err := transfer.NewSecret(c.Key.Bytes)
		if err != nil {
			d.t.Fatal(err)
		}
		copy(key.Bytes(), d.keys[map[string]int{"a": 0, "b": 64, "c": 96}[c.Key.Description]:])
		opts := transfer.Options{SectorSize: c.SectorSize, IVOffset: c.IVOffset, IVLargeSectors: c.IVLargeSectors}
		if d.made[c], err = transfer.New(c.Cipher, key, opts); err != nil {
			d.t.Fatal(err)
		}
		d.t.Cleanup(func() { _ = d.made[c].Close() })
	}
	return d.made[c]
}

// newLayered makes a device of layers, and the definition of its bytes.
func newLayered(t *testing.T) (*bed, func() []byte) {
	t.Helper()
	dir := t.TempDir()
	makeFiles(t, dir)
	keys := keysFor(t, 64, 32, 64)
	s, err := open(t, dir, layered, &Options{DirectIO: backing.SwitchOff, Keys: keys})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	parts := s.ExtraParts(4)
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: 4, Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
	b := &bed{Disk: disk, t: t, dir: dir, stack: s}
	d := &definition{t: t, tables: s.tables, files: map[string][]byte{}, keys: keys.Bytes(), made: map[*table.Crypt]transfer.Transfer{}}
	return b, func() []byte {
		for i, content := range b.contents() {
			d.files[s.Backings[i].Path] = content
		}
		var all []byte
		for n := range s.Size / 512 {
			all = append(all, d.sector(len(s.tables.Tables)-1, n)...)
		}
		return all
	}
}

// Reads and writes of any size through layers of crypt have the bytes that the definitions of
// the targets give.
func TestLayers(t *testing.T) {
	b, definition := newLayered(t)
	random := rand.New(rand.NewPCG(5, 6))
	content := definition()
	for range 60 {
		start := random.Uint64N(15) * 8 // the largest logical block
		sectors := 8 * (1 + random.Uint64N(15-start/8))
		r := b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: start, Sectors: uint32(sectors)})
		if want := content[start*512:][:sectors*512]; !bytes.Equal(r.Data, want) {
			t.Fatalf("read of %d sectors at %d: other bytes, result %d", sectors, start, r.Result)
		}
		data := make([]byte, sectors*512)
		for i := range data {
			data[i] = byte(random.Uint32())
		}
		r = b.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: start, Sectors: uint32(sectors), Data: data})
		if r.Result != int32(len(data)) {
			t.Fatalf("write of %d sectors at %d: result %d", sectors, start, r.Result)
		}
		content = definition()
		if !bytes.Equal(content[start*512:][:sectors*512], data) {
			t.Fatalf("write of %d sectors at %d: other bytes", sectors, start)
		}
	}
}

// A write that continues after a short result is not encrypted twice, and a failed read is not
// decrypted.
func TestLayersAndRetries(t *testing.T) {
	b, definition := newLayered(t)
	data := slices.Repeat([]byte{1, 2, 3, 4}, 2048)
	r := b.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: 16, Data: data, Answers: []int32{-int32(unix.EINTR)}})
	if r.Result != 8192 || !bytes.Equal(definition()[:8192], data) {
		t.Errorf("write: result %d, or other bytes", r.Result)
	}
	r = b.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 16, Answers: []int32{-int32(unix.EIO)}})
	if r.Result != -int32(unix.EIO) {
		t.Errorf("read: result %d", r.Result)
	}
	r = b.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 16})
	if !bytes.Equal(r.Data, data) {
		t.Error("read: other bytes")
	}
}

// The keys must be those of the lines, and are wiped with the stack.
func TestKeysOfLines(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	const text = "0 8 crypt aes-xts-plain64 :64:user:a 0 $A 0\n8 8 crypt aes-xts-plain64 :32:user:b 0 $B 0"
	for _, tt := range []struct {
		lengths []int
		want    error
		prefix  string
	}{
		{nil, transfer.ErrNoKey, "line 1: crypt: "},
		{[]int{64}, transfer.ErrNoKey, "line 2: crypt: "},
		{[]int{64, 64}, unix.EINVAL, "32 bytes of keys too many"},
	} {
		o := &Options{}
		if tt.lengths != nil {
			o.Keys = keysFor(t, tt.lengths...)
		}
		if _, err := open(t, dir, text, o); !errors.Is(err, tt.want) || !strings.HasPrefix(err.Error(), tt.prefix) {
			t.Errorf("keys of %v: %v", tt.lengths, err)
		}
	}
	equal := keysFor(t, 64, 32)
	clear(equal.Bytes()[64:])
	if _, err := open(t, dir, text, &Options{Keys: equal}); !errors.Is(err, transfer.ErrKey) || !strings.HasPrefix(err.Error(), "line 2: crypt: ") {
		t.Errorf("equal halves: %v", err)
	}
	s, err := open(t, dir, text, &Options{Keys: keysFor(t, 64, 32)})
	if err != nil {
		t.Fatal(err)
	}
	ciphers := s.transfers
	if err := s.Close(); err != nil || len(ciphers) != 2 {
		t.Fatal(err)
	}
	for _, c := range ciphers {
		func() {
			defer func() {
				if recover() == nil {
					t.Error("a cipher has its key still")
				}
			}()
			c.Encrypt(make([]byte, 512), 0)
		}()
	}
}

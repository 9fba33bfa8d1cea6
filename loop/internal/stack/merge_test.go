package stack

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/internal/hint"
	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/basemark"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/transfer/verity"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// gate holds requests as ublk.Device.Hold does: it lets none begin, and waits for the others.
type gate struct {
	sync.RWMutex
	holds   int
	waiting func() // called before the device holds its requests
	seen    func() // called when the device holds its requests
	resumed func() // called when it does not any more
}

func (g *gate) hold() (func(), error) {
	if g.waiting != nil {
		g.waiting()
	}
	g.Lock()
	g.holds++
	if g.seen != nil {
		g.seen()
	}
	return func() {
		g.Unlock()
		if g.resumed != nil {
			g.resumed()
		}
	}, nil
}

// write writes to the device and the model, some writers at once. Each has its own sectors of the
// chunks.
func (g *gate) write(b *bed, model []byte, seed uint64, writes int) {
	var writers sync.WaitGroup
	for w := range uint64(snapshotDepth) {
		random := rand.New(rand.NewPCG(seed, w))
		writers.Go(func() {
			for i := range writes {
				at := random.Uint64N(uint64(len(model))/512/snapshotDepth)*snapshotDepth + w
				data := bytes.Repeat([]byte{byte(seed), byte(w), byte(i), byte(at)}, 128)
				g.RLock()
				r := b.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 1, Data: data})
				if r.Result == 512 {
					r = b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: at, Sectors: 1})
				}
				copy(model[at*512:], data)
				g.RUnlock()
				if r.Result != 512 || !bytes.Equal(r.Data, data) {
					b.t.Errorf("sector %d: result %d, or other data", at, r.Result)
					return
				}
			}
		})
	}
	writers.Wait()
}

// shownBy returns what a snapshot of A with the store B shows.
func shownBy(t *testing.T, dir string, sectors int) (image []byte, exceptions uint64) {
	t.Helper()
	read := func(name string) []byte {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	image = read("A")[:sectors*512]
	store := read("B")
	h, err := snapshot.ReadHeader(bytes.NewReader(store))
	if err != nil {
		t.Fatal(err)
	}
	l := h.Layout
	s, err := snapshot.Scan(bytes.NewReader(store), l, uint64(len(store)), func(e snapshot.Record) error {
		copy(image[l.Offset(e.Old):], store[l.Offset(e.New):][:l.ChunkSize()])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return image, s.Records(l)
}

// merge merges while the device is written to or idle.
func (b *bed) merge(g *gate) *Merge {
	b.t.Helper()
	m, err := b.stack.NewMerge()
	if err != nil {
		b.t.Fatal(err)
	}
	m.run = m.run[:5] // more runs
	if err := m.Do(context.Background(), g.hold); err != nil {
		b.t.Error(err)
	}
	if err := m.Close(); err != nil {
		b.t.Error(err)
	}
	return m
}

// No write is lost while a device is merged, and each read gets the last write. Afterwards the base
// has everything, the store is empty, and it can be used again. At each moment when the device
// holds its requests, base and store together show what was written before.
func TestMergeUnderIO(t *testing.T) {
	for _, o := range []Options{{}, {Eager: true}} {
		dir := snapshotDir(t)
		if err := os.Truncate(filepath.Join(dir, "B"), 4<<20); err != nil {
			t.Fatal(err)
		}
		const sectors = 509
		if err := os.Truncate(filepath.Join(dir, "A"), sectors*512); err != nil {
			t.Fatal(err)
		}
		text := "0 509 snapshot $A $B P 8"
		serve(t, dir, text, o, func(b *bed) {
			model := b.whole()
			g := &gate{}
			g.write(b, model, 1, 20)
			last := bytes.Repeat([]byte{7}, 512) // in the chunk that the origin has only a part of
			b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: sectors - 1, Sectors: 1, Data: last})
			copy(model[(sectors-1)*512:], last)
			g.seen = func() {
				if err := b.stack.Save(); err != nil {
					t.Error(err)
				}
				if image, _ := shownBy(t, dir, sectors); !bytes.Equal(image, model) {
					t.Error("base and store show something else")
				}
			}
			merged := make(chan *Merge, 1)
			lastBytesOf(t, 3*4096)
			go func() { merged <- b.merge(g) }() // received below
			g.write(b, model, 2, 60)
			m := <-merged
			if m.Chunks < 50 || g.holds < 10 {
				t.Errorf("%d chunks in %d runs", m.Chunks, g.holds)
			}
			if got := b.whole(); !bytes.Equal(got, model) {
				t.Error("the device has other data")
			}
			g.seen = nil
			b.merge(g)
			if image, n := shownBy(t, dir, sectors); n != 0 || !bytes.Equal(image, model) {
				t.Errorf("%d exceptions are left, or the base has other data", n)
			}
			if u := b.stack.stores[0].Usage(); u.Allocated != 16 || u.Metadata != 16 || u.State != "" {
				t.Errorf("usage %+v", u)
			}
			g.write(b, model, 3, 5)
			if got := b.whole(); !bytes.Equal(got, model) {
				t.Error("the device has other data after the merge")
			}
		})
		base, err := os.ReadFile(filepath.Join(dir, "A"))
		if err != nil {
			t.Fatal(err)
		}
		if len(base) != sectors*512 {
			t.Errorf("the base has %d bytes", len(base))
		}
	}
}

// Writes make more exceptions between two holds than one run has. The merge ends all the same, and
// in each hold it copies few chunks, or twice as many as the writes have added since the last one.
func TestMergeBoundsHolds(t *testing.T) {
	for _, c := range []struct{ run, few, added int }{{1, 3, 0}, {4, 3, 0}, {1, 3, 2}, {2, 4, 4}, {2, 3, 9}} {
		dir := snapshotDir(t)
		if err := os.Truncate(filepath.Join(dir, "B"), 4<<20); err != nil {
			t.Fatal(err)
		}
		serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
			model := b.whole()
			g := &gate{}
			add := func(n int) {
				for _, chunk := range rand.Perm(64) {
					if n > 0 && b.stack.stores[0].Index.Lookup(uint64(chunk)).IsNone() {
						data := bytes.Repeat([]byte{byte(rand.Int()), 1}, 256)
						b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: uint64(chunk * 8), Sectors: 1, Data: data})
						copy(model[chunk*4096:], data)
						n--
					}
				}
			}
			add(30)
			lastBytesOf(t, uint64(c.few)*4096)
			m, err := b.stack.NewMerge()
			if err != nil {
				t.Fatal(err)
			}
			defer m.Close()
			m.run = m.run[:c.run]
			var before, most uint64
			g.seen = func() { before = m.Chunks }
			g.resumed = func() {
				most = max(most, m.Chunks-before)
				add(c.added)
			}
			if err := m.Do(context.Background(), g.hold); err != nil {
				t.Fatal(err)
			}
			if bound := uint64(max(c.few, 2*c.added)); most > bound || most == 0 {
				t.Errorf("%+v: %d chunks are copied in one hold, want at most %d", c, most, bound)
			}
			t.Logf("%+v: %d holds, %d chunks copied, %d in one hold", c, g.holds, m.Chunks, most)
			if got := b.whole(); !bytes.Equal(got, model) {
				t.Error("the device has other data")
			}
		})
	}
}

// A merge that fails, or is interrupted, leaves the device as it is.
func TestMergeStops(t *testing.T) {
	dir := snapshotDir(t)
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		model := b.whole()
		g := &gate{}
		g.write(b, model, 1, 60)
		lastBytesOf(t, 0)
		m, err := b.stack.NewMerge()
		if err != nil {
			t.Fatal(err)
		}
		defer m.Close()
		m.run = m.run[:5]
		ctx, cancel := context.WithCancelCause(context.Background())
		g.seen = func() {
			if g.holds == 5 {
				cancel(io.ErrClosedPipe)
			}
		}
		if err := m.Do(ctx, g.hold); !errors.Is(err, io.ErrClosedPipe) || m.Chunks == 0 || m.store.Left() == 0 {
			t.Errorf("error %v after %d chunks, %d are left", err, m.Chunks, m.store.Left())
		}
		left := m.store.Left()
		working := m.file
		m.file = openReadOnly(t, filepath.Join(dir, "A"))
		if err := m.Do(context.Background(), g.hold); !errors.Is(err, unix.EBADF) || m.store.Left() != left {
			t.Errorf("error %v, %d are left, want %d", err, m.store.Left(), left)
		}
		if got := b.whole(); !bytes.Equal(got, model) {
			t.Error("the device has other data")
		}
		g.write(b, model, 2, 20)
		m.file = working
		if err := m.Do(context.Background(), g.hold); err != nil || m.store.Left() != 0 {
			t.Errorf("error %v, %d are left", err, m.store.Left())
		}
		if got := b.whole(); !bytes.Equal(got, model) {
			t.Error("the device has other data")
		}
	})
}

// lastBytesOf sets the number of bytes that are copied while the device holds its requests.
func lastBytesOf(t *testing.T, n uint64) {
	before := lastBytes
	lastBytes = n
	t.Cleanup(func() { lastBytes = before })
}

// An image that is checked against a hash tree is not merged into: neither if verity is below the
// snapshot, nor if the store was used over verity, nor if the image has a tree behind its data.
func TestMergeIntoVerity(t *testing.T) {
	p := verity.Params{Algorithm: "sha256", DataBlockSize: 512, HashBlockSize: 512, DataBlocks: 40}
	superblock, err := (&verity.Superblock{Params: p}).Bytes()
	if err != nil {
		t.Fatal(err)
	}
	tree, err := verity.NewTree(p, p.DataSize()+512)
	if err != nil {
		t.Fatal(err)
	}
	image := make([]byte, tree.End())
	copy(image[p.DataSize():], superblock)
	root, err := tree.Build(bytes.NewReader(image), area(image))
	if err != nil {
		t.Fatal(err)
	}
	plain := fmt.Sprintf("0 %d snapshot $A $B P 8", len(image)/512)
	for _, c := range []struct {
		text   string
		label  snapshot.Label
		damage int // byte of the image
		want   error
		says   string
	}{
		{fmt.Sprintf("low,,,ro,0 40 verity 1 $A $A 512 512 40 41 sha256 %x -;top,,,,0 40 snapshot /dev/mapper/low $B P 8", root), snapshot.Label{}, 0, unix.EPERM, "hash tree"},
		{plain, snapshot.Label{}, 0, unix.EPERM, "superblock at byte 20480"},
		{plain, snapshot.Label{}, int(p.DataSize()), nil, ""},
		{plain, snapshot.Label{Verity: true}, int(p.DataSize()), unix.EPERM, "hash tree"},
	} {
		dir := snapshotDir(t)
		content := bytes.Clone(image)
		content[c.damage] ^= 1
		if err := os.WriteFile(filepath.Join(dir, "A"), content, 0o600); err != nil {
			t.Fatal(err)
		}
		c.label.UUID = snapshot.NewUUID()
		labelled(t, filepath.Join(dir, "B"), c.label)
		s, err := open(t, dir, c.text, &Options{DirectIO: backing.SwitchOff})
		if err != nil {
			t.Fatal(err)
		}
		m, err := s.NewMerge()
		if !errors.Is(err, c.want) || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s, %+v: %v, want %v with %q", c.text, c.label, err, c.want, c.says)
		}
		if m != nil {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
}

// Only a snapshot over a file or disk that no other device or store needs is merged.
func TestMergeRefused(t *testing.T) {
	for _, c := range []struct {
		text string
		o    Options
		want error
		says string
	}{
		{"0 512 linear $A 0", Options{}, unix.EINVAL, "no snapshot"},
		{"0 8 zero\n8 512 snapshot $A $B P 8", Options{}, unix.EINVAL, ""},
		{"0 512 snapshot $A $B P 8", Options{ReadOnly: true}, unix.EROFS, "read-only"},
		{"0 512 snapshot $A $B N 8", Options{}, errors.ErrUnsupported, "transient"},
		{"low,,,ro,0 512 snapshot $A $B P 8;top,,,,0 512 snapshot /dev/mapper/low $C P 8", Options{}, errors.ErrUnsupported, "into the store $B"},
		{"low,,,ro,0 512 linear $A 0;top,,,,0 512 snapshot /dev/mapper/low $C P 8", Options{}, errors.ErrUnsupported, "into the table /dev/mapper/low"},
		{"0 8 snapshot $B $C P 8", Options{}, errors.ErrUnsupported, "$B: merge into a store"},
		{"0 512 snapshot $A $B P 8", Options{}, unix.EBUSY, "already in use"},
		{"0 512 snapshot $D $B P 8", Options{}, unix.EPERM, "base of 2 stores"},
	} {
		c.o.DirectIO = backing.SwitchOff
		mergeIsRefused(t, c.text, &c.o, c.want, c.says)
	}
}

// mergeIsRefused checks that the table of a new directory of stores cannot be merged. In says and
// in the table, $ stands for the directory.
func mergeIsRefused(t *testing.T, text string, o *Options, want error, says string) {
	t.Helper()
	dir := snapshotDir(t)
	label := snapshot.Label{UUID: snapshot.NewUUID()}
	labelled(t, filepath.Join(dir, "B"), label)
	labelled(t, filepath.Join(dir, "C"), label)
	if err := basemark.Add(filepath.Join(dir, "turn"), openReadOnly(t, filepath.Join(dir, "D")), snapshot.NewUUID()); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, dir, text, o)
	if err != nil {
		if says != "" {
			t.Errorf("%s: %v", text, err)
		}
		return // a snapshot begins at sector 0
	}
	defer func() { _ = s.Close() }()
	reader := &Options{ReadOnly: true, DirectIO: backing.SwitchOff}
	second, err := open(t, dir, "0 512 linear $A 0", reader)
	inUse := errors.Is(want, unix.EBUSY)
	if !inUse && err == nil {
		_ = second.Close()
	}
	m, err := s.NewMerge()
	if expected := strings.ReplaceAll(says, "$", dir+"/"); !errors.Is(err, want) || !strings.Contains(err.Error(), expected) {
		t.Errorf("%s: %v, want %q", text, err, expected)
	}
	// A merge has no settings.
	if hinted := (*hint.Error)(nil); errors.As(err, &hinted) && hint.HasSettings(hinted.Hint) {
		t.Errorf("%s: %v: the hint is %q", text, err, hinted.Hint)
	}
	if err == nil {
		_ = m.Close()
	}
	if !inUse {
		return
	}
	_ = second.Close()
	if m, err := s.NewMerge(); err != nil {
		t.Errorf("after the other device has ended: %v", err)
	} else if err := m.Close(); err != nil {
		t.Error(err)
	}
	if second, err = open(t, dir, "0 512 linear $A 0", reader); err != nil {
		t.Errorf("after the merge: %v", err)
	} else {
		_ = second.Close()
	}
}

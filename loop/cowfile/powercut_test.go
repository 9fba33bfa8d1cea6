package cowfile

import (
	"bytes"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
)

var errCut = errors.New("power cut")

// disks are a store and a base whose power is cut after some writes and flushes. Each
// sector since the last flush of its disk is then there or not.
type disks struct {
	left   int // steps until the cut
	random *rand.Rand
}

type cutDisk struct {
	*disks
	durable, now []byte
}

func newCutDisk(d *disks, b []byte) *cutDisk {
	return &cutDisk{d, append([]byte(nil), b...), append([]byte(nil), b...)}
}

func (d *disks) step() error {
	if d.left--; d.left < 0 {
		return errCut
	}
	return nil
}

func (c *cutDisk) ReadAt(b []byte, at int64) (int, error) {
	n := copy(b, c.now[at:])
	if n < len(b) {
		return n, io.EOF
	}
	return n, nil
}

func (c *cutDisk) WriteAt(b []byte, at int64) (int, error) {
	if err := c.step(); err != nil {
		return 0, err
	}
	return copy(c.now[at:], b), nil
}

func (c *cutDisk) Sync() error {
	if err := c.step(); err != nil {
		return err
	}
	copy(c.durable, c.now)
	return nil
}

// cut returns what is there after the cut.
func (c *cutDisk) cut() []byte {
	for at := 0; at < len(c.now); at += 512 {
		if c.random.Uint32()&1 == 0 {
			copy(c.now[at:min(at+512, len(c.now))], c.durable[at:])
		}
	}
	return c.now
}

// A merge whose power is cut at any step is finished by the next merge. Before that, base
// and store together show the same as ever.
func TestPowerCutInMerge(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20+512)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	want := change(t, path, base, 200, 1)
	baseBytes, storeBytes := content(t, base), content(t, path)
	l := layoutOf(t, 4096)
	cuts := 0
	for steps := 0; ; steps++ {
		d := &disks{left: steps, random: rand.New(rand.NewPCG(uint64(steps), 3))}
		b, s := newCutDisk(d, baseBytes), newCutDisk(d, storeBytes)
		err := mergeWith(t, s, b, l)
		if err == nil {
			same(t, b.durable, want)
			same(t, shown(t, l, baseBytes, s.durable), baseBytes) // no record is left on the medium
			break
		}
		if !errors.Is(err, errCut) {
			t.Fatal(err)
		}
		cuts++
		b2, s2 := b.cut(), s.cut()
		same(t, shown(t, l, b2, s2), want)
		d = &disks{left: 1 << 30}
		b, s = newCutDisk(d, b2), newCutDisk(d, s2)
		if err := mergeWith(t, s, b, l); err != nil {
			t.Fatal(err)
		}
		same(t, b.durable, want)
		same(t, shown(t, l, b.durable, s.durable), want)
	}
	if cuts < 200/5 { // a run of chunks is a write at least
		t.Errorf("only %d steps", cuts)
	}
}

// mergeWith merges with at most 30 chunks between two flushes.
func mergeWith(t *testing.T, s, b *cutDisk, l snapshot.Layout) error {
	t.Helper()
	m, err := newMerging(s, b, l, uint64(len(s.now)), uint64(len(b.now)))
	if err != nil {
		t.Fatal(err)
	}
	m.run = m.run[:30]
	return m.all(context.Background())
}

// shown returns what a snapshot shows.
func shown(t *testing.T, l snapshot.Layout, base, store []byte) []byte {
	t.Helper()
	image := append([]byte(nil), base...)
	_, err := snapshot.Scan(bytes.NewReader(store), l, uint64(len(store)), func(e snapshot.Record) error {
		copy(image[l.Offset(e.Old):], store[l.Offset(e.New):][:l.ChunkSize()])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return image
}

// A merge that is interrupted leaves the rest for later.
func TestInterruptedMerge(t *testing.T) {
	dir := directory(t)
	base := newBase(t, dir, 1<<20)
	path := create(t, CreateOptions{Path: filepath.Join(dir, "store"), Origin: base, ChunkSize: 4096})
	want := change(t, path, base, 10, 1)
	ctx, cancel := context.WithCancelCause(context.Background())
	cancel(os.ErrDeadlineExceeded)
	if _, err := Merge(ctx, MergeOptions{Path: path}); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if m, err := Merge(context.Background(), MergeOptions{Path: path}); err != nil || m.Chunks != 10 {
		t.Fatal(m, err)
	}
	same(t, content(t, base), want)
}

package loop

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/cowfile"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// mergeSectors is the size of the base: more than is merged in one hold, and not whole chunks.
const mergeSectors = 10<<11 + 3

// mergeBed has a base and a store on disks whose writes and flushes are recorded.
type mergeBed struct {
	ctl *ublk.Control
	diskHistory
	disks  []*cachingDisk // base and store
	layout snapshot.Layout
	text   string
	before [][]byte // the contents of the disks before the merge
}

// newMergeBed makes a base of stamped sectors of version 0, and an empty store.
func newMergeBed(t *testing.T, ctl *ublk.Control, chunk uint32) *mergeBed {
	t.Helper()
	b := &mergeBed{ctl: ctl}
	base := stamp(make([]byte, mergeSectors*512), 0, 0)
	b.disks = []*cachingDisk{newCachingDisk(t, ctl, &b.diskHistory, base), newCachingDisk(t, ctl, &b.diskHistory, make([]byte, 16<<20))}
	var err error
	b.layout, err = snapshot.NewLayout(chunk)
	if err != nil {
		t.Fatal(err)
	}
	b.text = fmt.Sprintf("0 %d snapshot %s %s P %d", mergeSectors, b.disks[0].path, b.disks[1].path, chunk/512)
	return b
}

// keep makes the present contents those before the merge.
func (b *mergeBed) keep() {
	b.before = [][]byte{b.disks[0].now(), b.disks[1].now()}
}

// shown returns what a snapshot of two contents shows, and how many exceptions it has.
func (b *mergeBed) shown(t *testing.T, base, store []byte) (image []byte, exceptions uint64) {
	t.Helper()
	image = bytes.Clone(base)
	l := b.layout
	state, err := snapshot.Scan(bytes.NewReader(store), l, uint64(len(store)), func(e snapshot.Record) error {
		copy(image[l.Offset(e.Old):], store[l.Offset(e.New):][:l.ChunkSize()])
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return image, state.Records(l)
}

// mergeEnds are the ways to finish a merge.
var mergeEnds = []struct {
	name   string
	finish func(t *testing.T, b *mergeBed)
}{
	{"merge of a device", func(t *testing.T, b *mergeBed) {
		dev := attachTable(t, b.ctl, b.text, Config{})
		if _, err := dev.Merge(context.Background()); err != nil {
			t.Error(err)
		}
		if err := dev.Close(); err != nil {
			t.Error(err)
		}
	}},
	{"cow merge", func(t *testing.T, b *mergeBed) {
		if _, err := cowfile.Merge(context.Background(), cowfile.MergeOptions{Path: b.disks[1].path, Base: b.disks[0].path}); err != nil {
			t.Error(err)
		}
	}},
	{"kernel", func(t *testing.T, b *mergeBed) {
		mappedDisk(t, strings.Replace(b.text, "snapshot", "snapshot-merge", 1))
		want := fmt.Sprint(2 * b.layout.ChunkSize() / 512)
		waitUntil(t, "the kernel merges everything", func() bool {
			fields := strings.Fields(run(t, "dmsetup", "status", mappedName))
			allocated, _, _ := strings.Cut(fields[3], "/")
			return allocated == want && fields[4] == want
		})
	}},
}

// finish finishes the merge of the disks in one of the ways, and returns the base.
func (b *mergeBed) finish(t *testing.T, way int) (base []byte) {
	t.Helper()
	t.Run(mergeEnds[way].name, func(t *testing.T) { mergeEnds[way].finish(t, b) })
	base = b.disks[0].now()
	if _, n := b.shown(t, base, b.disks[1].now()); n != 0 {
		t.Errorf("%d exceptions are left", n)
	}
	return base
}

// After a power cut at each step of a merge under I/O, base and store together show what was flushed
// before. This server, cow merge and the kernel finish the merge. The base is flushed before the
// store loses the records of its chunks.
func TestKernelMergePowerCut(t *testing.T) {
	ctl := ublktest.Kernel(t, ublktest.OldestAndNewest)
	run(t, "modprobe", "dm_snapshot")
	for _, cfg := range []Config{{}, {ZeroCopy: SwitchOff, OnCrash: CrashReissue}} {
		t.Run(fmt.Sprintf("zero copy %s, on crash %s", cfg.ZeroCopy, cfg.OnCrash), func(t *testing.T) { mergePowerCut(t, ctl, cfg) })
	}
}

func mergePowerCut(t *testing.T, ctl *ublk.Control, cfg Config) {
	b := newMergeBed(t, ctl, 4096)
	model := newPrefixModel(mergeSectors, b.mark)
	var event int
	t.Run("write", func(t *testing.T) { event = b.mergeUnderIO(t, model, cfg) })
	steps := b.steps
	sampled := make([]bool, len(steps))
	for range ublktest.Repeats(t, "UBLK_LOOP_PREFIXES", 6, 50) {
		sampled[rand.IntN(len(steps))] = true
	}
	sampled[len(steps)-1] = true
	cuts := []*cutDisk{{medium: b.before[0]}, {medium: b.before[1]}}
	way := 0
	for i, s := range steps {
		if s.disk == nil {
			event = s.mark
			continue
		}
		b.checkOrder(t, cuts, s)
		b.checkReuse(t, cuts[1], s)
		for j, d := range b.disks {
			if s.disk == d {
				cuts[j].apply(s)
			}
		}
		if !sampled[i] && testing.Short() && rand.IntN(8) > 0 {
			continue
		}
		base, store := cuts[0].cut(), cuts[1].cut()
		image, _ := b.shown(t, base, store)
		model.check(t, image, event)
		if sampled[i] {
			b.restore(nil, b.disks, [][]byte{base, store})
			if got := b.finish(t, way%len(mergeEnds)); !bytes.Equal(got, image) {
				t.Errorf("step %d: the base has other data: %s", i, firstDifference(got, image))
			}
			way++
		}
	}
	t.Logf("%d steps, finished %d times", len(steps), way)
}

// checkOrder checks that no write to the base can be lost when the store loses records: the store
// is only written when nothing of the base is in its cache.
func (b *mergeBed) checkOrder(t *testing.T, cuts []*cutDisk, s diskStep) {
	t.Helper()
	inArea := s.data != nil && b.layout.IsMetadata(s.at>>b.layout.Shift())
	if n := cuts[0].unflushed(); s.disk == b.disks[1] && inArea && n > 0 {
		t.Errorf("records are written while %d writes to the base are not flushed", n)
	}
}

// checkReuse checks that no chunk of the store is used again while its record can come back: if the
// removal of the record is lost, the record leads to the chunk's new data.
func (b *mergeBed) checkReuse(t *testing.T, store *cutDisk, s diskStep) {
	t.Helper()
	l := b.layout
	isArea := func(w diskStep) bool { return l.IsMetadata(w.at >> l.Shift()) }
	if s.disk != b.disks[1] || s.data == nil || isArea(s) || !slices.ContainsFunc(store.cache, func(w diskStep) bool { return !w.flush && isArea(w) }) {
		return
	}
	list := func(lost bool) map[uint64]bool {
		content, chunks := bytes.Clone(store.medium), map[uint64]bool{}
		for _, w := range store.cache {
			if w.flush || !lost {
				copy(content[w.at:], w.data)
			}
		}
		_, err := snapshot.Scan(bytes.NewReader(content), l, uint64(len(content)), func(e snapshot.Record) error { chunks[e.New] = true; return nil })
		if err != nil {
			t.Fatal(err)
		}
		return chunks
	}
	before, now := list(true), list(false)
	for chunk := s.at >> l.Shift(); chunk<<l.Shift() < s.at+uint64(len(s.data)); chunk++ {
		if before[chunk] && !now[chunk] {
			t.Errorf("chunk %d is used again while the removal of its record is not flushed", chunk)
		}
	}
}

// mergeUnderIO merges a device while it is written to. It returns the last event before the merge.
func (b *mergeBed) mergeUnderIO(t *testing.T, model *prefixModel, cfg Config) (begun int) {
	t.Helper()
	dev := attachTable(t, b.ctl, b.text, cfg)
	f := openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT)
	mem := alignedMemory(t, 1<<20)
	for at := 0; at < mergeSectors; at += 2048 {
		if err := model.writeAt(f, mem[:512*min(2048, mergeSectors-at)], at, false); err != nil {
			t.Fatal(err)
		}
	}
	if err := model.flush(f); err != nil {
		t.Fatal(err)
	}
	b.keep()
	b.restore(nil, nil, nil)
	begun = len(model.durable)
	merged := make(chan error, 1)
	go func() { _, err := dev.Merge(context.Background()); merged <- err }() // received below
	for {
		select {
		case err := <-merged:
			if err != nil {
				t.Fatal(err)
			}
			if n := len(model.durable) - begun; n < 2 {
				t.Errorf("only %d events during the merge", n)
			}
			return begun
		default:
			if err := model.event(f, mem[:64<<10]); err != nil {
				t.Fatal(err)
			}
		}
	}
}

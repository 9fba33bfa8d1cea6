package stack

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// coveredBed is a snapshot of a verified origin.
type coveredBed struct {
	dir, text string
	data      []byte // of the origin
}

// verityOrigin is the file A with a tree of verity below a snapshot with its store in B.
func verityOrigin(t *testing.T, chunk int) *coveredBed {
	t.Helper()
	c := &coveredBed{dir: snapshotDir(t)}
	data, _, arguments := treeIn(t, c.dir, "0 512 linear $A 0", nil, small)
	c.data = data
	c.text = fmt.Sprintf("base,,,ro,0 384 verity 1 $A $A %s;top,,,rw,0 384 snapshot /dev/mapper/base $B P %d", arguments, chunk)
	return c
}

// flip changes a bit of A.
func (c *coveredBed) flip(t *testing.T, at int) {
	t.Helper()
	path := filepath.Join(c.dir, "A")
	content, err := os.ReadFile(path)
	if err == nil {
		content[at] ^= 1
		err = os.WriteFile(path, content, 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// A snapshot of verity has what was written, and otherwise verified bytes, while reads and first
// writes meet each other.
func TestSnapshotOfVerity(t *testing.T) {
	for _, chunk := range []int{8, 64} {
		c := verityOrigin(t, chunk)
		model := bytes.Clone(c.data)
		for round := range uint64(3) {
			serve(t, c.dir, c.text, Options{}, func(b *bed) {
				b.changeWhileRead(model, round)
				if n := b.stack.Corruptions(); n != 0 {
					t.Errorf("chunk %d: %d wrong blocks", chunk, n)
				}
			})
		}
	}
}

// changeWhileRead changes the device and its model while another goroutine reads the device, and
// compares both before and afterwards.
func (b *bed) changeWhileRead(model []byte, round uint64) {
	b.t.Helper()
	b.compare(model)
	var reader sync.WaitGroup
	stop := make(chan struct{})
	reader.Go(func() { b.readUntil(stop) })
	b.change(model, round)
	close(stop)
	reader.Wait()
	b.compare(model)
}

// readUntil reads the device again and again.
func (b *bed) readUntil(stop chan struct{}) {
	for at := uint64(0); ; at = (at + 24) % 320 {
		select {
		case <-stop:
			return
		default:
		}
		if r := b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: at, Sectors: 64}); r.Result != 64*512 {
			b.t.Errorf("read at %d: result %d", at, r.Result)
			return
		}
	}
}

// Two layers below a snapshot and one above transform the bytes, and a second snapshot has its
// origin in the first.
func TestSnapshotBetweenLayers(t *testing.T) {
	const encrypted = "enc,,,%s,0 512 crypt aes-xts-plain64 :64:user:a 8 $A 0"
	dir := snapshotDir(t)
	data, _, arguments := treeIn(t, dir, fmt.Sprintf(encrypted, "rw"), []int{64}, small)
	text := fmt.Sprintf(encrypted+";base,,,ro,0 384 verity 1 /dev/mapper/enc /dev/mapper/enc %s", "ro", arguments)
	text += ";snap,,,ro,0 384 snapshot /dev/mapper/base $B P 8;snap2,,,rw,0 384 snapshot /dev/mapper/snap $C P 16"
	model := bytes.Clone(data)
	// The first snapshot has changes of its own.
	first, _, _ := strings.Cut(text, ";snap2")
	first = strings.ReplaceAll(first, "snap,,,ro", "snap,,,rw")
	serve(t, dir, first, Options{Keys: keysFor(t, 64)}, func(b *bed) {
		b.change(model, 7)
		b.compare(model)
	})
	for round := range uint64(2) {
		serve(t, dir, text, Options{Keys: keysFor(t, 64)}, func(b *bed) {
			b.compare(model)
			b.change(model, round)
			b.compare(model)
		})
	}
	// Encryption on top: all that was written so far is ciphertext.
	text += ";top,,,rw,0 384 crypt aes-xts-plain64 :64:user:b 0 /dev/mapper/snap2 0"
	serve(t, dir, text, Options{Keys: keysFor(t, 64, 64)}, func(b *bed) {
		model = b.whole()
		b.change(model, 9)
		b.compare(model)
	})
}

// A read of a wrong block fails, also if a first write puts its chunk into the store meanwhile.
func TestSnapshotOfVerityChecksWhatWasRead(t *testing.T) {
	c := verityOrigin(t, 8)
	c.flip(t, 9*512)
	serve(t, c.dir, c.text, Options{}, func(b *bed) {
		store := b.stack.stores[0]
		// Another queue writes to the chunk when the data has arrived.
		write := func(int32) {
			if !store.Index.Claim(1) {
				t.Error("the chunk is in the store already")
			}
			replacement, errno := store.Allocate(1)
			if errno != 0 || !store.Add(snapshot.Record{Old: 1, New: replacement}) {
				t.Errorf("no room: errno %d", errno)
			}
		}
		var once sync.Once
		ended := func(result int32) { once.Do(func() { write(result) }) }
		r := b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: 9, Sectors: 1, Ended: ended})
		if r.Result != -int32(unix.EIO) {
			t.Errorf("read of what was wrong: result %d", r.Result)
		}
		b.must(ublktest.Request{Op: ublk.OpRead, StartSector: 9, Sectors: 1})
	})
}

// A first write that would copy a wrong block fails, and so do reads of this block. Everything
// else can be read and written, and so can the chunk when its data is right again.
func TestSnapshotOfWrongBlock(t *testing.T) {
	c := verityOrigin(t, 8)
	c.flip(t, 9*512)
	serve(t, c.dir, c.text, Options{}, func(b *bed) {
		write := ublktest.Request{Op: ublk.OpWrite, StartSector: 12, Sectors: 1, Data: bytes.Repeat([]byte{5}, 512)}
		for range 3 { // no chunk of the store is lost
			if r := b.Do(write); r.Result != -int32(unix.EIO) {
				t.Errorf("write to the chunk of a wrong block: result %d", r.Result)
			}
		}
		for sector := range uint64(384) {
			want := int32(512)
			if sector == 9 {
				want = -int32(unix.EIO)
			}
			if r := b.Do(ublktest.Request{Op: ublk.OpRead, StartSector: sector, Sectors: 1}); r.Result != want {
				t.Errorf("read of sector %d: result %d", sector, r.Result)
			}
		}
		if usage := b.stack.Usages()[0]; usage.Allocated != usage.Metadata+8 {
			t.Errorf("usage %v after a failed first write", &usage)
		}
		c.flip(t, 9*512)
		b.must(write)
		model := bytes.Clone(c.data)
		copy(model[12*512:], write.Data)
		b.compare(model)
	})
}

// A tree cannot be where the bytes depend on a store.
func TestTreeOnSnapshotOfLayer(t *testing.T) {
	dir := snapshotDir(t)
	text := fmt.Sprintf("enc,,,ro,0 512 crypt aes-xts-plain64 :64:user:a 0 $A 0;s,,,ro,0 512 snapshot /dev/mapper/enc $B N 8;"+
		"v,,,ro,0 128 verity 1 /dev/mapper/s /dev/mapper/s 512 512 128 300 sha256 %064d -", 0)
	_, err := open(t, dir, text, &Options{DirectIO: backing.SwitchOff, Keys: keysFor(t, 64)})
	if err == nil || !strings.Contains(err.Error(), "a hash tree on a snapshot of a device with the target crypt: unsupported operation") {
		t.Errorf("error %v", err)
	}
}

// The check of a copy that has failed leaves nothing to the next one, also where a chunk of the
// origin has several runs.
func TestCopyAfterWrongBlock(t *testing.T) {
	dir := snapshotDir(t)
	_, _, arguments := treeIn(t, dir, "0 512 linear $A 0", nil, small)
	c := &coveredBed{dir: dir}
	c.flip(t, 512)
	verified := ",,,ro,0 384 verity 1 $A $A " + arguments + ";"
	text := "one" + verified + "two" + verified + "join,,,ro,0 4 linear /dev/mapper/one 0,4 380 linear /dev/mapper/two 4;" +
		"snap,,,rw,0 384 snapshot /dev/mapper/join $B P 8;top,,,rw,0 384 crypt aes-xts-plain64 :64:user:a 0 /dev/mapper/snap 0"
	serve(t, dir, text, Options{Keys: keysFor(t, 64)}, func(b *bed) {
		data := make([]byte, 512)
		for range snapshotDepth { // whichever tag the next write has
			if r := b.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: 6, Sectors: 1, Data: data}); r.Result != -int32(unix.EIO) {
				t.Errorf("first write to the chunk of a wrong block: result %d", r.Result)
			}
		}
		for i := range uint64(snapshotDepth) {
			b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: 80 + 8*i, Sectors: 1, Data: data})
		}
		if n := b.stack.Corruptions(); n == 0 {
			t.Error("no wrong block")
		}
	})
}

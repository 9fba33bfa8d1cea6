package stack

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// snapshotDepth is the number of requests at once of a snapshotBed.
const snapshotDepth = 8

// snapshotDir makes the files A to D: A has random bytes, the others are empty stores.
func snapshotDir(t *testing.T) string {
	t.Helper()
	dir := t.TempDir()
	makeFiles(t, dir)
	for _, name := range []string{"B", "C", "D"} {
		for _, size := range []int64{0, 2 << 20} {
			if err := os.Truncate(filepath.Join(dir, name), size); err != nil {
				t.Fatal(err)
			}
		}
	}
	return dir
}

// serve serves a text with the files of a directory, and closes everything after use.
func serve(t *testing.T, dir, text string, o Options, use func(b *bed)) {
	t.Helper()
	serveAs(t, dir, text, o, func(*Stack) {}, use)
}

// serveAs is serve for a stack that change has changed.
func serveAs(t *testing.T, dir, text string, o Options, change func(s *Stack), use func(b *bed)) {
	t.Helper()
	o.DirectIO = backing.SwitchOff
	o.Shared = true // a ring may keep the lock of an earlier device for a moment
	s, err := open(t, dir, text, &o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}()
	change(s)
	t.Run("device", func(t *testing.T) { // ends the device before its files
		parts := s.ExtraParts(snapshotDepth)
		disk := ublktest.NewDiskWith(t, ublk.Options{Depth: snapshotDepth, Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
		use(&bed{Disk: disk, t: t, dir: dir, stack: s})
	})
	if t.Failed() {
		t.FailNow()
	}
}

// must carries out a request that succeeds.
func (b *bed) must(req ublktest.Request) []byte {
	b.t.Helper()
	reply := b.Do(req)
	want := int32(req.Sectors) * 512
	if !req.Op.HasData() {
		want = 0
	}
	if reply.Result != want {
		b.t.Fatalf("%v of %d sectors at %d: result %d", req.Op, req.Sectors, req.StartSector, reply.Result)
	}
	return reply.Data
}

// whole reads the device.
func (b *bed) whole() (content []byte) {
	b.t.Helper()
	for at := uint64(0); at < b.stack.Size/512; at += 64 {
		content = append(content, b.must(ublktest.Request{Op: ublk.OpRead, StartSector: at, Sectors: uint32(min(64, b.stack.Size/512-at))})...)
	}
	return content
}

// change writes at random from several goroutines. They write to different sectors of the same
// chunks, so that first writes meet each other.
func (b *bed) change(model []byte, seed uint64) {
	var writers sync.WaitGroup
	for w := range uint64(snapshotDepth) {
		random := rand.New(rand.NewPCG(seed, w))
		writers.Go(func() {
			for i := range 60 {
				at := random.Uint64N(uint64(len(model))/512/(2*snapshotDepth))*2*snapshotDepth + 2*w
				if at/(2*snapshotDepth)%3 == 0 {
					continue // chunks that stay in the origin
				}
				sectors := 1 + random.Uint64N(2)
				data := bytes.Repeat([]byte{byte(seed), byte(w), byte(i), byte(at)}, int(sectors)*128)
				req := ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: uint32(sectors), Data: data}
				if random.IntN(8) == 0 {
					req.Flags = ublk.FlagFUA
				}
				if reply := b.Do(req); reply.Result != int32(sectors)*512 {
					b.t.Errorf("write of %d sectors at %d: result %d", sectors, at, reply.Result)
					return
				}
				copy(model[at*512:], data)
			}
		})
	}
	writers.Wait()
	// Requests of many chunks, some of them whole.
	random := rand.New(rand.NewPCG(seed, 100))
	for range 2 {
		at := random.Uint64N(uint64(len(model))/512 - 60)
		data := bytes.Repeat([]byte{byte(seed), 0xee, byte(at), 1}, 60*128)
		b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 60, Data: data})
		copy(model[at*512:], data)
	}
}

// A snapshot has what was written, and otherwise the bytes of its origin, which does not change.
// A store has the same when it is opened again.
func TestSnapshot(t *testing.T) {
	for _, format := range []string{"P", "PO", "N"} {
		for _, chunk := range []int{8, 16, 64} {
			for _, eager := range []bool{false, true} {
				if eager && format == "N" {
					continue
				}
				for _, sectors := range []int{512, 500} {
					t.Run(fmt.Sprint(format, " ", chunk, ", eager ", eager, ", sectors ", sectors), func(t *testing.T) {
						text := fmt.Sprintf("0 %d snapshot $A $B %s %d", sectors, format, chunk)
						checkSnapshot(t, text, sectors, eager, format != "N")
					})
				}
			}
		}
	}
}

func checkSnapshot(t *testing.T, text string, sectors int, eager, persistent bool) {
	dir := snapshotDir(t)
	origin, err := os.ReadFile(filepath.Join(dir, "A"))
	if err != nil {
		t.Fatal(err)
	}
	model := bytes.Clone(origin[:sectors*512])
	for round := range uint64(3) {
		serve(t, dir, text, Options{Eager: eager}, func(b *bed) {
			if !persistent && round > 0 {
				copy(model, origin) // a transient store is empty
			}
			b.compare(model)
			b.change(model, round)
			b.compare(model)
		})
	}
	if now, err := os.ReadFile(filepath.Join(dir, "A")); err != nil || !bytes.Equal(now, origin) {
		t.Errorf("the origin has changed: %v", err)
	}
}

// compare compares the device with a model.
func (b *bed) compare(model []byte) {
	b.t.Helper()
	got := b.whole()
	for i := range len(model) / 512 {
		if !bytes.Equal(got[i*512:][:512], model[i*512:][:512]) {
			b.t.Fatalf("sector %d differs: %x, want %x", i, got[i*512:][:8], model[i*512:][:8])
		}
	}
}

// A chain of snapshots shows each chunk as the uppermost store has it, and only that store
// changes. The first write of a chunk copies it from the store below that has it.
func TestSnapshotChain(t *testing.T) {
	dir := snapshotDir(t)
	model, err := os.ReadFile(filepath.Join(dir, "A"))
	if err != nil {
		t.Fatal(err)
	}
	text := "base,,,ro,0 512 linear $A 0"
	below := "base"
	for i := range 10 {
		name := fmt.Sprintf("store%d", i)
		if err := os.WriteFile(filepath.Join(dir, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Truncate(filepath.Join(dir, name), 1<<20); err != nil {
			t.Fatal(err)
		}
		line := func(mode string) string {
			return fmt.Sprintf(";s%d,,,%s,0 512 snapshot /dev/mapper/%s %s P %d", i, mode, below, filepath.Join(dir, name), 8<<(i%3))
		}
		before := contentsOf(t, dir)
		serve(t, dir, text+line("rw"), Options{}, func(b *bed) {
			b.compare(model)
			for j := range 8 {
				at := uint64((i*37 + j*61) % 500)
				data := bytes.Repeat([]byte{byte(i), byte(j), 3, 4}, 5*128)
				b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: at, Sectors: 5, Data: data})
				copy(model[at*512:], data)
			}
			b.compare(model)
		})
		for path, content := range contentsOf(t, dir) {
			if path != name && content != before[path] {
				t.Errorf("%s has changed", path)
			}
		}
		text += line("ro")
		below = fmt.Sprintf("s%d", i)
	}
}

// contentsOf returns the content of each file of a directory.
func contentsOf(t *testing.T, dir string) map[string]string {
	t.Helper()
	contents := map[string]string{}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.IsDir() {
			continue
		}
		content, err := os.ReadFile(filepath.Join(dir, e.Name()))
		if err != nil {
			t.Fatal(err)
		}
		contents[e.Name()] = string(content)
	}
	return contents
}

// A full store with P becomes invalid: all requests fail, also after it is opened again. One with
// PO fails writes only, and takes them again when it is opened again and has grown.
func TestSnapshotFull(t *testing.T) {
	for _, format := range []string{"P", "PO", "N"} {
		t.Run(format, func(t *testing.T) {
			dir := snapshotDir(t)
			if err := os.Truncate(filepath.Join(dir, "B"), 6*4096); err != nil {
				t.Fatal(err)
			}
			text := "0 512 snapshot $A $B " + format + " 8"
			serve(t, dir, text, Options{}, func(b *bed) { b.fill(format) })
			if format == "N" {
				return
			}
			serve(t, dir, text, Options{}, func(b *bed) {
				want := int32(4096)
				if format == "P" {
					want = -int32(unix.EIO)
				}
				for _, op := range []ublk.Op{ublk.OpRead, ublk.OpWrite} {
					if r := b.Do(ublktest.Request{Op: op, Sectors: 8, Data: data(op)}); r.Result != want {
						t.Errorf("%v after the store is opened again: result %d, want %d", op, r.Result, want)
					}
				}
			})
		})
	}
}

// data returns the data of a request of 8 sectors.
func data(op ublk.Op) []byte {
	if op == ublk.OpWrite {
		return make([]byte, 4096)
	}
	return nil
}

// fill writes until the store is full, and checks what then works.
func (b *bed) fill(format string) {
	b.t.Helper()
	store := b.stack.stores[0]
	full, written := -1, 0
	for i := range 10 {
		r := b.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: uint64(8*i + 2), Sectors: 2, Data: make([]byte, 1024)})
		if r.Result == -int32(unix.EIO) {
			full = i
			break
		}
		written++
	}
	if want := map[string]int{"P": 4, "PO": 4, "N": 6}[format]; full != want || written != want {
		b.t.Errorf("full after %d writes, the first error at %d, want %d", written, full, want)
	}
	read, write, state := int32(4096), -int32(unix.EIO), "Overflow"
	if format != "PO" {
		read, state = write, "Invalid"
	}
	if got := store.Usage(); got.State != state || format != "N" && got.Metadata != 16 || got.Total != 48 {
		b.t.Errorf("usage %+v", got)
	}
	select {
	case f := <-b.stack.Failures():
		if f.State != state || string(f.Path) != filepath.Join(b.dir, "B") {
			b.t.Errorf("the reported failure is %+v", f)
		}
	default:
		b.t.Error("no failure is reported")
	}
	if r := b.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 8}); r.Result != read {
		b.t.Errorf("read of a full store: result %d, want %d", r.Result, read)
	}
	if r := b.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: 8, Data: data(ublk.OpWrite)}); r.Result != write {
		b.t.Errorf("write to a full store: result %d, want %d", r.Result, write)
	}
	flush := int32(0)
	if format != "PO" {
		flush = -int32(unix.EIO) // what was written before is lost
	}
	if r := b.Do(ublktest.Request{Op: ublk.OpFlush}); r.Result != flush {
		b.t.Errorf("flush of a full store: result %d, want %d", r.Result, flush)
	}
	if n := len(b.stack.Failures()); n != 0 {
		b.t.Errorf("%d more failures are reported", n)
	}
}

// A store that has grown takes more first writes.
func TestSnapshotGrows(t *testing.T) {
	dir := snapshotDir(t)
	path := filepath.Join(dir, "B")
	if err := os.Truncate(path, 4*4096); err != nil {
		t.Fatal(err)
	}
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		for i := range 20 {
			if i == 2 {
				if err := os.Truncate(path, 1<<20); err != nil {
					t.Fatal(err)
				}
			}
			b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: uint64(8 * i), Sectors: 1, Data: make([]byte, 512)})
		}
	})
}

// If a part of a first write fails, only this write fails, and the chunk of the store is used
// again.
func TestFirstWriteFails(t *testing.T) {
	dir := snapshotDir(t)
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		want := b.whole()
		for fault := range 2 { // the read of the origin, and the write
			answers := append(make([]int32, 0, 2), []int32{4096}[:fault]...)
			answers = append(answers, -int32(unix.ENOSPC))
			r := b.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: 3, Sectors: 2, Data: make([]byte, 1024), Answers: answers})
			if r.Result != -int32(unix.ENOSPC) {
				t.Fatalf("fault %d: result %d", fault, r.Result)
			}
			b.compare(want)
		}
		b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: 3, Sectors: 2, Data: make([]byte, 1024)})
		if used := b.stack.stores[0].Usage().Allocated; used != 3*8 {
			t.Errorf("%d sectors of the store are used", used)
		}
		clear(want[3*512 : 5*512])
		b.compare(want)
	})
}

// A flush saves the records of first writes, and so does an FUA write. Without both they are
// saved when the device ends.
func TestSnapshotFlush(t *testing.T) {
	records := func(dir string) uint64 {
		f, err := os.Open(filepath.Join(dir, "B"))
		if err != nil {
			t.Fatal(err)
		}
		defer f.Close()
		header, err := snapshot.ReadHeader(f)
		if err != nil {
			t.Fatal(err)
		}
		state, err := snapshot.Scan(f, header.Layout, 2<<20, func(snapshot.Record) error { return nil })
		if err != nil {
			t.Fatal(err)
		}
		return state.Records(header.Layout)
	}
	for _, eager := range []bool{false, true} {
		dir := snapshotDir(t)
		serve(t, dir, "0 512 snapshot $A $B P 8", Options{Eager: eager}, func(b *bed) {
			write := func(sector uint64, flags ublk.Flags) {
				b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: sector, Sectors: 1, Data: make([]byte, 512), Flags: flags})
			}
			want := uint64(0)
			expect := func(what string, saved, unsaved uint64) {
				if want += saved; eager {
					want += unsaved
				}
				if got := records(dir); got != want {
					t.Errorf("eager %v: %d records after %s, want %d", eager, got, what, want)
				}
				if !eager {
					want += unsaved
				}
			}
			write(0, 0)
			write(8, 0)
			expect("two writes", 0, 2)
			b.must(ublktest.Request{Op: ublk.OpFlush})
			expect("a flush", 0, 0)
			write(16, ublk.FlagFUA)
			expect("an FUA write", 1, 0)
			write(24, 0)
			write(1, ublk.FlagFUA) // to a chunk with a saved record, while another is not saved
			expect("an FUA write to another chunk", 1, 0)
			write(32, 0)
		})
		if got := records(dir); got != 5 {
			t.Errorf("eager %v: %d records after the end, want 5", eager, got)
		}
	}
}

// Discards of a snapshot act on whole chunks with an exception, which then have zeroes.
func TestSnapshotDiscard(t *testing.T) {
	dir := snapshotDir(t)
	serve(t, dir, "0 512 snapshot $A $B P 8 1 discard_zeroes_cow", Options{}, func(b *bed) {
		model := b.whole()
		for _, sector := range []uint64{8, 24, 33, 40} {
			ones := bytes.Repeat([]byte{0xff}, 512)
			b.must(ublktest.Request{Op: ublk.OpWrite, StartSector: sector, Sectors: 1, Data: ones})
			copy(model[sector*512:], ones)
		}
		b.must(ublktest.Request{Op: ublk.OpDiscard, StartSector: 12, Sectors: 8})  // no whole chunk
		b.must(ublktest.Request{Op: ublk.OpDiscard, StartSector: 17, Sectors: 28}) // chunks 3 and 4
		clear(model[24*512 : 40*512])
		b.compare(model)
	})
	serve(t, dir, "0 512 snapshot $A $B P 8", Options{}, func(b *bed) {
		model := b.whole()
		b.must(ublktest.Request{Op: ublk.OpDiscard, Sectors: 512})
		b.compare(model)
	})
}

// A store that is used in another way, or is no store, is refused.
func TestSnapshotRefused(t *testing.T) {
	dir := snapshotDir(t)
	link := filepath.Join(dir, "link")
	if err := os.Symlink(filepath.Join(dir, "A"), link); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]error{
		"0 512 snapshot $A " + link + " P 8":            errors.ErrUnsupported,
		"0 512 snapshot $B $A P 8":                      snapshot.ErrNoStore,
		"0 512 snapshot $A $B N 8\n512 8 linear $B 8":   unix.EINVAL,
		"a,,,ro,0 512 snapshot $A $B P 8":               snapshot.ErrNew,
		"0 4096 snapshot $B $C P 8\n4096 8 linear $C 0": unix.EINVAL,
	} {
		s, err := open(t, dir, text, &Options{DirectIO: backing.SwitchOff})
		if !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", strings.TrimPrefix(text, dir), err, want)
		}
		if err == nil {
			_ = s.Close()
		}
	}
}

// A first write reads what the request lacks of the chunk, and writes the chunk once.
func TestFirstWriteCopies(t *testing.T) {
	for _, tt := range []struct {
		from, to uint64   // sectors of the chunk that are written
		reads    []uint32 // sectors
	}{
		{0, 64, nil},
		{0, 40, []uint32{24}},
		{24, 64, []uint32{24}},
		{10, 50, []uint32{10, 14}},
		{10, 12, []uint32{64}},
		{0, 1, []uint32{63}},
	} {
		dir := snapshotDir(t)
		serve(t, dir, "0 512 snapshot $A $B P 64", Options{}, func(b *bed) {
			model := b.whole()
			data := bytes.Repeat([]byte{0xaa}, int(tt.to-tt.from)*512)
			copy(model[(128+tt.from)*512:], data)
			r := b.Do(ublktest.Request{Op: ublk.OpWrite, StartSector: 128 + tt.from, Sectors: uint32(tt.to - tt.from), Data: data})
			if r.Result != int32(len(data)) {
				t.Fatalf("%+v: result %d", tt, r.Result)
			}
			var reads []uint32
			written := uint32(0)
			for _, sqe := range r.Entries {
				if sqe.Opcode == ring.IORING_OP_READ {
					reads = append(reads, sqe.Len/512)
				} else {
					written += sqe.Len / 512
				}
			}
			if !slices.Equal(reads, tt.reads) || written != 64 {
				t.Errorf("%+v: reads of %d sectors, %d written", tt, reads, written)
			}
			b.compare(model)
		})
	}
}

// A server can be asked for the use of stores at any time, also while a device ends.
func TestUsagesWhileClosing(t *testing.T) {
	for range 20 {
		dir := snapshotDir(t)
		s, err := open(t, dir, "0 512 snapshot $A $B P 8", &Options{DirectIO: backing.SwitchOff})
		if err != nil {
			t.Fatal(err)
		}
		if list := s.Usages(); len(list) != 1 {
			t.Fatalf("usages %+v", list)
		}
		asking, asked := make(chan struct{}), make(chan struct{})
		go func() { // until Close has closed the store
			defer close(asked)
			close(asking)
			for len(s.Usages()) > 0 {
			}
		}()
		<-asking
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		<-asked
	}
}

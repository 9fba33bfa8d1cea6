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
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/loop/internal/backing"
	"github.com/ublk-loop/ublk-loop/loop/internal/mapping"
	"github.com/ublk-loop/ublk-loop/ring"
	"github.com/ublk-loop/ublk-loop/transfer/table"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// bed is a directory with the files of a test's tables, and a device of the tables.
type bed struct {
	*ublktest.Disk
	t     *testing.T
	dir   string
	stack *Stack
}

// fileSectors is the size of the files A, B, … of a bed.
const fileSectors = 512

// inDir replaces A, B, … in the text of tables by the paths of files.
func inDir(dir, text string) string {
	for _, name := range []string{"A", "B", "C", "D"} {
		text = strings.ReplaceAll(text, "$"+name, filepath.Join(dir, name))
	}
	return text
}

// makeFiles fills the files of a directory with random bytes.
func makeFiles(t *testing.T, dir string) {
	t.Helper()
	source := rand.NewChaCha8([32]byte{1})
	for _, name := range []string{"A", "B", "C", "D"} {
		content := make([]byte, fileSectors*512)
		_, _ = source.Read(content)
		if err := os.WriteFile(filepath.Join(dir, name), content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// open opens the stack of a text.
func open(t *testing.T, dir, text string, o *Options) (*Stack, error) {
	t.Helper()
	tables, err := Parse([]byte(inDir(dir, text)), false)
	if err != nil {
		return nil, err
	}
	var files []*os.File
	for _, device := range tables.Devices() {
		file, err := backing.OpenPath(device)
		if err != nil {
			t.Fatal(err)
		}
		defer file.Close()
		files = append(files, file)
	}
	o.LockDir = filepath.Join(dir, "locks")
	t.Cleanup(func() {
		// A stack that is closed before its rings waits for them, in vain.
		if _, err := os.Stat(o.LockDir); err == nil {
			t.Error("a lock is left")
		}
	})
	return Open(files, tables, o)
}

// newBed makes a device without a driver.
func newBed(t *testing.T, text string) *bed {
	t.Helper()
	dir := t.TempDir()
	makeFiles(t, dir)
	s, err := open(t, dir, text, &Options{DirectIO: backing.SwitchOff})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	const depth = 4
	parts := s.ExtraParts(depth)
	disk := ublktest.NewDiskWith(t, ublk.Options{Depth: depth, MaxIOBytes: 256 << 10, Files: s.Files(), ExtraParts: parts}, &Target{Stack: s, ExtraParts: parts})
	return &bed{Disk: disk, t: t, dir: dir, stack: s}
}

// A queue of any depth has enough parts for a request alone, and no more than is of use.
func TestExtraParts(t *testing.T) {
	s := newBed(t, "0 64 linear $A 0").stack
	for depth, want := range map[int]int{0: 64, 1: 15, 29: 15, 30: 15, 32: 16, 1024: 512, 4096: 512} {
		if got := s.ExtraParts(depth); got != want {
			t.Errorf("depth %d: %d parts, want %d", depth, got, want)
		}
	}
}

// slotOf returns the slot of a device's file in the ring: each has one more for its lock.
func (b *bed) slotOf(device int) int32 { return int32(2 * b.stack.backingOf[device]) }

// contents returns what all files have.
func (b *bed) contents() map[int][]byte {
	b.t.Helper()
	all := map[int][]byte{}
	for i, backing := range b.stack.Backings {
		content, err := os.ReadFile(backing.Path)
		if err != nil {
			b.t.Fatal(err)
		}
		all[i] = content
	}
	return all
}

// mixed is a table with all targets that are served, adjacent parts that are one, and stripes
// smaller than a request.
const mixed = "0 16 linear $A 8\n16 16 linear $A 24\n32 16 linear $B 0\n48 64 striped 2 4 $A 200 $B 100\n" +
	"112 8 zero\n120 8 linear $B 64\n128 24 striped 3 1 $C 0 $D 8 $A 100\n152 8 linear $A 60"

// Each piece of a read or write is one operation, with the bytes at their place in the
// request, whatever part of the device it is.
func TestEachPieceIsOneOperation(t *testing.T) {
	b := newBed(t, mixed)
	random := rand.New(rand.NewPCG(1, 2))
	size := b.stack.Size / 512
	for range 300 {
		start := random.Uint64N(size)
		sectors := 1 + random.Uint64N(min(size-start, 128))
		req := ublktest.Request{Op: ublk.OpRead, StartSector: start, Sectors: uint32(sectors)}
		if random.IntN(2) == 0 {
			req.Op, req.Data = ublk.OpWrite, make([]byte, sectors*512)
			for i := range req.Data {
				req.Data[i] = byte(random.Uint32())
			}
		}
		b.check(&req)
	}
}

// check carries out a request, and compares its operations and its bytes with the plan.
func (b *bed) check(req *ublktest.Request) {
	b.t.Helper()
	want := b.contents()
	data := make([]byte, req.Sectors*512)
	var pieces []mapping.Piece
	for walk := b.stack.plan.Walk(req.StartSector*512, uint64(req.Sectors)*512); ; {
		piece, ok := walk.Next()
		if !ok {
			break
		}
		if piece.Kind != mapping.Device {
			continue
		}
		pieces = append(pieces, piece)
		file := want[b.stack.backingOf[piece.Device]][piece.Offset:][:piece.Length]
		if req.Op == ublk.OpWrite {
			copy(file, req.Data[piece.At:])
		}
		copy(data[piece.At:], file)
	}
	r := b.Do(*req)
	if r.Result != int32(req.Sectors*512) {
		b.t.Fatalf("%v of %d sectors at %d: result %d", req.Op, req.Sectors, req.StartSector, r.Result)
	}
	if req.Op == ublk.OpRead && !bytes.Equal(r.Data, data) {
		b.t.Fatalf("read of %d sectors at %d: other bytes", req.Sectors, req.StartSector)
	}
	for i, content := range b.contents() {
		if !bytes.Equal(content, want[i]) {
			b.t.Fatalf("%v of %d sectors at %d: other bytes in file %d", req.Op, req.Sectors, req.StartSector, i)
		}
	}
	b.checkOperations(r.Entries, pieces)
}

func (b *bed) checkOperations(entries []ring.SQE, pieces []mapping.Piece) {
	b.t.Helper()
	if len(entries) != len(pieces) {
		b.t.Fatalf("%d operations for %d pieces", len(entries), len(pieces))
	}
	for i, e := range entries {
		p := &pieces[i]
		if e.Off != p.Offset || uint64(e.Len) != p.Length || e.Fd != b.slotOf(p.Device) || e.Addr != entries[0].Addr+p.At-pieces[0].At {
			b.t.Fatalf("operation %d is %+v for piece %+v", i, e, p)
		}
	}
}

// Each part is retried by itself: after a short result its rest, after EINTR and EAGAIN all.
func TestPartsAreRetried(t *testing.T) {
	for _, tt := range []struct {
		answers []int32
		entries int
	}{
		{[]int32{512}, 5},
		{[]int32{2048, -int32(unix.EINTR)}, 5},
		{[]int32{-int32(unix.EAGAIN), 1024, 1536, 2048}, 7},
		{[]int32{513, 2048, 2048, 2048}, 5},
	} {
		b := newBed(t, "0 64 striped 2 4 $A 200 $B 100")
		for _, op := range []ublk.Op{ublk.OpRead, ublk.OpWrite} {
			r := b.Do(ublktest.Request{Op: op, Sectors: 16, Data: make([]byte, 8192), Answers: tt.answers})
			if r.Result != 8192 || len(r.Entries) != tt.entries {
				t.Errorf("%v with %v: result %d of %d operations, want %d", op, tt.answers, r.Result, len(r.Entries), tt.entries)
			}
		}
	}
}

// The rest of a part after a short result is the rest of its bytes, at their place.
func TestRestOfAPart(t *testing.T) {
	b := newBed(t, "0 64 striped 2 4 $A 200 $B 100")
	r := b.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: 8, Data: make([]byte, 4096), Answers: []int32{512, 2048}})
	first, rest := r.Entries[0], r.Entries[2]
	if rest.Fd != first.Fd || rest.Off != first.Off+512 || rest.Addr != first.Addr+512 || rest.Len != 2048-512 {
		t.Errorf("rest %+v of %+v", rest, first)
	}
}

// The answer is the first error. All other parts are carried out.
func TestFirstErrorIsTheAnswer(t *testing.T) {
	for _, tt := range []struct {
		answers []int32
		want    unix.Errno
	}{
		{[]int32{2048, -int32(unix.ENOSPC), 2048, -int32(unix.EIO)}, unix.ENOSPC},
		{[]int32{2048, 0, 2048, 2048}, unix.EIO}, // the file was truncated
		{[]int32{-int32(unix.EREMOTEIO)}, unix.EREMOTEIO},
		{[]int32{-int32(unix.EAGAIN), 2048, 2048, 2048, -int32(unix.EAGAIN)}, unix.EAGAIN}, // also on a worker thread
	} {
		b := newBed(t, "0 64 striped 2 4 $A 200 $B 100")
		r := b.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: 16, Data: make([]byte, 8192), Answers: tt.answers})
		if want := max(4, len(tt.answers)); r.Result != -int32(tt.want) || len(r.Entries) != want {
			t.Errorf("%v: result %d of %d operations, want %d of %d", tt.answers, r.Result, len(r.Entries), -int32(tt.want), want)
		}
		// The next request of the tag knows nothing of that.
		for range 8 {
			if r := b.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 16}); r.Result != 8192 {
				t.Errorf("then: result %d", r.Result)
			}
		}
	}
}

// A part without a place fails its request with EIO. The other parts of the request are
// carried out, as in the kernel.
func TestErrorTarget(t *testing.T) {
	b := newBed(t, "0 8 linear $A 0\n8 8 error\n16 8 linear $B 0\n24 8 error")
	data := bytes.Repeat([]byte{7}, 24*512)
	r := b.Do(ublktest.Request{Op: ublk.OpWrite, Sectors: 24, Data: data})
	if r.Result != -int32(unix.EIO) || len(r.Entries) != 2 {
		t.Errorf("result %d of %d operations", r.Result, len(r.Entries))
	}
	for i, content := range b.contents() {
		if !bytes.Equal(content[:4096], data[:4096]) {
			t.Errorf("file %d was not written", i)
		}
	}
	for _, req := range []ublktest.Request{
		{Op: ublk.OpRead, StartSector: 8, Sectors: 8},
		{Op: ublk.OpWrite, StartSector: 24, Sectors: 8, Data: data[:4096]},
		{Op: ublk.OpDiscard, StartSector: 8, Sectors: 8},
		{Op: ublk.OpWriteZeroes, StartSector: 24, Sectors: 8},
	} {
		if r := b.Do(req); r.Result != -int32(unix.EIO) || len(r.Entries) != 0 {
			t.Errorf("%v: result %d of %d operations", req.Op, r.Result, len(r.Entries))
		}
	}
}

// More parts than can be in flight at once are carried out in turns.
func TestManyParts(t *testing.T) {
	b := newBed(t, "0 256 striped 2 1 $A 0 $B 0")
	content := b.contents()
	r := b.Do(ublktest.Request{Op: ublk.OpRead, Sectors: 256})
	if r.Result != 256*512 || len(r.Entries) != 256 {
		t.Fatalf("result %d of %d operations", r.Result, len(r.Entries))
	}
	for i := range 256 {
		if !bytes.Equal(r.Data[i*512:][:512], content[i%2][i/2*512:][:512]) {
			t.Fatalf("sector %d has other bytes", i)
		}
	}
}

// A FUA write is synchronous in each part.
func TestFUAInEachPart(t *testing.T) {
	b := newBed(t, "0 64 striped 2 4 $A 200 $B 100")
	r := b.Do(ublktest.Request{Op: ublk.OpWrite, Flags: ublk.FlagFUA, Sectors: 16, Data: make([]byte, 8192)})
	for i, e := range r.Entries {
		if e.OpFlags != unix.RWF_DSYNC {
			t.Errorf("part %d has flags %#x", i, e.OpFlags)
		}
	}
}

// A flush syncs each file that can have data of the device once, and reports the first
// error.
func TestFlush(t *testing.T) {
	for text, want := range map[string]int{
		"0 8 zero":                                         0,
		"0 8 linear $A 0\n8 8 linear $A 100":               1,
		"0 8 linear $A 0\n8 8 error $B 0":                  1,
		"0 8 linear $A 0\n8 24 striped 3 8 $B 0 $A 8 $C 0": 3,
	} {
		b := newBed(t, text)
		r := b.Do(ublktest.Request{Op: ublk.OpFlush})
		if r.Result != 0 || len(r.Entries) != want {
			t.Errorf("%q: result %d of %d operations, want %d", text, r.Result, len(r.Entries), want)
		}
		var files []int32
		for _, e := range r.Entries {
			if e.Opcode != ring.IORING_OP_FSYNC || e.OpFlags != ring.IORING_FSYNC_DATASYNC || slices.Contains(files, e.Fd) {
				t.Errorf("%q: operation %+v", text, e)
			}
			files = append(files, e.Fd)
		}
		if want == 0 {
			continue
		}
		r = b.Do(ublktest.Request{Op: ublk.OpFlush, Answers: []int32{-int32(unix.EINTR), 0, 0, -int32(unix.EIO)}})
		if failed := want == 3; r.Result != 0 != failed || len(r.Entries) != want+1 {
			t.Errorf("%q: result %d of %d operations", text, r.Result, len(r.Entries))
		}
	}
}

// Discards and write-zeroes go to each stripe as one operation, and leave parts without a
// place alone.
func TestRanges(t *testing.T) {
	b := newBed(t, "0 64 striped 2 8 $A 200 $B 104\n64 8 zero\n72 16 linear $C 8")
	for _, req := range []ublktest.Request{
		{Op: ublk.OpDiscard}, {Op: ublk.OpWriteZeroes}, {Op: ublk.OpWriteZeroes, Flags: ublk.FlagNoUnmap},
	} {
		makeFiles(t, b.dir)
		want := b.contents()
		clear(want[0][208*512 : 232*512])
		clear(want[1][104*512 : 136*512])
		clear(want[2][8*512 : 12*512])
		req.StartSector, req.Sectors = 8, 68
		r := b.Do(req)
		if r.Result != 0 {
			t.Errorf("%v: result %d", req.Op, r.Result)
		}
		if req.Flags == 0 && len(r.Entries) != 3 {
			t.Errorf("%v: %d operations, want one for each place", req.Op, len(r.Entries))
		}
		for i, content := range b.contents() {
			if !bytes.Equal(content, want[i]) {
				t.Errorf("%v: file %d has other bytes", req.Op, i)
			}
		}
	}
}

// What a file system lacks is done in two steps, for the part that needs it. Then a FUA
// request syncs all files.
func TestStepsOfARange(t *testing.T) {
	b := newBed(t, "0 64 striped 2 8 $A 200 $B 104")
	req := ublktest.Request{
		Op: ublk.OpWriteZeroes, Flags: ublk.FlagNoUnmap | ublk.FlagFUA, Sectors: 16,
		Answers: []int32{-int32(unix.EOPNOTSUPP), 0, 0, 0, 0, 0},
	}
	r := b.Do(req)
	var modes []uint64
	for _, e := range r.Entries {
		if e.Opcode == ring.IORING_OP_FALLOCATE {
			modes = append(modes, uint64(e.Len))
		}
	}
	if want := []uint64{backing.ZeroRange, backing.ZeroRange, backing.PunchHole, backing.Allocate}; r.Result != 0 || !slices.Equal(modes, want) || len(r.Entries) != 6 {
		t.Errorf("result %d, modes %#x of %d operations", r.Result, modes, len(r.Entries))
	}
	req = ublktest.Request{Op: ublk.OpDiscard, Sectors: 16, Answers: []int32{-int32(unix.EINTR), -int32(unix.ENOSPC), 0}}
	if r := b.Do(req); r.Result != -int32(unix.ENOSPC) || len(r.Entries) != 3 {
		t.Errorf("discard: result %d of %d operations", r.Result, len(r.Entries))
	}
}

// A read-only stack refuses every change.
func TestReadOnlyStack(t *testing.T) {
	b := newBed(t, "a,,,ro,0 8 linear $A 0")
	for _, op := range []ublk.Op{ublk.OpWrite, ublk.OpDiscard, ublk.OpWriteZeroes} {
		if r := b.Do(ublktest.Request{Op: op, Sectors: 8, Data: make([]byte, 4096)}); r.Result != -int32(unix.EROFS) || len(r.Entries) != 0 {
			t.Errorf("%v: result %d of %d operations", op, r.Result, len(r.Entries))
		}
	}
	if r := b.Do(ublktest.Request{Op: 6, Sectors: 8}); r.Result != -int32(unix.EOPNOTSUPP) {
		t.Errorf("unknown operation: result %d", r.Result)
	}
}

// A file with two names is opened and locked once.
func TestFileWithTwoNames(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	if err := os.Symlink(filepath.Join(dir, "A"), filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	text := fmt.Sprintf("0 8 linear $A 0\n8 8 linear %s/link 8\n16 8 linear $B 0", dir)
	s, err := open(t, dir, text, &Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if len(s.Backings) != 2 || len(s.Devices()) != 3 || !slices.Equal(s.flush, []int{0, 1}) {
		t.Errorf("%d files of %d devices, flushes of %v", len(s.Backings), len(s.Devices()), s.flush)
	}
	if _, err := open(t, dir, "0 8 linear $B 0", &Options{}); !errors.Is(err, unix.EBUSY) {
		t.Errorf("a file that another stack has: %v", err)
	}
}

// An error has the line, the target and the device, and nothing stays open or locked.
func TestRefusedStacks(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string]string{
		"0 8 linear $A 0\n8 8 linear $B 505":                    "line 2: linear: device",
		"0 8 zero\n8 8 linear " + empty + " 0":                  "line 2: linear: device",
		"a,,,,0 8 zero;b,,,,0 16 linear /dev/mapper/a 0":        "table b: line 1: linear: device",
		"0 8 zero\n8 8 crypt aes-xts-plain64 :64:user:k 0 $A 0": "line 2: crypt: key: no key",
		"0 8 snapshot-origin $A":                                "line 1: snapshot-origin: target of device mapper",
		"0 8 linear \xff 0":                                     "text that is not UTF-8",
	} {
		_, err := open(t, dir, text, &Options{})
		var stackError *table.StackError
		if !errors.As(err, &stackError) || !strings.HasPrefix(err.Error(), want) || strings.Contains(err.Error(), "\n") {
			t.Errorf("%q: error %v", text, err)
		}
		s, err := open(t, dir, "0 8 linear $A 0\n8 8 linear $B 0", &Options{})
		if err != nil {
			t.Fatalf("after %q: %v", text, err)
		}
		_ = s.Close()
	}
}

// The end of a file behind its last whole sector is left out, as the kernel does it for a
// loop device.
func TestFileOfOddSize(t *testing.T) {
	dir := t.TempDir()
	makeFiles(t, dir)
	if err := os.Truncate(filepath.Join(dir, "A"), 8*512+100); err != nil {
		t.Fatal(err)
	}
	s, err := open(t, dir, "0 8 linear $A 0", &Options{})
	if err != nil {
		t.Fatal(err)
	}
	_ = s.Close()
	if _, err := open(t, dir, "0 9 linear $A 0", &Options{}); err == nil {
		t.Error("a part of a sector is a sector")
	}
}

package loop

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/transfer/snapshot"
	"github.com/ublk-loop/ublk-loop/ublk"
	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// logName is the name of the device with the target log-writes.
const logName = "ublk-loop-log"

// prefixSectors is the size of the origin in sectors.
const prefixSectors = 2048

// logged is an entry of the log of dm-log-writes (drivers/md/dm-log-writes.c).
type logged struct {
	at    uint64 // in bytes
	data  []byte
	mark  int  // number of the last event that had ended; -1 for a write
	flush bool // a flush or FUA, with which the log can end
}

// readLog returns the entries of a log: a superblock, and then for each entry a sector with its
// header, and its data.
func readLog(t *testing.T, disk string) (entries []logged) {
	t.Helper()
	log := readDisk(t, openFile(t, disk, os.O_RDONLY|unix.O_DIRECT))
	number := func(at int) uint64 { return binary.LittleEndian.Uint64(log[at:]) }
	if number(0) != 0x6a736677736872 {
		t.Fatalf("the log begins with %#x", number(0))
	}
	for at, n := 512, number(16); n > 0; n-- {
		sectors, flags, length := int(number(at+8)), number(at+16), int(number(at+24))
		e := logged{at: number(at) * 512, mark: -1, flush: flags&3 != 0}
		if flags&8 != 0 { // the text of a mark is behind its header
			mark, err := strconv.Atoi(string(log[at+32:][:length]))
			if err == nil {
				e.mark = mark
			}
			sectors = 0
		}
		at += 512
		e.data = log[at : at+sectors*512]
		at += sectors * 512
		entries = append(entries, e)
	}
	return entries
}

// prefixModel is what was written to a device.
type prefixModel struct {
	versions [][]int      // numbers of the events that have written a sector
	durable  [][]int      // for each event, the versions that are durable afterwards
	last     []int        // the last version of each sector
	unsaved  map[int]bool // chunks that were written since the last flush
	mark     func(n int)  // called when event n has made something durable
}

// newPrefixModel returns the model of a device with some sectors, whose versions are 0.
func newPrefixModel(sectors int, mark func(event int)) *prefixModel {
	return &prefixModel{versions: make([][]int, sectors), last: make([]int, sectors), unsaved: make(map[int]bool), mark: mark}
}

// stamp fills sectors with their numbers and a version.
func stamp(mem []byte, first, version int) []byte {
	for i := 0; i < len(mem); i += 16 {
		binary.LittleEndian.PutUint64(mem[i:], uint64(first+i/512))
		binary.LittleEndian.PutUint64(mem[i+8:], uint64(version))
	}
	return mem
}

// chunksOf calls a function for each chunk of 4 KiB of some sectors, until it returns false.
func chunksOf(at, n int, f func(chunk int) bool) bool {
	for chunk := at / 8; chunk <= (at+n-1)/8; chunk++ {
		if !f(chunk) {
			return false
		}
	}
	return true
}

// write writes to a device, with flushes and FUA writes, and says what is durable.
func (m *prefixModel) write(t *testing.T, f *os.File, events int) {
	t.Helper()
	mem := alignedMemory(t, 64<<10)
	for range events {
		if err := m.event(f, mem); err != nil {
			t.Fatal(err)
		}
	}
}

// event is a flush or a write at random.
//
// In the log of dm-log-writes, a FUA write is there at once, an earlier write only with the next
// flush. Replayed in this order, the earlier one would win. Therefore FUA writes leave out chunks
// that are not flushed.
func (m *prefixModel) event(f *os.File, mem []byte) error {
	if rand.IntN(8) == 0 {
		return m.flush(f)
	}
	n := 1 + rand.IntN(1<<rand.IntN(7))
	at := rand.IntN(len(m.last) - n)
	fua := rand.IntN(7) == 0 && chunksOf(at, n, func(chunk int) bool { return !m.unsaved[chunk] })
	return m.writeAt(f, mem[:n*512], at, fua)
}

// writeAt writes to sectors.
func (m *prefixModel) writeAt(f *os.File, mem []byte, at int, fua bool) error {
	event, flags := m.begin(), 0
	if fua {
		flags = unix.RWF_DSYNC
	} else {
		chunksOf(at, len(mem)/512, func(chunk int) bool { m.unsaved[chunk] = true; return true })
	}
	for s := at; s < at+len(mem)/512; s++ {
		m.versions[s] = append(m.versions[s], event)
	}
	if _, err := unix.Pwritev2(int(f.Fd()), [][]byte{stamp(mem, at, event)}, int64(at)*512, flags); err != nil {
		return err
	}
	for s := at; s < at+len(mem)/512; s++ {
		if m.last[s] = event; fua {
			m.durable[event-1][s] = event
		}
	}
	if fua {
		m.mark(event)
	}
	return nil
}

// flush flushes the device.
func (m *prefixModel) flush(f *os.File) error {
	event := m.begin()
	if err := f.Sync(); err != nil {
		return err
	}
	copy(m.durable[event-1], m.last)
	clear(m.unsaved)
	m.mark(event)
	return nil
}

// begin returns the number of the next event, after which the same is durable as before.
func (m *prefixModel) begin() int {
	now := make([]int, len(m.last))
	if n := len(m.durable); n > 0 {
		copy(now, m.durable[n-1])
	}
	m.durable = append(m.durable, now)
	return len(m.durable)
}

// check checks what a snapshot shows after a power cut. event is the last one that had ended, or 0.
func (m *prefixModel) check(t *testing.T, content []byte, event int) {
	t.Helper()
	want := make([]byte, 512)
	for s := range m.last {
		got := content[s*512:][:512]
		version := int(binary.LittleEndian.Uint64(got[8:]))
		least := 0
		if event > 0 {
			least = m.durable[event-1][s]
		}
		if !bytes.Equal(got, stamp(want, s, version)) || version != 0 && !slices.Contains(m.versions[s], version) {
			t.Fatalf("sector %d has bytes that nobody has written there: %x", s, got[:16])
		}
		if version < least {
			t.Fatalf("sector %d has version %d, and %d was flushed", s, version, least)
		}
	}
}

// After a power cut at each flush and FUA write to the store, and after more of its writes, the
// kernel's snapshot and this one show the same. What was flushed is there, and each sector has
// what was written to it.
func TestKernelSnapshotPrefixes(t *testing.T) {
	ctl := ublktest.Kernel(t)
	run(t, "modprobe", "-a", "dm_snapshot", "dm_log_writes")
	for _, cfg := range []Config{{}, {ZeroCopy: SwitchOff, OnCrash: CrashReissue}} {
		t.Run(fmt.Sprintf("zero copy %s, on crash %s", cfg.ZeroCopy, cfg.OnCrash), func(t *testing.T) { snapshotPrefixes(t, ctl, cfg) })
	}
}

func snapshotPrefixes(t *testing.T, ctl *ublk.Control, cfg Config) {
	origin, store, log := nullDisk(t, 1, sectorDisk), nullDisk(t, 4, sectorDisk), nullDisk(t, 32, sectorDisk)
	fillDisk(t, origin, stamp(make([]byte, prefixSectors*512), 0, 0))
	layout, err := snapshot.NewLayout(4096)
	if err == nil {
		err = snapshot.Format(openFile(t, store, os.O_RDWR), layout)
	}
	if err != nil {
		t.Fatal(err)
	}
	image := readDisk(t, openFile(t, store, os.O_RDONLY|unix.O_DIRECT))
	model := newPrefixModel(prefixSectors, func(event int) { run(t, "dmsetup", "message", logName, "0", "mark", fmt.Sprint(event)) })
	t.Run("write", func(t *testing.T) {
		run(t, "dmsetup", "create", "--noudevsync", logName, "--table", fmt.Sprintf("0 8192 log-writes %s %s", store, log))
		t.Cleanup(func() { run(t, "dmsetup", "remove", "--retry", "--noudevsync", logName) })
		node := "/dev/" + strings.TrimSpace(run(t, "dmsetup", "info", "-c", "--noheadings", "-o", "blkdevname", logName))
		dev := attachTable(t, ctl, fmt.Sprintf("0 %d snapshot %s %s P 8", prefixSectors, origin, waitForDisk(t, node)), cfg)
		model.write(t, openFile(t, dev.Path(), os.O_RDWR|unix.O_DIRECT), 200)
	})
	entries := readLog(t, log)
	event := 0
	for i, ends := range endsOf(entries, ublktest.Repeats(t, "UBLK_LOOP_PREFIXES", 4, 200)) {
		e := &entries[i]
		copy(image[e.at:], e.data)
		event = max(event, e.mark)
		if !ends {
			continue
		}
		t.Run(fmt.Sprint("prefix ", i), func(t *testing.T) { checkPrefix(t, ctl, model, image, origin, event) })
	}
}

// fillDisk writes to a disk, past the page cache, which the kernel's snapshot does not use.
func fillDisk(t *testing.T, disk string, content []byte) {
	t.Helper()
	mem := alignedMemory(t, len(content))
	copy(mem, content)
	if _, err := openFile(t, disk, os.O_RDWR|unix.O_DIRECT).WriteAt(mem, 0); err != nil {
		t.Fatal(err)
	}
}

// endsOf chooses the entries after which the power is cut: those with a flush, and some others. In
// a short run it is only a few of each.
func endsOf(entries []logged, sampled int) []bool {
	ends := make([]bool, len(entries))
	for i := range entries {
		ends[i] = entries[i].flush && (!testing.Short() || rand.IntN(len(entries)) < 2*sampled)
	}
	for range sampled {
		ends[rand.IntN(len(ends))] = true
	}
	return ends
}

func checkPrefix(t *testing.T, ctl *ublk.Control, model *prefixModel, image []byte, origin string, event int) {
	scratch := nullDisk(t, 4, sectorDisk)
	fillDisk(t, scratch, image)
	text := fmt.Sprintf("0 %d snapshot %s %s P 8", prefixSectors, origin, scratch)
	var contents [2][]byte
	t.Run("kernel", func(t *testing.T) {
		contents[0] = readDisk(t, openFile(t, mappedDisk(t, text), os.O_RDONLY|unix.O_DIRECT))
	})
	t.Run("ours", func(t *testing.T) {
		contents[1] = readDisk(t, openFile(t, attachTable(t, ctl, text, Config{}).Path(), os.O_RDONLY|unix.O_DIRECT))
	})
	if !bytes.Equal(contents[0], contents[1]) {
		t.Error(firstDifference(contents[1], contents[0]))
	}
	model.check(t, contents[1], event)
}

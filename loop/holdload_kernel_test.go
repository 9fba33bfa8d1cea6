package loop

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/ublktest"
)

// While a device keeps its requests, nothing changes its file. Afterwards all requests are carried out.
func TestKernelHoldUnderLoad(t *testing.T) {
	ctl := ublktest.Kernel(t)
	for _, m := range modes(512) {
		t.Run(m.String(), func(t *testing.T) {
			s := attachMode(t, ctl, sparseFile(t, fileSystem(t, "ext4")), m)
			s.holdUnderLoad()
		})
	}
}

// The load of TestKernelHoldUnderLoad.
const (
	loadHolds   = 60
	loadWriters = 4
	loadBytes   = 1 << 20 // of a writer
)

// pause waits for up to three milliseconds, in which requests come or would change the file.
func pause() { time.Sleep(rand.N(3 * time.Millisecond)) }

func (s *subject) holdUnderLoad() {
	var stop atomic.Bool
	var writers sync.WaitGroup
	errs := make(chan error, loadWriters)
	for i := range loadWriters {
		w := &loadWriter{
			disk: s.disk, start: int64(i) * loadBytes, sector: int64(s.dev.b.SectorSize),
			mem: alignedMemory(s.t, 64<<10), model: make([]byte, loadBytes),
		}
		writers.Go(func() {
			for err := w.fill(); ; err = w.step() {
				if err != nil || stop.Load() {
					errs <- err
					return
				}
			}
		})
	}
	before, after := make([]byte, loadWriters*loadBytes), make([]byte, loadWriters*loadBytes)
	for range loadHolds {
		resume, err := s.dev.dev.Hold(20 * time.Second)
		if err != nil {
			s.t.Error(err)
			break
		}
		s.readFile(before)
		pause()
		s.readFile(after)
		if !bytes.Equal(before, after) {
			s.t.Errorf("the file changes: %s", firstDifference(after, before))
		}
		resume()
		pause()
	}
	stop.Store(true)
	for range loadWriters {
		if err := ublktest.Receive(s.t, 20*time.Second, "the end of a writer", errs); err != nil {
			s.t.Error(err)
		}
	}
	writers.Wait()
}

// readFile reads what the writers use of the file.
func (s *subject) readFile(p []byte) {
	s.t.Helper()
	if _, err := s.file.ReadAt(p, s.offset); err != nil {
		s.t.Fatal(err)
	}
}

// loadWriter changes a part of the device, and checks what it reads.
type loadWriter struct {
	disk   *os.File
	start  int64 // of the part
	sector int64
	mem    []byte // of the largest request
	model  []byte // what the part has
	ops    int
}

// fill makes all of the part zero.
func (w *loadWriter) fill() error {
	for at := int64(0); at < loadBytes; at += int64(len(w.mem)) {
		if _, err := w.disk.WriteAt(w.mem, w.start+at); err != nil {
			return err
		}
	}
	return nil
}

// step carries out a random operation.
func (w *loadWriter) step() error {
	w.ops++
	n := (rand.Int64N(int64(len(w.mem))/w.sector) + 1) * w.sector
	at := rand.Int64N((loadBytes-n)/w.sector+1) * w.sector
	buf := w.mem[:n]
	var err error
	switch op := rand.IntN(10); op {
	case 0:
		return w.disk.Sync()
	case 1:
		_, err = unix.Pwritev2(int(w.disk.Fd()), [][]byte{random(buf)}, w.start+at, unix.RWF_DSYNC)
		copy(w.model[at:], buf)
	case 2:
		mode := uint32(punchHole)
		if rand.IntN(2) == 0 {
			mode = unix.FALLOC_FL_ZERO_RANGE | unix.FALLOC_FL_KEEP_SIZE
		}
		err = unix.Fallocate(int(w.disk.Fd()), mode, w.start+at, n)
		clear(w.model[at : at+n])
	case 3, 4, 5:
		_, err = w.disk.ReadAt(buf, w.start+at)
		if err == nil && !bytes.Equal(buf, w.model[at:at+n]) {
			err = errors.New(firstDifference(buf, w.model[at:at+n]))
		}
	default:
		_, err = w.disk.WriteAt(random(buf), w.start+at)
		copy(w.model[at:], buf)
	}
	if err != nil {
		err = fmt.Errorf("operation %d, at %d, %d bytes: %w", w.ops, w.start+at, n, err)
	}
	return err
}

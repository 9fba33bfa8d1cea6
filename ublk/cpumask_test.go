package ublk

import (
	"encoding/binary"
	"errors"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/ublk-loop/ublk-loop/ublk/uapi"
)

// maskOf returns the mask of some CPUs, for a machine with fewer than size CPUs.
func maskOf(size int, cpus ...int) cpuMask {
	buf := make([]byte, (size+63)/64*cpuMaskWord)
	for _, cpu := range cpus {
		word := buf[cpu/64*cpuMaskWord:]
		binary.NativeEndian.PutUint64(word, binary.NativeEndian.Uint64(word)|1<<(cpu%64))
	}
	return cpuMask(buf)
}

// A manyCPUs is a driver on a machine with a number of possible CPUs. It maps
// one CPU to each queue, and the last to the last queue.
type manyCPUs struct {
	possible int
	asked    int
}

// Do answers as ublk_ctrl_get_queue_affinity does.
func (d *manyCPUs) Do(cmd Command) error {
	d.asked++
	switch {
	case cmd.Op != uapi.UBLK_U_CMD_GET_QUEUE_AFFINITY:
		return unix.EOPNOTSUPP
	case 8*len(cmd.Buf) < d.possible, len(cmd.Buf)%8 != 0, len(cmd.Buf) > 1<<16-1, cmd.Data >= uint64(d.possible):
		return unix.EINVAL
	}
	copy(cmd.Buf, maskOf(d.possible, int(cmd.Data)))
	return nil
}

func (d *manyCPUs) Close() error { return nil }

// The affinity of a queue is found on machines with any number of CPUs.
func TestQueueAffinity(t *testing.T) {
	for possible, want := range map[int]int{1: 1, 2: 1, 1024: 1, 1025: 2, 2048: 2, 2049: 3, 8192: 4, 1 << 18: 9} {
		driver := &manyCPUs{possible: possible}
		last := possible - 1
		queue := min(last, 1<<16-1)
		mask, err := NewControl(driver).queueAffinity(0, uint16(queue))
		if err != nil {
			t.Errorf("%d CPUs: %v", possible, err)
			continue
		}
		first := -1
		mask.words(func(at int, word uint64) {
			if word != 0 {
				first = at
			}
		})
		if mask.count() != 1 || first != queue/64*64 || driver.asked != want {
			t.Errorf("%d CPUs: %d in the mask, in the word at %d, after %d commands; want CPU %d after %d",
				possible, mask.count(), first, driver.asked, queue, want)
		}
	}
	for _, driver := range []*manyCPUs{{possible: 1<<18 + 1}, {possible: 0}} {
		if _, err := NewControl(driver).queueAffinity(0, 0); !errors.Is(err, unix.EINVAL) || driver.asked != 9 {
			t.Errorf("%d CPUs: error %v after %d commands, want EINVAL after 9", driver.possible, err, driver.asked)
		}
	}
}

// The command is not repeated after another error than EINVAL.
func TestQueueAffinityOfNoDevice(t *testing.T) {
	driver := &failing{err: unix.ENODEV}
	if _, err := NewControl(driver).queueAffinity(3, 0); !errors.Is(err, unix.ENODEV) || driver.asked != 1 {
		t.Errorf("error %v after %d commands, want ENODEV after 1", err, driver.asked)
	}
}

// A failing driver fails each command.
type failing struct {
	err   error
	asked int
}

func (d *failing) Do(Command) error { d.asked++; return d.err }
func (d *failing) Close() error     { return nil }

// Each CPU of a mask is in its set, and no other.
func TestCPUMaskSet(t *testing.T) {
	cpus := []int{0, 3, 63, 64, 130, 4095}
	set := maskOf(4096, cpus...).set()
	for _, cpu := range cpus {
		if !set.IsSet(cpu) {
			t.Errorf("CPU %d is missing", cpu)
		}
	}
	if set.Count() != len(cpus) {
		t.Errorf("%d CPUs, want %d", set.Count(), len(cpus))
	}
}

// A thread is bound to the CPUs of a mask, even if the mask has more bits than the machine has
// CPUs.
func TestPin(t *testing.T) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		runtime.LockOSThread() // never unlocked, so the thread ends with the test
		allowed := unix.NewCPUSet(8 * largestCPUMask)
		if err := unix.SchedGetaffinityDynamic(0, allowed); err != nil {
			t.Error(err)
			return
		}
		for cpu := range 8 * largestCPUMask {
			if !allowed.IsSet(cpu) {
				continue
			}
			if err := maskOf(8*largestCPUMask, cpu).pin(); err != nil {
				t.Error(err)
			}
			got := unix.NewCPUSet(8 * largestCPUMask)
			if err := unix.SchedGetaffinityDynamic(0, got); err != nil || got.Count() != 1 || !got.IsSet(cpu) {
				t.Errorf("%d CPUs, error %v, want only CPU %d", got.Count(), err, cpu)
			}
		}
		for _, mask := range []cpuMask{"", maskOf(8*largestCPUMask, 8*largestCPUMask-1)} {
			if err := mask.pin(); err != nil {
				t.Errorf("a mask of %d bytes without a CPU of this machine: %v", len(mask), err)
			}
		}
	}()
	<-done
}
